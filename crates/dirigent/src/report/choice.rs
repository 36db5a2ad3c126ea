//! A part of many services, as somebody wants to see them.

use dirigent_api::{Order, Server, Service, StatsOf};
use std::cmp::Reverse;

/// Those that are wanted, in the order that is wanted; and how many there would be without `skip` and `limit`.
pub fn choose(mut services: Vec<Service>, of: &StatsOf) -> (Vec<Service>, usize) {
    let words: Vec<_> = of.filter.iter().flat_map(|text| text.split_whitespace()).map(str::to_lowercase).collect();
    services.retain(|service| words.iter().all(|word| matches(service, word)));
    let matching = services.len();
    // Both keep the listed order among equals.
    match of.order.unwrap_or_default() {
        Order::Listed => {}
        Order::Traffic => services.sort_by_key(|service| Reverse(bytes_each_second(service))),
        Order::Trouble => services.sort_by_key(|service| Reverse(trouble(service))),
    }
    let part = services.into_iter().skip(of.skip.unwrap_or(0)).take(of.limit.unwrap_or(usize::MAX));
    (part.collect(), matching)
}

fn matches(service: &Service, word: &str) -> bool {
    let of_server = |server: &Server| server.address.to_lowercase().contains(word) || server.state.contains(word);
    service.name().to_lowercase().contains(word) || service.servers.iter().any(of_server)
}

fn bytes_each_second(service: &Service) -> u64 {
    service.rates.map_or(0, |rates| rates.in_bytes.saturating_add(rates.out_bytes))
}

/// Whether it lost its quorum, and how many of its servers clients miss.
fn trouble(service: &Service) -> (bool, usize) {
    let missed = |server: &&Server| {
        matches!(server.state.as_str(), "down" | "overloaded" | "removed")
            || matches!(server.next_hop.state.as_str(), "no neighbour" | "no route")
    };
    (service.quorum == Some(false), service.servers.iter().filter(missed).count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dirigent_api::Counters;

    fn service(port: u16, bytes: u64, states: &[&str]) -> Service {
        let server = |(n, state): (usize, &&str)| Server {
            address: format!("10.0.0.{n}:80"),
            state: (*state).to_owned(),
            ..Server::default()
        };
        Service {
            protocol: "tcp".into(),
            address: format!("192.0.2.10:{port}"),
            servers: states.iter().enumerate().map(server).collect(),
            rates: Some(Counters { out_bytes: bytes, ..Counters::default() }),
            ..Service::default()
        }
    }

    fn ports(of: &StatsOf) -> (Vec<String>, usize) {
        let quorum = |service, quorum| Service { quorum: Some(quorum), ..service };
        let all = vec![
            service(80, 5, &["available", "available"]),
            service(81, 9, &["available", "down"]),
            quorum(service(82, 5, &["available"]), false),
            quorum(service(443, 0, &["draining", "down", "down"]), true),
        ];
        let (part, matching) = choose(all, of);
        (part.iter().map(|s| s.address.rsplit(':').next().unwrap().to_owned()).collect(), matching)
    }

    #[test]
    fn parts_orders_and_words() {
        let of = StatsOf::default();
        assert_eq!(ports(&of), (["80", "81", "82", "443"].map(str::to_owned).into(), 4));
        let with = |order, skip, limit| StatsOf { order: Some(order), skip, limit, ..StatsOf::default() };
        assert_eq!(ports(&with(Order::Traffic, None, None)).0, ["81", "80", "82", "443"]);
        assert_eq!(ports(&with(Order::Trouble, None, None)).0, ["82", "443", "81", "80"]);
        assert_eq!(ports(&with(Order::Listed, Some(1), Some(2))), (["81", "82"].map(str::to_owned).into(), 4));
        assert_eq!(ports(&with(Order::Listed, Some(9), None)), (vec![], 4));
        let words = |text: &str| ports(&StatsOf { filter: Some(text.into()), ..StatsOf::default() });
        assert_eq!(words("TCP  down"), (["81", "443"].map(str::to_owned).into(), 2));
        assert_eq!(words("0.0.1:"), (["80", "81", "443"].map(str::to_owned).into(), 3));
        assert_eq!(words(":8 10.0.0.1"), (["80", "81", "443"].map(str::to_owned).into(), 3));
        assert_eq!(words("udp"), (vec![], 0));
        assert_eq!(words(" ").1, 4);
    }
}
