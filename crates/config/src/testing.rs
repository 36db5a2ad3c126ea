//! Arbitrary Models for property tests.

use crate::health::*;
use crate::mark::*;
use crate::model::*;
use crate::settings::*;
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Duration;

fn vip() -> impl Strategy<Value = IpAddr> {
    (0..3u8, any::<bool>()).prop_map(|(n, ipv6)| {
        if ipv6 {
            Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into()).into()
        } else {
            Ipv4Addr::new(192, 0, 2, n).into()
        }
    })
}

fn key() -> impl Strategy<Value = ServiceKey> {
    let by_address = (prop::sample::select(&Protocol::ALL[..]), vip(), prop::sample::select(vec![0, 80, 443]))
        .prop_map(|(protocol, address, port)| ServiceKey::Address { protocol, address, port });
    let mark = prop::sample::select(vec![1, 2, u32::MAX]).prop_map(|mark| NonZeroU32::new(mark).unwrap());
    prop_oneof![3 => by_address, 1 => (mark, any::<bool>()).prop_map(|(mark, ipv6)| ServiceKey::Mark { mark, ipv6 })]
}

fn tunnel() -> impl Strategy<Value = Tunnel> {
    use TunnelChecksum::{Full, None, Remote};
    let kinds = [(TunnelKind::Ipip, None), (TunnelKind::Gre, Full), (TunnelKind::Gue { port: 6080 }, Remote)];
    prop::sample::select(kinds.to_vec()).prop_map(|(kind, checksum)| Tunnel { kind, checksum })
}

fn method() -> impl Strategy<Value = Method> {
    prop_oneof![prop::sample::select(vec![Method::Nat, Method::Dr]), tunnel().prop_map(Method::Tun)]
}

fn server(key: ServiceKey) -> impl Strategy<Value = Server> {
    let weight = prop_oneof![Just(0), Just(1), 0..=MAX_WEIGHT];
    let port = prop::sample::select(vec![0, 80, 8080]);
    let server =
        (0..5u8, method(), port, weight, (0..9u32, 0..9u32)).prop_map(move |(n, method, port, weight, (a, b))| {
            let address = match key.is_ipv6() {
                false => Ipv4Addr::new(10, 0, 0, n + 1).into(),
                true => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(n) + 1).into(),
            };
            let port = if method == Method::Nat || key.mark() != 0 { port } else { key.port() };
            Server { weight, upper: a.max(b), lower: a.min(b), ..Server::new(address, port, method) }
        });
    (server, server_health()).prop_map(|(server, health)| Server { health, ..server })
}

fn time() -> impl Strategy<Value = Duration> {
    (1..=86_400_000u64).prop_map(Duration::from_millis)
}

fn script() -> impl Strategy<Value = Script> {
    let name = || prop::option::of("[a-z]{1,8}");
    (prop::collection::vec("[ -~]{1,9}", 1..4), name(), name()).prop_map(|(command, user, group)| Script {
        command,
        user,
        group,
    })
}

fn request() -> impl Strategy<Value = Request> {
    let regex = ("[!-~]{1,9}", any::<bool>(), prop::sample::subsequence(&REGEX_OPTIONS[..], 0..3)).prop_map(
        |(pattern, invert, options)| Regex {
            pattern,
            invert,
            options: options.into_iter().map(str::to_owned).collect(),
            min_offset: invert.then_some(3),
            max_offset: None,
        },
    );
    let status = prop::collection::vec((100..300u16, 300..600u16), 0..3);
    let digest = prop::option::of("[0-9a-f]{32}");
    let host = prop::option::of("[a-z.]{1,9}");
    ("/[!-~]{0,9}", host, status, digest, prop::option::of(regex), prop::option::of(any::<bool>())).prop_map(
        |(path, virtual_host, status, digest, regex, close_notify)| Request {
            path,
            virtual_host,
            status,
            digest,
            regex,
            close_notify,
        },
    )
}

