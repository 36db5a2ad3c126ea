use super::*;
use crate::model::{Method, Protocol, Scheduler};
use crate::testing::model;
use proptest::prelude::*;

fn key() -> ServiceKey {
    ServiceKey::Address { protocol: Protocol::Tcp, address: [192, 0, 2, 10].into(), port: 80 }
}

/// A Model of one service with these servers, (last byte, weight).
fn one(servers: &[(u8, u32)]) -> Model {
    let server =
        |(n, weight): &(u8, u32)| Server { weight: *weight, ..Server::new([10, 0, 0, *n].into(), 8080, Method::Nat) };
    let service = Service { servers: servers.iter().map(server).collect(), ..Service::new(key()) };
    Model::new(Settings::default(), vec![service], vec![]).unwrap()
}

fn texts(old: &Model, new: &Model) -> Vec<String> {
    Plan::between(old, new).ops.iter().map(Op::to_string).collect()
}

#[test]
fn orders() {
    const S: &str = "tcp 192.0.2.10:80";
    for (old, new, ops) in [
        (&[(1, 1)][..], &[(1, 1)][..], vec![]),
        (&[(1, 1)], &[(2, 1)], vec!["add 2 1", "remove 1"]),
        (&[(1, 1), (2, 1)], &[(2, 1), (1, 1)], vec!["remove 1", "add 1 1"]),
        (&[(1, 1), (2, 1)], &[(1, 1), (3, 1), (2, 1)], vec!["add 3 1", "remove 2", "add 2 1"]),
        (&[(1, 1)], &[(2, 1), (1, 1)], vec!["add 2 1", "remove 1", "add 1 1"]),
        (&[(1, 1), (2, 0)], &[(1, 0), (2, 5)], vec!["edit 2 5", "edit 1 0"]),
        (&[(1, 1)], &[(1, 0), (2, 1)], vec!["add 2 1", "edit 1 0"]),
        (&[(1, 1), (2, 1)], &[], vec!["remove 1", "remove 2"]),
    ] {
        let full = |op: &str| {
            let words: Vec<_> = op.split(' ').collect();
            let server = format!("10.0.0.{}:8080", words[1]);
            match (words[0], words.get(2)) {
                ("add", Some(w)) => format!("add server {server} method nat weight {w} to {S}"),
                ("edit", Some(w)) => format!("edit server {server} method nat weight {w} of {S}"),
                _ => format!("remove server {server} from {S}"),
            }
        };
        let ops: Vec<String> = ops.into_iter().map(full).collect();
        assert_eq!(texts(&one(old), &one(new)), ops, "{old:?} {new:?}");
    }
}

#[test]
fn drains_outlast_a_file_that_knows_nothing_of_them() {
    let file = one(&[(1, 1), (2, 1), (3, 0)]);
    let mut old = file.clone();
    for n in [1, 3] {
        let server = old.services()[0].server([10, 0, 0, n].into(), 8080).unwrap().clone();
        old.edit_server(&key(), Server { draining: true, ..server }).unwrap();
    }
    let (new, _) = crate::Overlay::between(&file, &old).apply(&one(&[(2, 1), (3, 7), (1, 1), (4, 1)]));
    let draining = |m: &Model| m.services()[0].servers.iter().map(|s| (s.draining, s.takes())).collect::<Vec<_>>();
    assert_eq!(draining(&new), [(false, true), (true, false), (true, false), (false, true)]);
    // Of servers that stay in their places, who ceases to take connections comes last.
    let mut drained = one(&[(1, 1), (2, 5)]);
    let server = drained.services()[0].server([10, 0, 0, 1].into(), 8080).unwrap().clone();
    drained.edit_server(&key(), Server { draining: true, ..server }).unwrap();
    let edit = |text: &str| format!("edit server {text} of tcp 192.0.2.10:80");
    let ops = ["10.0.0.2:8080 method nat weight 5", "10.0.0.1:8080 method nat weight 1 draining"].map(edit);
    assert_eq!(texts(&one(&[(1, 1), (2, 1)]), &drained), ops);
    assert!(!crate::file::to_toml(&drained).contains("drain"));
}

