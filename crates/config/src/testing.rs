//! Arbitrary Models for property tests.

use crate::failover::*;
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
    (server, server_health()).prop_map(move |(server, mut health)| {
        if let Some(check) = health.checks.first_mut().filter(|c| c.probe.asks_a_service())
            && key.port() != 0
            && server.weight % 2 == 1
        {
            check.target = Target { real_path: true, ..Target::default() };
        }
        Server { health: health.into(), ..server }
    })
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
    let tls = (
        prop::option::of("[a-z.]{1,9}"),
        any::<bool>(),
        prop::option::of("/[a-z]{1,9}"),
        prop::option::of("/[a-z]{1,9}"),
    )
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
            real_path: false,
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
    let health = (prop::option::of(sorry), script(), script(), (1..9u32, 0..9u32), any::<[bool; 5]>()).prop_map(
        |(sorry, quorum_up, quorum_down, (quorum, hysteresis), flags)| {
            let [notify_at_stop, only_with_address, mail, quiesce, reset] = flags;
            ServiceHealth {
                on_failure: if quiesce { OnFailure::Quiesce } else { OnFailure::Remove },
                on_failure_connections: OnFailureConnections::ALL[usize::from(reset)],
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
                table_size: (scheduler == Scheduler::Mh && third).then_some(251),
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
    let metrics = (prop::option::of((any::<std::net::IpAddr>(), 1..=u16::MAX)), any::<bool>());
    let metrics = metrics
        .prop_map(|(listen, ipvs_names)| crate::settings::Metrics { listen: listen.map(Into::into), ipvs_names });
    // Loopback only, and without `listen` only beside [director.api].
    let loopback = (any::<bool>(), any::<[u8; 3]>()).prop_map(|(ipv6, [a, b, c])| match ipv6 {
        true => std::net::IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
        false => [127, a, b, c].into(),
    });
    let page = prop::option::of((loopback, 1..=u16::MAX, any::<bool>(), any::<bool>()));
    // Apart: large types of strategies take much of a test's stack.
    let served = (api, metrics, page).boxed();
    let mark_device = prop::option::of("[A-Z][a-z0-9._-]{0,11}");
    let rest = (
        (prop::sample::select(&Mode::ALL[..]), prop::sample::select(&VipDefault::ALL[..])),
        mark_device,
        (prop::option::of(1..=MAX_CONNECTIONS), prop::array::uniform3(prop::option::of(1..=MAX_SERVICES))),
        any::<[bool; 9]>(),
        defence,
    );
    let timeouts = prop_oneof![Just(Timeouts::default()), timeouts];
    let errors = prop_oneof![Just(ErrorLimits::default()), errors];
    (name, interfaces, rest, timeouts, errors, socket, [prop::option::of(name), prop::option::of(name)], served)
        .prop_map(
            |(
                instance,
                interfaces,
                ((mode, vip_default), mark_device, (connections, rooms), switches, defence),
                timeouts,
                errors,
                socket,
                [group, operators],
                (api, metrics, page),
            )| {
                let page = page.map(|(ip, port, operate, plain)| crate::settings::Page {
                    listen: (plain || api.is_none()).then(|| (ip, port).into()),
                    operate,
                });
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
                    services: rooms[0],
                    servers: rooms[1],
                    slots: rooms[2],
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
                    metrics,
                    page,
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

fn tracked(names: &'static [&'static str], most: i16) -> impl Strategy<Value = Vec<Tracked>> {
    let one = (prop::option::of(-most..=most), any::<bool>());
    prop::sample::subsequence(names, 0..=names.len()).prop_flat_map(move |names| {
        prop::collection::vec(one.clone(), names.len()).prop_map(move |all| {
            let of = names.iter().zip(all);
            of.map(|(name, (weight, reverse))| Tracked {
                name: (*name).into(),
                weight,
                reverse: reverse && weight.is_some(),
            })
            .collect()
        })
    })
}

/// Names of what [`failover`] has: not all of it each time.
const SCRIPTS: &[&str] = &["s1", "s2"];
const FILES: &[&str] = &["f 1"];
const PROCESSES: &[&str] = &["p1"];
const SESSIONS: &[&str] = &["b1"];

fn tracking() -> impl Strategy<Value = Tracking> {
    let services = &["tcp:192.0.2.1:80", "fwmark:1", "fwmark:1:6"];
    let all = (
        tracked(&["eth1", "eth2.7"], MAX_TRACK_WEIGHT).boxed(),
        tracked(SCRIPTS, MAX_TRACK_WEIGHT).boxed(),
        tracked(FILES, MAX_COUNT_WEIGHT).boxed(),
        tracked(PROCESSES, MAX_COUNT_WEIGHT).boxed(),
        tracked(SESSIONS, MAX_TRACK_WEIGHT).boxed(),
        tracked(services, MAX_TRACK_WEIGHT).boxed(),
    );
    let all = all.prop_map(|(interfaces, scripts, files, processes, bfd, services)| Tracking {
        interfaces,
        scripts,
        files,
        processes,
        bfd,
        services,
    });
    prop_oneof![Just(Tracking::default()), all]
}

fn notify() -> impl Strategy<Value = Notify> {
    let one = || prop::option::of(script().boxed().prop_map(Box::new));
    let all = ([one(), one(), one(), one(), one(), one(), one()], any::<bool>()).prop_map(
        |([master, backup, fault, stop, deleted, lower_prio, all], priority_changes)| Notify {
            master,
            backup,
            fault,
            stop,
            deleted,
            lower_prio,
            all,
            priority_changes,
        },
    );
    prop_oneof![3 => Just(Notify::default()), 1 => all]
}

fn router_address(ipv6: bool) -> impl Strategy<Value = RouterAddress> {
    let device = prop::option::of("[a-z]{1,9}");
    let word = || prop::option::of("[a-z0-9:]{1,9}");
    let flags = prop::sample::subsequence(&ADDRESS_FLAGS[..], 0..3);
    let whole: u8 = if ipv6 { 128 } else { 32 };
    let times = prop::option::of((0..9000u64).prop_map(Duration::from_secs));
    (0..9u8, 1..=whole, device, word(), word(), any::<[bool; 5]>(), times, flags).prop_map(
        move |(n, length, device, label, scope, [plain, broadcast, peer, virtual_mac, track], preferred, flags)| {
            let address = |n: u8| match ipv6 {
                false => IpAddr::from([192, 0, 2, n]),
                true => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n.into()).into(),
            };
            if plain {
                return RouterAddress::new(address(n), length);
            }
            RouterAddress {
                address: address(n),
                length,
                device,
                label: label.filter(|_| !ipv6),
                scope,
                broadcast: (broadcast && !ipv6).then_some([192, 0, 2, 255].into()),
                peer: peer.then_some((address(77), length)),
                virtual_mac,
                track,
                preferred,
                flags: flags.into_iter().map(str::to_owned).collect(),
            }
        },
    )
}

fn announcements() -> impl Strategy<Value = Announce> {
    let time = || (0..=86_400_000u64).prop_map(Duration::from_millis);
    let all = (
        [time().boxed(), time().boxed(), time().boxed(), time().boxed(), time().boxed()],
        [1..99u16, 1..99u16, 1..99u16],
        any::<[bool; 3]>(),
    )
        .prop_map(
            |(
                [delay, other, refresh, arp_interval, nd_interval],
                [repeat, lower, refresh_repeat],
                [a, b, extra_all],
            )| {
                Announce {
                    delay,
                    repeat,
                    lower_prio_delay: a.then_some(other),
                    lower_prio_repeat: b.then_some(lower),
                    refresh,
                    refresh_repeat,
                    arp_interval,
                    nd_interval,
                    extra_interval: other,
                    extra_all,
                }
            },
        );
    prop_oneof![3 => Just(Announce::default()), 1 => all]
}

fn virtual_mac() -> impl Strategy<Value = VirtualMac> {
    let mac = "02(:[0-9a-f]{2}){5}";
    (prop::option::of("[a-z]{1,9}"), prop::option::of(mac), any::<[bool; 2]>(), any::<u32>()).prop_map(
        |(name, mac, [transmit_base, addresses], group)| VirtualMac { name, mac, transmit_base, addresses, group },
    )
}

/// A virtual router; its number makes it another than others.
fn router(n: u8) -> impl Strategy<Value = VirtualRouter> {
    let lists = any::<bool>().prop_flat_map(|ipv6| {
        let peer = (prop::option::of(0..99u8), prop::option::of(99..=255u8));
        let own = prop::collection::vec(router_address(ipv6).boxed(), 0..4);
        let other =
            prop::collection::vec(any::<bool>().prop_flat_map(|ipv6| router_address(ipv6).boxed()).boxed(), 0..3);
        (Just(ipv6), own, other, prop::collection::vec(peer, 0..3))
    });
    let numbers = (1..=255u8, 1..=255u8, 1..=100u8, prop::option::of(any::<u8>()), 1..=4095u64, 0..=1_000_000u64);
    let parts = (
        prop::option::of(virtual_mac().boxed()),
        announcements().boxed(),
        tracking().boxed(),
        notify().boxed(),
        prop::option::of(any::<bool>()),
        prop::option::of(("[!-~]{1,8}", any::<bool>())),
    );
    (lists.boxed(), numbers.boxed(), any::<[bool; 19]>(), parts.boxed()).prop_map(
        move |((ipv6, mut addresses, mut excluded, peers), numbers, flags, parts)| {
            let (priority, vrid, down_timer_adverts, unicast_ttl, interval, delay) = numbers;
            let (virtual_mac, announce, track, notify, mail, authentication) = parts;
            let [source, group, routes, two, master, preempt, a, b, c, d, e, accept, f, g, h, i, j, k, strict] = flags;
            let mut seen = std::collections::HashSet::new();
            addresses.retain(|a| seen.insert(a.address));
            excluded.retain(|a| seen.insert(a.address));
            let address = |n: u8| match ipv6 {
                false => IpAddr::from([198, 51, 100, n]),
                true => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n.into()).into(),
            };
            let peers = peers.into_iter().zip(2..);
            let peers: Vec<_> =
                peers.map(|((min_ttl, max_ttl), n)| Peer { address: address(n), min_ttl, max_ttl }).collect();
            let v2 = two && !ipv6;
            let strict = strict && peers.is_empty() && !addresses.is_empty();
            let authentication = authentication.filter(|_| v2 && !strict);
            // Devices of several have names of their own; one may go by its number.
            let name =
                |name: Option<String>| name.map(|name| format!("{name}{n}")).or((n > 0).then(|| format!("v{n}")));
            let virtual_mac = virtual_mac.map(|mac| VirtualMac { name: name(mac.name), ..mac });
            let interface = (peers.is_empty() || !source || virtual_mac.is_some() || a).then(|| format!("eth{n}"));
            let whole = if v2 { Duration::from_secs(interval % 255 + 1) } else { Duration::from_millis(interval * 10) };
            VirtualRouter {
                name: format!("VI {n}"),
                vrf: (interface.is_none() && b).then(|| "blue".into()),
                interface,
                version: if v2 { Version::V2 } else { Version::V3 },
                ipv6,
                vrid,
                priority,
                interval: whole,
                state: if master { Initial::Master } else { Initial::Backup },
                preempt: preempt || master,
                preempt_delay: Duration::from_millis(if preempt || master { delay } else { 0 }),
                down_timer_adverts,
                addresses,
                excluded,
                routes: if routes { vec!["10.8.0.0/16 via 10.0.0.1 dev eth1 no_track".into()] } else { vec![] },
                rules: if routes { vec!["from 10.9.0.0/16 table 7".into()] } else { vec![] },
                promote_secondaries: c,
                source: source.then(|| address(1)),
                track_source: source && d,
                multicast: group.then(|| if ipv6 { "ff02::77" } else { "224.0.0.77" }.parse().unwrap()),
                peers,
                check_unicast_src: e,
                unicast_ttl,
                fault_without_peer: f,
                authentication: authentication.map(|(text, ah)| Authentication { ah, password: Secret(text) }),
                v3_checksum_as_v2: g && !v2 && !ipv6,
                accept,
                virtual_mac,
                announce,
                lower_prio_no_advert: h,
                higher_prio_send_advert: i,
                owner_ignore_adverts: j,
                skip_check_adv_addr: k,
                strict,
                track_interface: b,
                track,
                notify,
                mail,
            }
        },
    )
}

fn trackers() -> impl Strategy<Value = Failover> {
    let script = (
        script().boxed(),
        time().boxed(),
        prop::option::of(time().boxed()),
        -MAX_TRACK_WEIGHT..=MAX_TRACK_WEIGHT,
        1..9u32,
    );
    let scripts = prop::collection::vec((script, any::<[bool; 2]>()), SCRIPTS.len()).prop_map(|all| {
        let of = SCRIPTS.iter().zip(all);
        of.map(|(name, ((command, interval, timeout, weight, rise), [reverse, start_down]))| TrackScript {
            name: (*name).into(),
            command,
            interval,
            timeout,
            weight,
            reverse,
            rise,
            fall: rise + 1,
            start_down,
        })
        .collect()
    });
    let file =
        ("/[ -~]{0,9}", -MAX_COUNT_WEIGHT..=MAX_COUNT_WEIGHT, any::<[bool; 2]>(), prop::option::of(any::<i32>()));
    let files = file.prop_map(|(path, weight, [reverse, overwrite], initial)| {
        let overwrite = overwrite && initial.is_some();
        vec![TrackFile { name: FILES[0].into(), path, weight, reverse, initial, overwrite }]
    });
    let command = prop::collection::vec("[ -~]{1,9}", 1..4);
    let arguments = prop::sample::select(&Arguments::ALL[..]);
    let process =
        (command, arguments, any::<[bool; 2]>(), -9..9i16, 1..9u16, prop::option::of(9..99u16), time().boxed());
    let processes =
        process.prop_map(|(command, arguments, [full_command, reverse], weight, quorum, quorum_max, start_delay)| {
            let name = PROCESSES[0].into();
            let stop_delay = if reverse { start_delay } else { Duration::ZERO };
            let (arguments, command) = (arguments, command);
            vec![TrackProcess {
                name,
                command,
                arguments,
                full_command,
                weight,
                reverse,
                quorum,
                quorum_max,
                start_delay,
                stop_delay,
            }]
        });
    let bfd = (time().boxed(), any::<[bool; 3]>(), 1..=255u8, prop::option::of(1..=255u8), prop::option::of(0..255u8))
        .prop_map(|(time, [passive, multihop, reverse], multiplier, ttl, max_hops)| {
            let (min_rx, min_tx, idle_tx) = (time, time * 2, time * 3);
            let bfd = Bfd { min_rx, min_tx, idle_tx, multiplier, passive, ttl, max_hops, multihop };
            let source = passive.then(|| [10, 9, 9, 1].into());
            let target = Target { address: Some([10, 9, 9, 3].into()), source, ..Target::default() };
            vec![BfdSession { name: SESSIONS[0].into(), target, bfd, weight: multiplier.into(), reverse }]
        });
    let bfd = bfd.prop_map(|mut all: Vec<BfdSession>| {
        all.iter_mut().for_each(|one| one.weight = one.weight.min(MAX_TRACK_WEIGHT));
        all
    });
    (scripts.boxed(), files.boxed(), processes.boxed(), bfd.boxed())
        .prop_map(|(scripts, files, processes, bfd)| Failover { scripts, files, processes, bfd, ..Failover::default() })
}

fn mail() -> impl Strategy<Value = Mail> {
    let word = || prop::option::of("[a-z.]{1,9}");
    let to = prop::collection::vec("[ -~]{1,9}", 1..3);
    ("[a-z.]{1,9}", 1..=u16::MAX, to, [word(), word(), word()], time().boxed(), any::<[bool; 5]>()).prop_map(
        |(server, port, to, [from, helo, host], timeout, [routers, services, a, b, no_faults])| Mail {
            server,
            port,
            to,
            from,
            helo,
            host,
            timeout,
            routers: a.then_some(routers),
            services: b.then_some(services),
            no_faults,
        },
    )
}

fn sync() -> impl Strategy<Value = Sync> {
    let numbers = (any::<u8>(), 1..=u16::MAX, 1..=255u8, prop::option::of(1..=65507u16), 0..9u32, 9..99u32);
    let role = prop::sample::select(&SyncRole::ALL[..]);
    let peers = prop::collection::btree_set(1..9u8, 0..3);
    let key = prop::option::of("[ -~]{16,40}");
    (numbers, role, peers, key, time().boxed(), 0..=3u8, any::<[bool; 5]>()).prop_map(
        |((id, port, ttl, maxlen, threshold, period), role, peers, key, refresh_period, retries, flags)| {
            let [router, interface, ipv6, persist_mode, backup_only] = flags;
            Sync {
                role: if router { SyncRole::Both } else { role },
                router: router.then(|| "VI 0".into()),
                interface: (interface || peers.is_empty()).then(|| "eth1".into()),
                id,
                group: if ipv6 { "ff02::81".parse().unwrap() } else { Sync::default().group },
                port,
                ttl,
                maxlen,
                threshold,
                period: if persist_mode { 0 } else { period },
                refresh_period,
                retries,
                peers: peers.into_iter().map(|n| [10, 0, 9, n].into()).collect(),
                key: key.map(Secret),
                persist_mode,
                backup_only,
            }
        },
    )
}

/// Failover.
pub fn failover() -> impl Strategy<Value = Failover> {
    let routers = prop::collection::vec(any::<bool>(), 1..4).prop_flat_map(|all| {
        let all: Vec<_> = (0u8..).zip(all).map(|(n, _)| router(n).boxed()).collect();
        all
    });
    let delay =
        (time().boxed(), time().boxed()).prop_map(|(down, up)| InterfaceDelay { interface: "eth1".into(), down, up });
    let fifo = (prop::sample::select(&Events::ALL[..]), prop::option::of(script().boxed()), any::<[bool; 2]>())
        .prop_map(|(events, script, [user, states_on_reload])| Fifo {
            path: format!("/run/{}", events.name()),
            events,
            user: user.then(|| "lb".into()),
            group: states_on_reload.then(|| "adm".into()),
            script: script.map(Box::new),
            states_on_reload,
        });
    let rest = (
        prop::option::of(delay),
        prop::option::of(fifo),
        prop::option::of(mail().boxed()),
        prop::option::of(sync().boxed()),
    );
    let group = (tracking().boxed(), notify().boxed(), any::<bool>(), prop::option::of(any::<bool>()));
    (routers.boxed(), trackers().boxed(), rest.boxed(), group.boxed(), time().boxed(), any::<[bool; 3]>()).prop_map(
        |(routers, trackers, (delay, fifo, mail, sync), group, delays, [grouped, log_unknown_vrids, two])| {
            let (mut track, notify, track_weights, group_mail) = group;
            if !track_weights {
                let Tracking { interfaces, scripts, files, processes, bfd, services } = &mut track;
                for one in [interfaces, scripts, files, processes, bfd, services].into_iter().flatten() {
                    (one.weight, one.reverse) = (Some(0), false);
                }
            }
            let members = routers.iter().take(if two { 2 } else { 1 }).map(|r| r.name.clone()).collect();
            let mut routers = routers;
            if grouped && !track_weights {
                routers.iter_mut().for_each(|r| r.track = Tracking::default());
            }
            let group = SyncGroup { name: "G".into(), members, track, track_weights, notify, mail: group_mail };
            Failover {
                startup_delay: if two { delays } else { Duration::ZERO },
                boot_delay: if grouped { delays } else { Duration::ZERO },
                log_unknown_vrids,
                routers,
                groups: grouped.then_some(group).into_iter().collect(),
                interface_delays: delay.into_iter().collect(),
                fifos: fifo.into_iter().collect(),
                mail,
                sync,
                ..trackers
            }
        },
    )
}

/// A Model, with few keys and servers, so that two have much in common.
pub fn model() -> impl Strategy<Value = Model> {
    let services = prop::collection::vec(key().prop_flat_map(service), 0..5);
    let settings = prop_oneof![Just(Settings::default()), settings()];
    let failover = prop_oneof![2 => Just(Failover::default()), 1 => failover().boxed()];
    (settings, services, prop::collection::vec(mark(), 0..3), failover).prop_map(
        |(settings, mut services, marks, mut failover)| {
            let mut seen = std::collections::HashSet::new();
            services.retain(|s| seen.insert(s.key));
            // What one holds the other does not.
            let held: Vec<_> = failover.held_twice(&services).map(|(service, _)| service.key).collect();
            services.iter_mut().filter(|s| held.contains(&s.key)).for_each(|s| s.vip = VipPolicy::Operator);
            let known = |one: &Tracked| ServiceKey::parse(&one.name).is_some_and(|key| seen.contains(&key));
            failover.routers.iter_mut().for_each(|r| r.track.services.retain(known));
            failover.groups.iter_mut().for_each(|g| g.track.services.retain(known));
            Model::whole(settings, services, marks, failover).unwrap()
        },
    )
}
