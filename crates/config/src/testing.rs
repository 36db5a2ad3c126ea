//! Arbitrary Models for property tests.

use crate::model::*;
use crate::settings::*;
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// What the strategies draw from.
#[derive(Clone, Copy)]
pub struct Scope {
    /// Also what this version refuses.
    pub everything: bool,
}

fn vip() -> impl Strategy<Value = IpAddr> {
    (0..3u8, any::<bool>()).prop_map(|(n, ipv6)| {
        if ipv6 {
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into()).into()
        } else {
            Ipv4Addr::new(192, 0, 2, n).into()
        }
    })
}

fn key(scope: Scope) -> impl Strategy<Value = ServiceKey> {
    let protocols = if scope.everything { &Protocol::ALL[..] } else { &Protocol::ALL[..2] };
    (prop::sample::select(protocols), vip(), prop::sample::select(vec![0, 80, 443]))
        .prop_map(|(protocol, address, port)| ServiceKey { protocol, address, port })
}

fn tunnel() -> impl Strategy<Value = Tunnel> {
    use TunnelChecksum::{Full, None, Remote};
    let kinds = [(TunnelKind::Ipip, None), (TunnelKind::Gre, Full), (TunnelKind::Gue { port: 6080 }, Remote)];
    prop::sample::select(kinds.to_vec()).prop_map(|(kind, checksum)| Tunnel { kind, checksum })
}

fn method(scope: Scope) -> BoxedStrategy<Method> {
    let plain = prop::sample::select(vec![Method::Nat, Method::Dr]);
    if scope.everything { prop_oneof![plain, tunnel().prop_map(Method::Tun)].boxed() } else { plain.boxed() }
}

fn server(scope: Scope, key: ServiceKey) -> impl Strategy<Value = Server> {
    let weight = prop_oneof![Just(0), Just(1), 0..=MAX_WEIGHT];
    let thresholds = if scope.everything { (0..9u32, 0..9u32).boxed() } else { Just((0, 0)).boxed() };
    (0..5u8, method(scope), prop::sample::select(vec![0, 80, 8080]), weight, thresholds).prop_map(
        move |(n, method, port, weight, (a, b))| {
            let address = match key.address {
                IpAddr::V4(_) => Ipv4Addr::new(10, 0, 0, n + 1).into(),
                IpAddr::V6(_) => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(n) + 1).into(),
            };
            let port = if method == Method::Nat { port } else { key.port };
            Server { address, port, method, weight, upper: a.max(b), lower: a.min(b) }
        },
    )
}

fn persistence(ipv6: bool) -> impl Strategy<Value = Persistence> {
    let mask = if ipv6 {
        (1..=128u8).prop_map(Netmask::V6).boxed()
    } else {
        any::<u32>().prop_map(|bits| Netmask::V4(bits.into())).boxed()
    };
    (1..=MAX_PERSISTENCE_S, mask).prop_map(|(timeout_s, mask)| Persistence { timeout_s, mask })
}

fn service(scope: Scope, key: ServiceKey) -> impl Strategy<Value = Service> {
    let key = if scope.everything { key } else { ServiceKey { port: key.port.max(1), ..key } };
    let persistence = match (scope.everything, key.port) {
        (false, _) => Just(None).boxed(),
        (true, 0) => persistence(key.address.is_ipv6()).prop_map(Some).boxed(),
        (true, _) => prop::option::of(persistence(key.address.is_ipv6())).boxed(),
    };
    let flags = any::<(bool, bool, bool)>();
    let servers = prop::collection::vec(server(scope, key), 0..6);
    (prop::sample::select(Scheduler::ALL), flags, any::<bool>(), persistence, any::<bool>(), servers).prop_map(
        move |(scheduler, (fallback, port, third), one_packet, persistence, manage, mut servers)| {
            let mut seen = std::collections::HashSet::new();
            servers.retain(|s| seen.insert(s.identity()));
            Service {
                key,
                scheduler,
                scheduler_flags: SchedulerFlags { fallback, port, third },
                one_packet: one_packet && key.protocol == Protocol::Udp,
                persistence,
                vip: if manage { VipPolicy::Manage } else { VipPolicy::Operator },
                servers,
            }
        },
    )
}

fn settings() -> impl Strategy<Value = Settings> {
    let name = "[a-z][a-z0-9_-]{0,14}";
    let interfaces = prop::option::of(prop::collection::hash_set(name, 1..3).prop_map(|s| s.into_iter().collect()));
    let time = || (100..=MAX_PERSISTENCE_S as u64 * 1000).prop_map(Duration::from_millis);
    let timeouts = (prop::array::uniform11(time()), time())
        .prop_map(|(tcp, udp)| Timeouts { tcp: TcpTimeouts::from_states(tcp), udp });
    let errors = (0..9u32, 1..9u32, 0..9u32, 1..9u32).prop_map(|(rate, burst, destination_rate, destination_burst)| {
        ErrorLimits { rate, burst, destination_rate, destination_burst }
    });
    let socket = prop::option::of("/[ -~äß\u{1}]{0,20}");
    let rest = (prop::sample::select(&Mode::ALL[..]), prop::option::of(1..=MAX_CONNECTIONS), any::<[bool; 4]>());
    let timeouts = prop_oneof![Just(Timeouts::default()), timeouts];
    let errors = prop_oneof![Just(ErrorLimits::default()), errors];
    (name, interfaces, rest, timeouts, errors, socket, prop::option::of(name)).prop_map(
        |(instance, interfaces, (mode, connections, switches), timeouts, errors, socket, group)| {
            let [schedule_icmp, nat_icmp_send, snat_reroute, pmtu_disc] = switches;
            Settings {
                instance,
                interfaces,
                mode,
                connections,
                schedule_icmp,
                nat_icmp_send,
                snat_reroute,
                pmtu_disc,
                timeouts,
                errors,
                socket,
                group,
            }
        },
    )
}

/// A Model, with few keys and servers, so that two have much in common.
pub fn model(scope: Scope) -> impl Strategy<Value = Model> {
    let services = prop::collection::vec(key(scope).prop_flat_map(move |k| service(scope, k)), 0..5);
    let settings = prop_oneof![Just(Settings::default()), settings()];
    (settings, services).prop_map(|(settings, mut services)| {
        let mut seen = std::collections::HashSet::new();
        services.retain(|s| seen.insert(s.key));
        Model::new(settings, services).unwrap()
    })
}

proptest! {
    #[test]
    fn what_is_drawn_is_supported(model in model(Scope { everything: false })) {
        prop_assert_eq!(model.unsupported(), vec![]);
    }
}