fn probe() -> impl Strategy<Value = Probe> {
    let tls =
        (prop::option::of("[a-z.]{1,9}"), any::<bool>(), prop::option::of("/[a-z]{1,9}"), prop::option::of("/[a-z]{1,9}"))
            .prop_map(|(sni, close_notify, ca, own)| Tls { sni, close_notify, ca, certificate: own.clone(), key: own });
    let http = (
        prop::sample::select(&HttpVersion::ALL[..]),
        prop::option::of("[a-z.]{1,9}"),
        prop::collection::vec(request(), 1..3),
        any::<bool>(),
        prop::option::of(tls),
    );
    let http = http.prop_map(|(version, virtual_host, requests, fast_recovery, tls)| {
        Probe::Http(Http { version, virtual_host, requests, fast_recovery, tls })
    });
    let dns = (prop::sample::select(&Record::ALL[..]), "([a-z]{1,9}\\.){1,3}");
    let bytes = || prop::option::of("([0-9a-f]{2}){0,5}");
    let udp = (bytes(), bytes(), 0..255u16, 255..900u16)
        .prop_map(|(payload, reply, min_reply, max_reply)| Probe::Udp(Udp { payload, reply, min_reply, max_reply }));
    let bfd = (time(), any::<[bool; 2]>(), 1..=255u8, prop::option::of(1..=255u8), prop::option::of(0..255u8))
        .prop_map(|(time, [passive, multihop], multiplier, ttl, max_hops)| {
            let (min_rx, min_tx, idle_tx) = (time, time * 2, time * 3);
            Probe::Bfd(Bfd { min_rx, min_tx, idle_tx, multiplier, passive, ttl, max_hops, multihop })
        });
    prop_oneof![
        Just(Probe::Tcp),
        Just(Probe::Ping),
        http,
        "[a-z.]{1,9}".prop_map(|helo| Probe::Smtp { helo }),
        dns.prop_map(|(record, name)| Probe::Dns { name, record }),
        udp,
        (script(), any::<bool>()).prop_map(|(script, weight_from_exit)| Probe::Script { script, weight_from_exit }),
        ("/[ -~]{0,9}", -MAX..=MAX, any::<bool>()).prop_map(|(path, weight, reverse)| Probe::File {
            path,
            weight,
            reverse
        }),
        bfd,
    ]
}

const MAX: i32 = i32::MAX;

fn check() -> impl Strategy<Value = Check> {
    let pace = (time(), time(), any::<u32>(), prop::option::of(time()), 1..5u32).prop_map(
        |(interval, timeout, retries, warmup, rise)| Pace {
            interval,
            jitter: timeout,
            timeout,
            retries,
            retry_interval: interval,
            warmup,
            rise,
        },
    );
    let address = |n: u8| prop::option::of(Just(IpAddr::from([10, 9, 9, n])));
    let port = || prop::option::of(1..=u16::MAX);
    let target = (address(1), port(), address(2), port(), prop::option::of("[a-z]{1,15}"), any::<u32>()).prop_map(
        |(address, port, source, source_port, interface, mark)| Target {
            address,
            port,
            source,
            source_port,
            interface,
            mark,
        },
    );
    (probe(), pace, target, any::<[bool; 2]>()).prop_map(|(probe, pace, mut target, [start_down, log_failures])| {
        match &probe {
            Probe::Script { .. } | Probe::File { .. } => target = Target::default(),
            Probe::Bfd(_) => target.address = Some([10, 9, 9, 3].into()),
            _ => {}
        }
        Check { probe, pace, target, start_down, log_failures }
    })
}

fn server_health() -> impl Strategy<Value = ServerHealth> {
    let on_failure = prop::option::of(prop::sample::select(&OnFailure::ALL[..]));
    let script = || prop::option::of(script().prop_map(Box::new));
    let health =
        (prop::collection::vec(check(), 0..3), on_failure, script(), script(), prop::option::of(any::<bool>()))
            .prop_map(|(checks, on_failure, notify_up, notify_down, mail)| ServerHealth {
                checks,
                on_failure,
                notify_up,
                notify_down,
                mail,
            });
    prop_oneof![3 => Just(ServerHealth::default()), 1 => health]
}

fn service_health(key: ServiceKey) -> impl Strategy<Value = ServiceHealth> {
    let sorry = (method(), any::<bool>()).prop_map(move |(method, quiesce)| {
        let address =
            if key.is_ipv6() { Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 99).into() } else { [10, 0, 0, 99].into() };
        let on_failure = if quiesce { OnFailure::Quiesce } else { OnFailure::Remove };
        Box::new(Sorry { address, port: key.port(), method, on_failure })
    });
    let script = || prop::option::of(script().prop_map(Box::new));
    let health = (prop::option::of(sorry), script(), script(), (1..9u32, 0..9u32), any::<[bool; 4]>()).prop_map(
        |(sorry, quorum_up, quorum_down, (quorum, hysteresis), flags)| {
            let [notify_at_stop, only_with_address, mail, quiesce] = flags;
            ServiceHealth {
                on_failure: if quiesce { OnFailure::Quiesce } else { OnFailure::Remove },
                quorum: quorum + hysteresis,
                hysteresis,
                quorum_up,
                quorum_down,
                notify_at_stop,
                only_with_address,
                mail: mail.then_some(quiesce),
                sorry,
            }
        },
    );
    prop_oneof![3 => Just(ServiceHealth::default()), 1 => health]
}

