//! How fast counters grow, from one look to the next.

use dirigent_api::{Counters, Reason, Stats};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Two looks that are nearer than this say nothing of a rate.
const LEAST: Duration = Duration::from_millis(50);

/// Growth of counters each second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Speed {
    /// Connections.
    pub connections: f64,
    /// Packets towards servers.
    pub in_packets: f64,
    /// Their bytes.
    pub in_bytes: f64,
    /// Packets towards clients.
    pub out_packets: f64,
    /// Their bytes.
    pub out_bytes: f64,
}

impl From<Counters> for Speed {
    fn from(rates: Counters) -> Self {
        Self {
            connections: rates.connections as f64,
            in_packets: rates.in_packets as f64,
            in_bytes: rates.in_bytes as f64,
            out_packets: rates.out_packets as f64,
            out_bytes: rates.out_bytes as f64,
        }
    }
}

/// What was counted between two looks; counters that were zeroed meanwhile begin anew.
fn growth(before: u64, now: u64, seconds: f64) -> f64 {
    now.checked_sub(before).unwrap_or(now) as f64 / seconds
}

impl Speed {
    fn between(before: &Counters, now: &Counters, seconds: f64) -> Self {
        let of = |field: fn(&Counters) -> u64| growth(field(before), field(now), seconds);
        Self {
            connections: of(|c| c.connections),
            in_packets: of(|c| c.in_packets),
            in_bytes: of(|c| c.in_bytes),
            out_packets: of(|c| c.out_packets),
            out_bytes: of(|c| c.out_bytes),
        }
    }
}

/// Something that counts: what it had at a look, and how fast it grew until then.
#[derive(Clone, Copy, Debug)]
struct Track<C, S> {
    at: Instant,
    counters: C,
    speed: S,
}

impl<C: Copy, S: Copy> Track<C, S> {
    /// After another look. At the first one there is only what the daemon says.
    fn seen(before: Option<Self>, at: Instant, counters: C, said: S, between: impl Fn(&C, &C, f64) -> S) -> Self {
        let Some(before) = before else { return Self { at, counters, speed: said } };
        let passed = at.saturating_duration_since(before.at);
        if passed < LEAST {
            return before;
        }
        Self { at, counters, speed: between(&before.counters, &counters, passed.as_secs_f64()) }
    }
}

/// How fast everything grows that was looked at.
#[derive(Debug, Default)]
pub struct Rates {
    total: Option<Track<Counters, Speed>>,
    /// By service, and server of it.
    parts: HashMap<(String, String), Track<Counters, Speed>>,
    reasons: HashMap<String, Track<u64, f64>>,
}

impl Rates {
    /// After a look; `whole`: at all services, so that what is not there is gone.
    pub fn look(&mut self, at: Instant, stats: &Stats, whole: bool) {
        let said = |rates: Option<Counters>| rates.unwrap_or_default().into();
        self.total = Some(Track::seen(self.total, at, stats.total, said(stats.rates), Speed::between));
        let mut parts = HashMap::new();
        for service in &stats.services {
            let name = service.name();
            let servers = service.servers.iter().map(|s| (s.address.clone(), s.counters, s.rates));
            for (server, counters, rates) in servers.chain([(String::new(), service.counters, service.rates)]) {
                let key = (name.clone(), server);
                let track = Track::seen(self.parts.get(&key).copied(), at, counters, said(rates), Speed::between);
                parts.insert(key, track);
            }
        }
        if whole {
            self.parts = parts;
        } else {
            self.parts.extend(parts);
        }
        for Reason { name, count, .. } in &stats.reasons {
            let between = |before: &u64, now: &u64, seconds: f64| growth(*before, *now, seconds);
            let track = Track::seen(self.reasons.get(name).copied(), at, *count, 0.0, between);
            self.reasons.insert(name.clone(), track);
        }
    }
    /// Of everything.
    pub fn total(&self) -> Speed {
        self.total.map(|track| track.speed).unwrap_or_default()
    }
    /// Of a service.
    pub fn service(&self, service: &str) -> Speed {
        self.server(service, "")
    }
    /// Of a server of a service.
    pub fn server(&self, service: &str, server: &str) -> Speed {
        let key = (service.to_owned(), server.to_owned());
        self.parts.get(&key).map(|track| track.speed).unwrap_or_default()
    }
    /// Packets of a verdict each second.
    pub fn reason(&self, name: &str) -> f64 {
        self.reasons.get(name).map(|track| track.speed).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dirigent_api::{Server, Service};

    fn stats(packets: u64, rate: u64) -> Stats {
        let counters = Counters { in_packets: packets, in_bytes: packets * 100, ..Counters::default() };
        let rates = Some(Counters { in_packets: rate, ..Counters::default() });
        let server = Server { address: "10.0.0.2:80".into(), counters, rates, ..Server::default() };
        let service = Service {
            protocol: "tcp".into(),
            address: "192.0.2.10:80".into(),
            servers: vec![server],
            counters,
            rates,
            ..Service::default()
        };
        let reason = Reason { name: "request".into(), count: packets, ..Reason::default() };
        Stats { total: counters, rates, services: vec![service], reasons: vec![reason], ..Stats::default() }
    }

    const NAME: &str = "tcp 192.0.2.10:80";

    #[test]
    fn the_first_look_says_what_the_daemon_says_and_others_what_they_count() {
        let (mut rates, begun) = (Rates::default(), Instant::now());
        rates.look(begun, &stats(1000, 7), true);
        assert_eq!((rates.total().in_packets, rates.service(NAME).in_packets), (7.0, 7.0));
        assert_eq!((rates.server(NAME, "10.0.0.2:80").in_packets, rates.reason("request")), (7.0, 0.0));
        rates.look(begun + Duration::from_secs(2), &stats(1500, 7), true);
        let speed = rates.server(NAME, "10.0.0.2:80");
        assert_eq!((speed.in_packets, speed.in_bytes, speed.out_packets), (250.0, 25_000.0, 0.0));
        assert_eq!((rates.total(), rates.service(NAME), rates.reason("request")), (speed, speed, 250.0));
    }

    #[test]
    fn zeroed_counters_begin_anew_and_looks_in_between_say_nothing() {
        let (mut rates, begun) = (Rates::default(), Instant::now());
        rates.look(begun, &stats(1000, 0), true);
        rates.look(begun + Duration::from_secs(1), &stats(40, 0), true);
        assert_eq!(rates.service(NAME).in_packets, 40.0);
        rates.look(begun + Duration::from_millis(1010), &stats(90, 0), true);
        assert_eq!(rates.service(NAME).in_packets, 40.0, "ten milliseconds are no measure");
        rates.look(begun + Duration::from_secs(2), &stats(140, 0), true);
        assert_eq!(rates.service(NAME).in_packets, 100.0, "all since the look that counted");
    }

    #[test]
    fn what_was_not_asked_for_is_kept_and_what_is_gone_is_not() {
        let (mut rates, begun) = (Rates::default(), Instant::now());
        rates.look(begun, &stats(1000, 7), true);
        let none = Stats { services: Vec::new(), ..stats(1000, 7) };
        rates.look(begun + Duration::from_secs(1), &none, false);
        assert_eq!(rates.service(NAME).in_packets, 7.0);
        rates.look(begun + Duration::from_secs(2), &none, true);
        assert_eq!(rates.service(NAME), Speed::default());
    }
}
