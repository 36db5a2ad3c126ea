//! From what is asked to what the packet path's programs compare.

use crate::daemon::naming;
use crate::failure::{Failure, Result, code};
use dirigent_api::TraceOf;
use dirigent_config::Prefix;
use dirigent_datapath::control::report::kind_name;
use dirigent_datapath::control::{Store, words};
use dirigent_director::trace::Wanted;
use dirigent_director::{Reason, ReasonKind};

/// Of these tables.
pub fn wanted<S: Store>(of: &TraceOf, store: &S) -> Result<Wanted> {
    let mut wanted = Wanted { reasons: reasons(of)?, ..Wanted::default() };
    if let Some(text) = &of.client {
        let prefix = Prefix::parse(text).ok_or_else(|| {
            let failure = Failure::new(text, "that is no client", "write it like 198.51.100.7 or 198.51.100.0/24");
            Failure { code: code::INVALID, ..failure }
        })?;
        wanted.family = if prefix.address().is_ipv6() { 6 } else { 4 };
        (wanted.client, wanted.mask) = (words(prefix.address()), words(prefix.mask()));
    }
    if let Some(name) = &of.service {
        let places = store.places()?.into_iter().filter_map(|(spot, index)| Some((spot.key()?, index)));
        wanted.service = naming::one_of(places, name)? + 1;
    }
    if let Some(name) = &of.server {
        let (address, port) = naming::server_at(name)?;
        wanted.server_family = if address.is_ipv6() { 6 } else { 4 };
        wanted.server = words(address);
        wanted.server_port = port.map_or(0, |port| port.to_be().into());
    }
    Ok(wanted)
}

/// A bit for each reason.
fn reasons(of: &TraceOf) -> Result<u64> {
    let bit = |reason: &Reason| 1_u64 << *reason as u64;
    let all = |is: &dyn Fn(&Reason) -> bool| Reason::ALL.iter().filter(|reason| is(reason)).map(bit).sum::<u64>();
    let Some(text) = &of.reasons else {
        let anything = of.client.is_some() || of.service.is_some() || of.server.is_some();
        // Nobody wants to see every packet of the host because he asked for nothing.
        return Ok(all(&|reason| anything || reason.kind() != ReasonKind::Passed));
    };
    let mut found = 0;
    for name in text.split(',').map(str::trim) {
        let named = all(&|reason| reason.name() == name || kind_name(reason.kind()) == name);
        if named == 0 {
            let remedy = "docs/drops.md and `dirigent stats` have them; or say forwarded, passed, answered or dropped";
            let failure = Failure::new(format!("reason {name}"), "there is no such reason", remedy);
            return Err(Failure { code: code::INVALID, ..failure });
        }
        found |= named;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dirigent_datapath::control::Control;
    use dirigent_datapath::memory::{Capacity, MemoryTables};

    fn of(change: impl FnOnce(&mut TraceOf)) -> Result<Wanted> {
        let text = "version = 1\n[[service]]\nprotocol = \"tcp\"\naddress = \"192.0.2.10:80\"\n\
                    server = [{ address = \"10.0.0.2:8080\" }]\n[[service]]\nfwmark = 7\nserver = [{ address = \"10.0.0.3\" }]\n";
        let model = dirigent_config::file::parse("f", text).unwrap();
        let control = Control::open(MemoryTables::new(&Capacity::default()), &model).unwrap();
        let mut asked = TraceOf::default();
        change(&mut asked);
        wanted(&asked, control.store())
    }

    #[test]
    fn what_is_asked_is_what_is_compared() {
        let plain = of(|_| ()).unwrap();
        assert_eq!(plain.reasons & 1 << Reason::NoService as u64, 0);
        assert_ne!(plain.reasons & 1 << Reason::Request as u64, 0);
        assert_ne!(plain.reasons & 1 << Reason::TableFull as u64, 0);
        let client = of(|of| of.client = Some("198.51.100.7/24".into())).unwrap();
        assert_eq!(client.family, 4);
        assert_eq!(client.client[..2], [u16::from_ne_bytes([198, 51]), u16::from_ne_bytes([100, 0])]);
        assert_eq!(client.mask[..3], [0xffff, u16::from_ne_bytes([0xff, 0]), 0]);
        assert_ne!(client.reasons & 1 << Reason::NoService as u64, 0);
        let [tcp, mark] =
            ["tcp:192.0.2.10:80", "fwmark:7"].map(|name| of(|of| of.service = Some(name.into())).unwrap());
        assert!(tcp.service != mark.service && tcp.service != 0 && mark.service != 0);
        let server = of(|of| of.server = Some("10.0.0.2:8080".into())).unwrap();
        assert_eq!((server.server_family, server.server_port), (4, u32::from(8080_u16.to_be())));
        assert_eq!(of(|of| of.server = Some("10.0.0.2".into())).unwrap().server_port, 0);
        let drops = of(|of| of.reasons = Some("table_full,answered".into())).unwrap().reasons;
        let named = |reason: &&Reason| drops >> **reason as u64 & 1 != 0;
        assert!(Reason::ALL.iter().filter(named).all(|r| *r == Reason::TableFull || r.kind() == ReasonKind::Answered));
        assert!(Reason::ALL.iter().filter(named).count() > 3);
    }

    #[test]
    fn mistakes_are_named() {
        for (asked, place) in [
            (of(|of| of.client = Some("nobody".into())), "nobody"),
            (of(|of| of.service = Some("tcp:192.0.2.11:80".into())), "tcp:192.0.2.11:80"),
            (of(|of| of.server = Some("x".into())), "x"),
            (of(|of| of.reasons = Some("request,lost".into())), "reason lost"),
            (of(|of| of.reasons = Some(String::new())), "reason "),
        ] {
            let failure = asked.unwrap_err();
            assert_eq!(failure.problems[0].place, place);
            assert!(!failure.problems[0].remedy.is_empty());
        }
    }
}