fn persistence(ipv6: bool) -> impl Strategy<Value = Persistence> {
    let mask = if ipv6 {
        (1..=128u8).prop_map(Netmask::V6).boxed()
    } else {
        any::<u32>().prop_map(|bits| Netmask::V4(bits.into())).boxed()
    };
    (1..=MAX_PERSISTENCE_S, mask).prop_map(|(timeout_s, mask)| Persistence { timeout_s, mask })
}

fn service(key: ServiceKey) -> impl Strategy<Value = Service> {
    let persistence = match key {
        ServiceKey::Address { port: 0, .. } => persistence(key.is_ipv6()).prop_map(Some).boxed(),
        _ => prop::option::of(persistence(key.is_ipv6())).boxed(),
    };
    let flags = any::<(bool, bool, bool)>();
    let servers = prop::collection::vec(server(key), 0..6);
    let slow_start = prop::option::of((1..=86_400_000u64).prop_map(|ms| Duration::from_millis(ms.max(1000))));
    let lengths = prop::collection::btree_map(0..=32u8, any::<bool>(), 0..3);
    let own = ((any::<(bool, bool)>(), prop::option::of(0..4u32), slow_start), service_health(key), lengths);
    (prop::sample::select(Scheduler::ALL), flags, any::<bool>(), persistence, any::<bool>(), servers, own).prop_map(
        move |(scheduler, (fallback, port, third), one_packet, persistence, manage, mut servers, own)| {
            let (((stateless, quic), id, slow_start), health, lengths) = own;
            let address = if key.is_ipv6() { "2001:db8::1" } else { "192.0.2.1" }.parse().unwrap();
            let named = |is| {
                let lengths = lengths.iter().filter(|(_, allowed)| **allowed == is);
                lengths.filter_map(|(length, _)| Prefix::new(address, *length)).collect()
            };
            let sources = Sources { allow: named(true), deny: named(false) };
            let udp = key.protocol() == Some(Protocol::Udp);
            let quic = quic && udp && persistence.is_none();
            let mut seen = std::collections::HashSet::new();
            servers.retain(|s| seen.insert(s.identity()));
            let mut ids = std::collections::HashSet::new();
            if quic {
                // Rotated, so that two Models give ids to other servers.
                servers.iter_mut().zip(0..).for_each(|(s, n)| s.server_id = id.map(|id| ServerId(id ^ n)));
                servers.retain(|s| ids.insert(s.quic_id()));
            }
            Service {
                key,
                scheduler,
                scheduler_flags: SchedulerFlags { fallback, port, third },
                one_packet: one_packet && !quic && key.protocol().is_none_or(|p| p == Protocol::Udp),
                persistence,
                stateless: stateless && !udp && persistence.is_none() && scheduler.hashes(),
                quic,
                slow_start: slow_start.filter(|_| {
                    use Scheduler::{Nq, Sed, Twos, Wlc, Wrr};
                    [Wrr, Wlc, Sed, Nq, Twos].contains(&scheduler)
                }),
                health,
                sources,
                vip: if manage && key.mark() == 0 { VipPolicy::Manage } else { VipPolicy::Operator },
                servers,
            }
        },
    )
}

