//! The configuration of very many services.

use super::HOSTS;
use std::fmt::Write as _;

/// What a file says beside the first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// One server's weight.
    One,
    /// Every server's weight.
    All,
}

/// dirigent.toml with services of so many servers, without checks.
pub fn text(instance: &str, (services, servers): (u32, u32), change: Change) -> String {
    let mut out = format!("version = 1\n[director]\ninstance = \"{instance}\"\nmode = \"tc\"\n");
    for service in 0..services {
        let [_, _, high, low] = (service / 250 * 256 + service % 250 + 1).to_be_bytes();
        let (third, fourth) = (high, low);
        let _ = writeln!(
            out,
            "[[service]]\nprotocol = \"tcp\"\naddress = \"198.18.{third}.{fourth}:80\"\nscheduler = \"wrr\""
        );
        for server in 0..servers {
            let host = (u64::from(service) * u64::from(servers) + u64::from(server)) as u32 % HOSTS.max(servers);
            let (third, fourth) = (host / 250, host % 250 + 1);
            let more = match change {
                Change::All => 1,
                Change::One if (service, server) == (services / 2, servers / 2) => 1,
                _ => 0,
            };
            let weight = 1 + server % 3 + more;
            let _ = writeln!(
                out,
                "[[service.server]]\naddress = \"10.1.{third}.{fourth}:{}\"\nweight = {weight}",
                8000 + service / HOSTS
            );
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use dirigent_config::{Op, Plan, file::parse};

    #[test]
    fn files_differ_in_what_they_are_meant_to() {
        let of = |change| parse("made", &text("x", (300, 7), change)).unwrap();
        let none = of(Change::None);
        assert_eq!(none.services().len(), 300);
        assert!(none.services().iter().all(|service| service.servers.len() == 7));
        let changes = |change| Plan::between(&none, &of(change)).ops;
        assert!(changes(Change::None).is_empty());
        assert!(matches!(changes(Change::One)[..], [Op::EditServer { .. }]));
        assert_eq!(changes(Change::All).len(), 2100);
    }
}
