//! The metrics of node_exporter's ipvs collector, which reads /proc/net/ip_vs and ip_vs_stats, so that dashboards made for it
//! go on. Its rules: protocols in capitals, a mark in eight hexadecimal digits, and what has the same labels is summed.

use super::families::Families;
use dirigent_api::metrics as table;
use dirigent_api::{Service, Stats};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

/// Active and inactive connections, and weight.
type Backend = [u64; 3];

/// Tells all of them.
pub fn tell(stats: &Stats, to: &mut Families<'_>) -> fmt::Result {
    let total = stats.total;
    to.one(&table::IPVS_CONNECTIONS, total.connections)?;
    to.one(&table::IPVS_INCOMING_PACKETS, total.in_packets)?;
    to.one(&table::IPVS_OUTGOING_PACKETS, total.out_packets)?;
    to.one(&table::IPVS_INCOMING_BYTES, total.in_bytes)?;
    to.one(&table::IPVS_OUTGOING_BYTES, total.out_bytes)?;
    let backends = backends(stats);
    let each = |which: usize| {
        backends.iter().map(move |(labels, values)| (labels.each_ref(), values.get(which).copied().unwrap_or(0)))
    };
    to.put(&table::IPVS_ACTIVE, each(0))?;
    to.put(&table::IPVS_INACTIVE, each(1))?;
    to.put(&table::IPVS_WEIGHT, each(2))
}

/// What IPVS's table would have, by its labels.
fn backends(stats: &Stats) -> BTreeMap<[String; 6], Backend> {
    let mut sums: BTreeMap<[String; 6], Backend> = BTreeMap::new();
    for service in &stats.services {
        let Some([address, port, protocol, mark]) = local(service) else { continue };
        for server in service.servers.iter().filter(|server| server.is_in_table()) {
            let Ok(remote) = server.address.parse::<SocketAddr>() else { continue };
            let (ip, remote_port) = (remote.ip().to_string(), remote.port().to_string());
            let labels = [address.clone(), port.clone(), ip, remote_port, protocol.clone(), mark.clone()];
            let more = [u64::from(server.active), u64::from(server.inactive), u64::from(server.weight)];
            let sum = sums.entry(labels).or_default();
            sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        }
    }
    sums
}

/// A service's address, port, protocol and mark; none if it was removed.
fn local(service: &Service) -> Option<[String; 4]> {
    if let Some(mark) = service.fwmark {
        return Some([String::new(), "0".into(), "FWM".into(), format!("{mark:08X}")]);
    }
    let place: SocketAddr = service.address.parse().ok()?;
    Some([place.ip().to_string(), place.port().to_string(), service.protocol.to_uppercase(), String::new()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use dirigent_api::Server;

    #[test]
    fn labels_are_those_of_the_collector_and_the_same_ones_are_summed() {
        let server = |address: &str, state: &str| {
            let (address, state) = (address.to_owned(), state.to_owned());
            Server { address, state, active: 1, inactive: 2, weight: 3, ..Server::default() }
        };
        let service = |protocol: &str, address: &str, fwmark: Option<u32>, servers: Vec<Server>| {
            let (protocol, address) = (protocol.to_owned(), address.to_owned());
            Service { protocol, address, fwmark, servers, ..Service::default() }
        };
        let services = vec![
            service("tcp", "192.0.2.10:80", None, vec![server("10.0.0.2:8080", "available")]),
            service("udp", "[2001:db8::10]:53", None, vec![server("[fd00::2]:53", "quiesced")]),
            // Kept out by its checks, or gone: IPVS's table has neither.
            service("tcp", "192.0.2.11:80", None, vec![server("10.0.0.2:80", "removed")]),
            service("tcp", "removed", None, vec![server("10.0.0.3:80", "available")]),
            // Of both families, and served by one server.
            service("fwm", "171", Some(171), vec![server("10.0.0.9:0", "available")]),
            service("fwm", "171", Some(171), vec![server("10.0.0.9:0", "available")]),
        ];
        let all = backends(&Stats { services, ..Stats::default() });
        let all: Vec<_> = all.iter().map(|(labels, values)| (labels.join(" "), *values)).collect();
        let wanted = [
            (" 0 10.0.0.9 0 FWM 000000AB", [2, 4, 6]),
            ("192.0.2.10 80 10.0.0.2 8080 TCP ", [1, 2, 3]),
            ("2001:db8::10 53 fd00::2 53 UDP ", [1, 2, 3]),
        ];
        assert_eq!(all, wanted.map(|(labels, values)| (labels.to_owned(), values)));
    }
}