fn settings() -> impl Strategy<Value = Settings> {
    let name = "[a-z][a-z0-9_-]{0,14}";
    let interfaces = prop::option::of(prop::collection::hash_set(name, 1..3).prop_map(|s| s.into_iter().collect()));
    let time = || (100..=MAX_PERSISTENCE_S as u64 * 1000).prop_map(Duration::from_millis);
    let timeouts = (prop::array::uniform11(time()), time(), prop::array::uniform14(time()), time(), time()).prop_map(
        |(tcp, udp, sctp, lblc_expiration, lblcr_expiration)| {
            let (tcp, sctp) = (TcpTimeouts::from_states(tcp), SctpTimeouts(sctp));
            Timeouts { tcp, udp, sctp, lblc_expiration, lblcr_expiration }
        },
    );
    let defence = (prop::array::uniform4(0..=Defence::MAX_MODE), 0..=Defence::MAX, 0..=Defence::MAX);
    let errors = (0..9u32, 1..9u32, 0..9u32, 1..9u32).prop_map(|(rate, burst, destination_rate, destination_burst)| {
        ErrorLimits { rate, burst, destination_rate, destination_burst }
    });
    let socket = prop::option::of("/[ -~äß\u{1}]{0,20}");
    let file = "/[ -~äß\u{1}]{0,20}";
    let operators = prop::collection::vec("[ -~ä]{1,9}", 0..3);
    let api = (any::<std::net::IpAddr>(), 1..=u16::MAX, [file, file, file], operators);
    let api = prop::option::of(api.prop_map(|(ip, port, [certificate, key, clients], operators)| {
        crate::settings::Api { listen: (ip, port).into(), certificate, key, clients, operators }
    }));
    let mark_device = prop::option::of("[A-Z][a-z0-9._-]{0,11}");
    let rest = (
        (prop::sample::select(&Mode::ALL[..]), prop::sample::select(&VipDefault::ALL[..])),
        mark_device,
        prop::option::of(1..=MAX_CONNECTIONS),
        any::<[bool; 9]>(),
        defence,
    );
    let timeouts = prop_oneof![Just(Timeouts::default()), timeouts];
    let errors = prop_oneof![Just(ErrorLimits::default()), errors];
    (name, interfaces, rest, timeouts, errors, socket, [prop::option::of(name), prop::option::of(name)], api).prop_map(
        |(
            instance,
            interfaces,
            ((mode, vip_default), mark_device, connections, switches, defence),
            timeouts,
            errors,
            socket,
            [group, operators],
            api,
        )| {
            let [schedule_icmp, nat_icmp_send, snat_reroute, pmtu_disc, others @ ..] = switches;
            let [expire_nodest_conn, expire_quiescent_template, sloppy_tcp, sloppy_sctp, cache_bypass] = others;
            let ([conn_reuse_mode, drop_entry, drop_packet, secure_tcp], amemthresh, am_droprate) = defence;
            Settings {
                instance,
                interfaces,
                mode,
                vip_default,
                mark_device,
                connections,
                schedule_icmp,
                nat_icmp_send,
                snat_reroute,
                pmtu_disc,
                expire_nodest_conn,
                expire_quiescent_template,
                sloppy_tcp,
                sloppy_sctp,
                cache_bypass,
                conn_reuse_mode,
                defence: Defence { drop_entry, drop_packet, secure_tcp, amemthresh, am_droprate },
                timeouts,
                errors,
                socket,
                group,
                operators,
                api,
            }
        },
    )
}

fn test<T: std::fmt::Debug>(of: impl Strategy<Value = T>) -> impl Strategy<Value = Option<Test<T>>> {
    prop::option::of((of, any::<bool>()).prop_map(|(is, not)| Test { is, not }))
}

/// A mark rule.
pub fn mark() -> impl Strategy<Value = MarkRule> {
    let prefix = |ipv6: bool| {
        let longest: u8 = if ipv6 { 128 } else { 32 };
        let address = any::<u128>().prop_map(move |bits| match ipv6 {
            true => IpAddr::from(Ipv6Addr::from_bits(bits)),
            false => Ipv4Addr::from_bits(bits as u32).into(),
        });
        test((address, 0..=longest).prop_map(|(address, length)| Prefix::new(address, length).unwrap()))
    };
    let ports = || test(any::<(u16, u16)>().prop_map(|(a, b)| Ports::new(a.min(b), a.max(b)).unwrap()));
    let interface = test("[a-z][a-z0-9._@-]{0,14}");
    let protocol = test(1..=255u8);
    (any::<bool>(), interface, protocol, ports(), ports(), any::<u32>(), any::<u32>()).prop_flat_map(
        move |(ipv6, interface, protocol, source_ports, destination_ports, set, mask)| {
            (prefix(ipv6), prefix(ipv6)).prop_map(move |(source, destination)| MarkRule {
                ipv6,
                interface: interface.clone(),
                source,
                destination,
                protocol,
                source_ports,
                destination_ports,
                set,
                mask,
            })
        },
    )
}

/// A Model, with few keys and servers, so that two have much in common.
pub fn model() -> impl Strategy<Value = Model> {
    let services = prop::collection::vec(key().prop_flat_map(service), 0..5);
    let settings = prop_oneof![Just(Settings::default()), settings()];
    (settings, services, prop::collection::vec(mark(), 0..3)).prop_map(|(settings, mut services, marks)| {
        let mut seen = std::collections::HashSet::new();
        services.retain(|s| seen.insert(s.key));
        Model::new(settings, services, marks).unwrap()
    })
}