#[test]
fn marks_change_between_their_services() {
    let by_mark = |mark| ServiceKey::Mark { mark: std::num::NonZeroU32::new(mark).unwrap(), ipv6: false };
    let model = |mark| {
        let rules = vec![MarkRule::all(false, mark), MarkRule { mask: 0xf, ..MarkRule::all(true, 1) }];
        Model::new(Settings::default(), vec![Service::new(by_mark(mark))], rules).unwrap()
    };
    let ops = [
        "add service fwmark 2 scheduler wlc",
        "set the mark rules to\n  IPv4 mark 2\n  IPv6 mark 0x1/0xf",
        "remove service fwmark 1",
    ];
    assert_eq!(texts(&model(1), &model(2)), ops);
    assert_eq!(texts(&model(1), &Model::default()), ["remove all mark rules", "remove service fwmark 1"]);
}

#[test]
fn services_and_settings() {
    let old = one(&[(1, 1)]);
    let other = ServiceKey::Address { protocol: Protocol::Tcp, address: [192, 0, 2, 10].into(), port: 443 };
    let mut settings = Settings { schedule_icmp: true, ..Settings::default() };
    settings.timeouts.udp = std::time::Duration::from_secs(60);
    let service = Service { scheduler: Scheduler::Mh, ..Service::new(other) };
    let mut new = Model::new(settings, vec![service], vec![]).unwrap();
    let ops = [
        "set schedule_icmp true, udp 60s",
        "add service tcp 192.0.2.10:443 scheduler mh",
        "remove service tcp 192.0.2.10:80",
    ];
    assert_eq!(texts(&old, &new), ops);
    assert_eq!(texts(&new, &old)[0], "set all settings to their defaults");

    new = old.clone();
    let mut service = old.services()[0].clone();
    service.scheduler = Scheduler::Mh;
    service.scheduler_flags.port = true;
    new.edit_service(&service).unwrap();
    assert_eq!(texts(&old, &new), ["edit service tcp 192.0.2.10:80 scheduler mh (mh-port)"]);
    assert_eq!(Plan::between(&old, &new).to_string(), "edit service tcp 192.0.2.10:80 scheduler mh (mh-port)\n");
}

/// Whether new connections of a service find a server.
fn takes(service: &Service) -> bool {
    service.servers.iter().any(|s| s.weight > 0)
}

proptest! {
    #[test]
    fn makes_new_of_old(old in model(), new in model()) {
        let mut reached = old.clone();
        Plan::between(&old, &new).apply(&mut reached).unwrap();
        prop_assert_eq!(reached, new);
    }

    #[test]
    fn nothing_to_do(model in model()) {
        prop_assert!(Plan::between(&model, &model).is_empty());
    }

    #[test]
    fn every_prefix_goes_to_a_server_of_old_or_new(old in model(), new in model()) {
        let mut now = old.clone();
        for op in Plan::between(&old, &new).ops {
            op.apply(&mut now).unwrap();
            for service in now.services() {
                let (was, will) = (old.service(&service.key), new.service(&service.key));
                let known = |s: &&Service, server| s.servers.contains(server);
                for server in &service.servers {
                    let both = was.iter().any(|s| known(s, server)) || will.iter().any(|s| known(s, server));
                    prop_assert!(both, "{} after {}", server.name(), op);
                }
                let (Some(was), Some(will)) = (was, will) else { continue };
                if !was.servers.is_empty() && !will.servers.is_empty() {
                    prop_assert!(!service.servers.is_empty(), "{} is empty after {}", service.key, op);
                }
                // A server that moves may be the only one that takes connections.
                let order = |s: &Service, other: &Service| -> Vec<_> {
                    s.servers.iter().map(Server::identity).filter(|i| other.server(i.0, i.1).is_some()).collect()
                };
                let moves = order(was, will) != order(will, was)
                    || will.servers.iter().position(|s| was.server(s.address, s.port).is_none())
                        < will.servers.iter().rposition(|s| was.server(s.address, s.port).is_some());
                if takes(was) && takes(will) && !moves {
                    prop_assert!(takes(service), "{} takes nothing after {}", service.key, op);
                }
            }
            for service in old.services().iter().filter(|s| new.service(&s.key).is_some()) {
                prop_assert!(now.service(&service.key).is_some(), "{} is gone after {}", service.key, op);
            }
        }
    }

    #[test]
    fn undo_restores(old in model(), new in model()) {
        let mut now = old.clone();
        for op in Plan::between(&old, &new).ops {
            let before = now.clone();
            let undo = op.undo(&before);
            op.apply(&mut now).unwrap();
            let mut back = now.clone();
            undo.apply(&mut back).unwrap();
            prop_assert_eq!(&back, &before, "{}", op);
        }
        prop_assert_eq!(Op::RemoveService(key()).undo(&Model::default()), Plan::default());
    }
}
