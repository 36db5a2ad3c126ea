//! Scripts of the two state machines: single events, what comes out, and what a forger can do.
//!
//! Of 24 mutants made by hand in the crate these tests, the simulation's first 150 seeds, the
//! recordings and the unit tests caught all but four at first: a loss within a bulk forgotten (the count of
//! records caught most), another's bulk taken for one's own, no bound of what is held, no bound of what
//! waits. For these the last three tests below were written. The others were: datagrams one word too long; a
//! count that wraps; record versions and templates' states not looked at; rules 3, 4 (twice) and 5 of
//! sending bent; a replaced connection's end heeded; activity not recounted; one's own told back
//! heeded; a deletion before its record and behind the next; no filter of echoes, or one without the
//! epoch; strangers answered; repair without a budget; a bulk's count not looked at; a hello's next
//! number not looked at; what is not signed heard in spite of a key.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use dirigent_sync::auth::Key as Secret;
use dirigent_sync::extension::{self, Body, Hello, Origin, Range, Seen, Stamp, ability};
use dirigent_sync::machine::{
    Backup, BackupAction, BackupConfig, Identity, Master, MasterAction, MasterConfig, Page, To, Whose,
};
use dirigent_sync::message::{Datagram, Packer};
use dirigent_sync::{Ends, Flags, Reason, Recency, Record};
use std::net::SocketAddr;

const A: Identity = Identity { node: 1, boot: 10, epoch: 10 };
const B: Identity = Identity { node: 2, boot: 20, epoch: 20 };

fn origin(i: Identity) -> Origin {
    Origin { node: i.node, boot: i.boot }
}

fn at(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 8848))
}

fn record(port: u16) -> Record {
    let client = ([203, 0, 113, 5].into(), port);
    Record {
        protocol: 6,
        flags: Flags(0),
        state: 1,
        ends: Ends::v4(client, ([192, 0, 2, 10].into(), 80), ([10, 1, 0, 11].into(), 80)),
        fwmark: 0,
        timeout_seconds: 900,
        sequence: None,
        pe: None,
        recency: Some(Recency { idle_ms: 3, node: 0 }),
    }
}

fn sent(master: &mut Master) -> Vec<(To, Vec<u8>)> {
    let mut out = Vec::new();
    while let Some(action) = master.next_action() {
        match action {
            MasterAction::Send { to, datagram } => out.push((to, datagram)),
            MasterAction::Iterate { .. } => panic!("no bulk was asked for"),
        }
    }
    out
}

fn body(datagram: &[u8]) -> Body {
    match extension::parse(datagram, None) {
        Ok(Seen::Message(_, body)) => body,
        other => panic!("{other:?}"),
    }
}

fn hello(from: Identity, number: u64, next: u64) -> Vec<u8> {
    let stamp = Stamp { node: from.node, boot: from.boot, number, sent_ms: 0 };
    let abilities = ability::REPAIR | ability::BULK;
    let hello = Hello { abilities, epoch: from.epoch, oldest: 1, next, connections: 5 };
    extension::emit(7, &stamp, &Body::Hello(hello), None)
}

fn request(from: Identity, number: u64, body: &Body) -> Vec<u8> {
    extension::emit(7, &Stamp { node: from.node, boot: from.boot, number, sent_ms: 0 }, body, None)
}

fn numbered(number: u64, ports: &[u16]) -> Vec<u8> {
    let mut packer = Packer::new(7, 1472, 0);
    for port in ports {
        assert!(packer.push(0, &record(*port)).is_none());
    }
    let mut datagram = packer.flush().unwrap();
    let stamp = Stamp { node: A.node, boot: A.boot, number, sent_ms: 0 };
    extension::stamp_records(&mut datagram, &stamp, None);
    datagram
}

/// What a backup wants done: ports to apply, and bodies to send.
fn wanted(backup: &mut Backup) -> (Vec<u16>, Vec<Body>, Vec<BackupAction>) {
    let (mut ports, mut bodies, mut others) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(action) = backup.next_action() {
        match action {
            BackupAction::Apply { record, .. } => ports.push(record.ends.client().port()),
            BackupAction::Send { datagram, .. } => bodies.push(body(&datagram)),
            other => others.push(other),
        }
    }
    (ports, bodies, others)
}

fn joined() -> Backup {
    let mut backup = Backup::new(BackupConfig::new(B, 7));
    backup.on_datagram(0, at(1), &hello(A, 1, 5)).unwrap();
    let (_, bodies, _) = wanted(&mut backup);
    assert_eq!(bodies, [Body::BulkRequest { to: origin(A), request: 1 }]);
    backup
}

#[test]
fn without_the_extension_a_master_is_a_kernels() {
    let config = MasterConfig { extension: false, ..MasterConfig::new(A, 7) };
    let mut master = Master::new(config, 0);
    master.poll(0);
    master.send(100, Whose::Own, &record(1));
    master.delete(100, Whose::Own, record(2).key());
    master.poll(2099);
    assert!(sent(&mut master).is_empty());
    assert_eq!(master.next_poll_ms(), Some(2100));
    master.poll(2100);
    let got = sent(&mut master);
    let mut packer = Packer::new(7, 1472, 0);
    assert!(packer.push(0, &Record { recency: None, ..record(1) }).is_none());
    assert_eq!(got, [(To::Group, packer.flush().unwrap())]);
    assert_eq!(master.kept_bytes(), 0);
}

#[test]
fn a_master_sends_again_what_it_has_and_says_what_it_has_not() {
    let config = MasterConfig { ring_datagrams: 3, flush_after_ms: 0, ..MasterConfig::new(A, 7) };
    let mut master = Master::new(config, 0);
    for port in 1..=5 {
        master.send(0, Whose::Own, &record(port));
        master.poll(0);
    }
    let all: Vec<_> = sent(&mut master).into_iter().map(|(_, d)| d).filter(|d| d[5] == 1).collect();
    assert_eq!(all.len(), 5);
    let nack = |ranges| Body::Nack { to: origin(A), ranges };
    // Who has not said hello is not answered.
    let ask = request(B, 1, &nack(vec![Range { first: 4, last: 4 }]));
    assert_eq!(master.on_datagram(1, at(2), &ask), Err(Reason::Stranger));
    master.on_datagram(1, at(2), &hello(B, 1, 1)).unwrap();
    master.on_datagram(1, at(2), &ask).unwrap();
    assert_eq!(sent(&mut master), [(To::Peer(at(2)), all[3].clone())]);
    // The same again is old; another's is not for this node.
    assert_eq!(master.on_datagram(1, at(2), &ask), Err(Reason::Old));
    let elsewhere = Body::Nack { to: Origin { node: 1, boot: 9 }, ranges: vec![Range { first: 4, last: 4 }] };
    master.on_datagram(1, at(2), &request(B, 2, &elsewhere)).unwrap();
    assert!(sent(&mut master).is_empty());
    let ask = request(B, 3, &nack(vec![Range { first: 1, last: u64::MAX }]));
    master.on_datagram(1, at(2), &ask).unwrap();
    let got = sent(&mut master);
    assert_eq!(body(&got[0].1), Body::Gone { to: origin(B), oldest: 3 });
    assert_eq!(got[1..].iter().map(|(_, d)| d.clone()).collect::<Vec<_>>(), all[2..]);
}

#[test]
fn repair_stays_within_its_budget() {
    let config = MasterConfig { repair_bytes_per_second: 4096, flush_after_ms: 0, ..MasterConfig::new(A, 7) };
    let mut master = Master::new(config, 0);
    for port in 1..=200 {
        master.send(0, Whose::Own, &record(port));
        master.poll(0);
    }
    sent(&mut master);
    master.on_datagram(1, at(2), &hello(B, 1, 1)).unwrap();
    let mut bytes = 0;
    for number in 1..=1000 {
        let body = Body::Nack { to: origin(A), ranges: vec![Range { first: 1, last: 200 }; 64] };
        master.on_datagram(2, at(2), &request(B, number, &body)).unwrap();
        bytes += sent(&mut master).iter().map(|(_, d)| d.len()).sum::<usize>();
    }
    assert!(bytes <= 4096 + 200, "{bytes} bytes for a thousand requests at once");
}

#[test]
fn records_and_deletions_of_one_connection_stay_in_order() {
    let mut master = Master::new(MasterConfig::new(A, 7), 0);
    master.poll(0);
    sent(&mut master);
    master.send(0, Whose::Own, &record(1));
    master.delete(0, Whose::Own, record(2).key()); // another one: no reason to hurry
    assert!(sent(&mut master).is_empty());
    master.delete(0, Whose::Own, record(1).key());
    let got = sent(&mut master);
    assert_eq!((got.len(), Datagram::parse(&got[0].1).unwrap().count()), (1, 1));
    master.send(0, Whose::Own, &record(1));
    let got = sent(&mut master);
    assert_eq!(body(&got[0].1), Body::Delete(vec![record(2).key(), record(1).key()]));
}

#[test]
fn a_bulk_is_paced_and_says_who_asked() {
    let config = MasterConfig { bulk_bytes_per_second: 6400, ..MasterConfig::new(A, 7) };
    let mut master = Master::new(config, 0);
    master.poll(0);
    sent(&mut master);
    master.on_datagram(0, at(2), &hello(B, 1, 1)).unwrap();
    let ask = |number| request(B, number, &Body::BulkRequest { to: origin(A), request: 4 });
    master.on_datagram(0, at(2), &ask(1)).unwrap();
    let first = master.next_action().unwrap();
    let MasterAction::Send { to: To::Group, datagram } = first else { panic!("{first:?}") };
    assert_eq!(body(&datagram), Body::BulkBegin { bulk: 1, asked: vec![origin(B)] });
    let (mut cursor, mut now, mut told) = (0, 0, 0u16);
    // Asking again does not begin another.
    master.on_datagram(0, at(2), &ask(2)).unwrap();
    while told < 300 {
        match master.next_action() {
            Some(MasterAction::Iterate { cursor: asked, at_most }) => {
                assert_eq!(asked, cursor);
                let n = (at_most as u16).min(300 - told);
                let records = (told..told + n).map(|port| (Whose::Own, record(port))).collect();
                told += n;
                cursor = u64::from(told);
                master.page(now, asked, Page { records, next: (told < 300).then_some(cursor) });
            }
            Some(MasterAction::Send { .. }) => {}
            None => {
                now = master.next_poll_ms().unwrap().max(now + 1);
                master.poll(now);
            }
        }
    }
    // 300 connections of 64 bytes, less a burst of 4096 bytes, at 6400 bytes a second.
    assert!((2000..4000).contains(&now), "{now} ms");
    let last = sent(&mut master).pop().unwrap().1;
    assert_eq!(body(&last), Body::BulkEnd { bulk: 1, count: 300 });
    assert_eq!(master.metrics().bulks, 1);
}

/// Until then a node that joins takes nothing from it.
#[test]
fn who_joins_is_said_hello_to_at_once() {
    let mut master = Master::new(MasterConfig::new(A, 7), 0);
    master.poll(0);
    assert_eq!(sent(&mut master).len(), 1);
    let mut greeted = |now_ms: u64, from: Identity, number: u64| {
        master.on_datagram(now_ms, at(2), &hello(from, number, 1)).unwrap();
        let due = master.next_poll_ms().unwrap();
        master.poll(due);
        let bodies: Vec<_> = sent(&mut master).iter().map(|(_, datagram)| body(datagram)).collect();
        assert!(matches!(bodies[..], [Body::Hello(_)]), "{bodies:?}");
        due
    };
    assert_eq!(greeted(300, B, 1), 300);
    // Who is known waits, a new start does not, and many at once get one.
    assert_eq!(greeted(310, B, 2), 1300);
    assert_eq!(greeted(1400, Identity { boot: 21, ..B }, 1), 1400);
    assert_eq!(greeted(1410, Identity { node: 3, ..B }, 1), 1450);
    assert_eq!(greeted(1450, Identity { node: 4, ..B }, 1), 1500);
}

#[test]
fn a_backup_asks_for_what_is_missing_and_applies_in_order() {
    let mut backup = joined();
    backup.on_datagram(1, at(1), &numbered(5, &[50])).unwrap();
    assert_eq!(wanted(&mut backup).0, [50]);
    backup.on_datagram(2, at(1), &numbered(7, &[70])).unwrap();
    backup.on_datagram(2, at(1), &numbered(10, &[100])).unwrap();
    assert_eq!(wanted(&mut backup), (vec![], vec![], vec![]));
    // After the time that overtaking may take.
    assert_eq!(backup.next_poll_ms(2), Some(22));
    backup.poll(21);
    assert_eq!(wanted(&mut backup).1, []);
    backup.poll(22);
    let ranges = vec![Range { first: 6, last: 6 }, Range { first: 8, last: 9 }];
    assert_eq!(wanted(&mut backup).1, [Body::Nack { to: origin(A), ranges }]);
    backup.on_datagram(30, at(1), &numbered(6, &[60])).unwrap();
    assert_eq!(wanted(&mut backup).0, [60, 70]);
    assert_eq!(backup.on_datagram(31, at(1), &numbered(6, &[60])), Err(Reason::Old));
    for number in [9, 8] {
        backup.on_datagram(32, at(1), &numbered(number, &[number as u16 * 10])).unwrap();
    }
    assert_eq!(wanted(&mut backup).0, [80, 90, 100]);
    let peer = backup.peers(32).next().unwrap();
    assert_eq!((peer.gaps, peer.lost, peer.whole), (1, 0, false));
}

#[test]
fn what_never_comes_is_lost_and_a_bulk_is_asked_for() {
    let mut backup = joined();
    for (number, body) in
        [(5, Body::BulkBegin { bulk: 1, asked: vec![origin(B)] }), (6, Body::BulkEnd { bulk: 1, count: 0 })]
    {
        backup.on_datagram(1, at(1), &request(A, number, &body)).unwrap();
    }
    let (_, _, others) = wanted(&mut backup);
    assert_eq!(others, [BackupAction::Sweep { origin: origin(A), epoch: 10, mark: 1 }]);
    assert!(backup.peers(1).next().unwrap().whole);
    // The last one is missing: only a hello tells.
    backup.on_datagram(100, at(1), &hello(A, 2, 8)).unwrap();
    let mut asked = 0;
    let mut now = 100;
    loop {
        now = backup.next_poll_ms(now).unwrap();
        backup.poll(now);
        let (_, bodies, _) = wanted(&mut backup);
        match bodies.as_slice() {
            [Body::Nack { .. }] => asked += 1,
            [Body::BulkRequest { request: 2, .. }] => break,
            [] => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(asked, 10);
    let peer = backup.peers(now).next().unwrap();
    assert_eq!((peer.lost, peer.whole, peer.expected), (1, false, 5));
    // Gone says so at once.
    backup.on_datagram(now, at(1), &numbered(11, &[1])).unwrap();
    let gone = Body::Gone { to: origin(B), oldest: 11 };
    backup.on_datagram(now, at(1), &request(A, 3, &gone)).unwrap();
    assert_eq!(wanted(&mut backup).0, [1]);
    assert_eq!(backup.peers(now).next().unwrap().lost, 4);
}

#[test]
fn a_wrong_count_is_not_whole() {
    let mut backup = joined();
    let begin = Body::BulkBegin { bulk: 1, asked: vec![origin(B)] };
    backup.on_datagram(1, at(1), &request(A, 5, &begin)).unwrap();
    backup.on_datagram(1, at(1), &numbered(6, &[1, 2])).unwrap();
    backup.on_datagram(1, at(1), &request(A, 7, &Body::BulkEnd { bulk: 1, count: 3 })).unwrap();
    let (_, _, others) = wanted(&mut backup);
    assert_eq!((others, backup.peers(1).next().unwrap().whole), (vec![], false));
    backup.poll(2);
    assert_eq!(wanted(&mut backup).1, [Body::BulkRequest { to: origin(A), request: 2 }]);
}

#[test]
fn marks_and_recency_come_with_what_is_applied() {
    let mut backup = joined();
    backup.on_datagram(1, at(1), &numbered(5, &[50])).unwrap();
    let action = backup.next_action().unwrap();
    let BackupAction::Apply { origin: from, mark: 0, idle_ms: 4, seen_by: 1, .. } = action else {
        panic!("{action:?}");
    };
    assert_eq!(from, origin(A));
    // A kernel's.
    let mut packer = Packer::new(7, 1472, 0);
    assert!(packer.push(0, &Record { recency: None, ..record(9) }).is_none());
    backup.on_datagram(1, at(3), &packer.flush().unwrap()).unwrap();
    let action = backup.next_action().unwrap();
    assert!(matches!(action, BackupAction::Apply { origin: Origin::KERNEL, idle_ms: 0, seen_by: 0, .. }));
}

#[test]
fn sources_sync_ids_and_rates_are_checked() {
    let config =
        BackupConfig { sources: vec![at(1).ip()], source_burst: 5, source_per_second: 1, ..BackupConfig::new(B, 7) };
    let mut backup = Backup::new(config);
    let datagram = numbered(1, &[1]);
    assert_eq!(backup.on_datagram(0, at(9), &datagram), Err(Reason::Source));
    assert_eq!(backup.on_datagram(0, at(1), &datagram), Err(Reason::Stranger));
    let mut other = datagram.clone();
    other[1] = 8;
    assert_eq!(backup.on_datagram(0, at(1), &other), Err(Reason::SyncId));
    for _ in 0..3 {
        assert_eq!(backup.on_datagram(0, at(1), &datagram), Err(Reason::Stranger));
    }
    assert_eq!(backup.on_datagram(0, at(1), &datagram), Err(Reason::Limit));
    assert_eq!(backup.metrics().dropped.get(Reason::Limit), 1);
    // A sync id of 0 hears all, and asks with the peer's.
    let mut all = Backup::new(BackupConfig::new(B, 0));
    all.on_datagram(0, at(1), &hello(A, 1, 1)).unwrap();
    let Some(BackupAction::Send { datagram, .. }) = all.next_action() else { panic!() };
    assert_eq!(datagram[1], 7);
    // This node's own, looped back.
    assert_eq!(all.on_datagram(0, at(2), &hello(B, 1, 1)), Err(Reason::Own));
}

#[test]
fn with_a_key_only_what_is_signed_is_heard() {
    let key = Secret::new(b"a secret of both nodes").unwrap();
    let mut master = Master::new(MasterConfig { key: Some(key.clone()), ..MasterConfig::new(A, 7) }, 0);
    master.poll(0);
    let (_, signed) = sent(&mut master).remove(0);
    let config = BackupConfig { key: Some(key), plain: false, ..BackupConfig::new(B, 7) };
    let mut backup = Backup::new(config);
    assert_eq!(backup.on_datagram(0, at(1), &hello(A, 1, 1)), Err(Reason::Unauthentic));
    assert_eq!(backup.on_datagram(0, at(1), &numbered(1, &[1])), Err(Reason::Unauthentic));
    let mut packer = Packer::new(7, 1472, 0);
    assert!(packer.push(0, &record(9)).is_none());
    assert_eq!(backup.on_datagram(0, at(1), &packer.flush().unwrap()), Err(Reason::Unauthentic));
    backup.on_datagram(0, at(1), &signed).unwrap();
    // What was recorded and is played again is old.
    assert_eq!(backup.on_datagram(5, at(1), &signed), Err(Reason::Old));
    let Some(BackupAction::Send { datagram, .. }) = backup.next_action() else { panic!() };
    // The answer is signed too, but of a node that has not said hello.
    assert_eq!(master.on_datagram(6, at(2), &datagram), Err(Reason::Stranger));
    assert_eq!(master.on_datagram(6, at(2), &hello(B, 1, 1)), Err(Reason::Unauthentic));
}

/// A million messages of a forger who knows the format, against both machines: neither keeps
/// more than its configuration says, and a peer that was there is still heard.
#[test]
fn a_forger_does_not_fill_the_memory() {
    let mut x = 0x1234_5678_9abc_def0u64;
    let mut rand = move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    let config = BackupConfig {
        hold_datagrams: 200,
        hold_bytes: 100_000,
        queue_datagrams: 100,
        source_per_second: 1 << 30,
        source_burst: 1 << 30,
        ..BackupConfig::new(B, 7)
    };
    // Held of each peer, and what waits to be taken with what was held before it.
    let bound = config.peers * config.hold_bytes * 2 + (config.queue_datagrams + 1) * 2000;
    let mut backup = Backup::new(config);
    let mut master = Master::new(MasterConfig { queue_datagrams: 100, ..MasterConfig::new(B, 7) }, 0);
    master.send(0, Whose::Own, &record(1));
    backup.on_datagram(0, at(1), &hello(A, 1, 1)).unwrap();
    let (mut most, mut actions) = (0, 0);
    let plain = numbered(1, &(0..20).collect::<Vec<_>>());
    let mut packer = Packer::new(7, 1472, 0);
    assert!((0..30).all(|port| packer.push(0, &record(port)).is_none()));
    let plain_of_kernel = packer.flush().unwrap();
    for i in 0..1_000_000u64 {
        let now = i / 200;
        let r = rand();
        let identity = Identity { node: 3 + (r >> 8) as u32 % 40, boot: 1 + (r >> 16) % 3, epoch: 1 };
        let stamp = Stamp { node: identity.node, boot: identity.boot, number: (r >> 24) % 5000, sent_ms: r };
        let mut datagram = match r % 8 {
            0 => hello(identity, (r >> 24) % 1000, 1 + (r >> 40) % 3000),
            1 => {
                let ranges = vec![Range { first: 1, last: u64::MAX }; 64];
                request(identity, r >> 40, &Body::Nack { to: origin(B), ranges })
            }
            2 => request(identity, r >> 40, &Body::BulkRequest { to: origin(B), request: r as u32 }),
            3 => request(identity, (r >> 24) % 5000, &Body::BulkBegin { bulk: 1, asked: vec![origin(B)] }),
            4 => request(identity, (r >> 24) % 5000, &Body::Delete(vec![record(1).key(); 30])),
            5 if r >> 60 == 0 => plain_of_kernel.clone(),
            5 => (0..r as usize % 100).map(|_| rand() as u8).collect(),
            _ => {
                let mut d = plain.clone();
                d.truncate(d.len() - extension::STAMP_BYTES);
                extension::stamp_records(&mut d, &stamp, None);
                d
            }
        };
        match (r >> 50) % 10 {
            0 if !datagram.is_empty() => {
                let at = rand() as usize % datagram.len();
                datagram[at] = rand() as u8;
            }
            1 => datagram.truncate(rand() as usize % (datagram.len() + 1)),
            2 if datagram.len() > 4 => datagram[1] = 9,
            _ => {}
        }
        let from = SocketAddr::from(([10, 9, (r >> 32) as u8 % 4, r as u8 % 8], 8848));
        let _ = backup.on_datagram(now, from, &datagram);
        let _ = master.on_datagram(now, from, &datagram);
        if i % 50 == 0 {
            backup.poll(now);
            master.poll(now);
        }
        most = most.max(backup.kept_bytes());
        // A caller that keeps up at times, and at others not at all.
        if i % 10 == 0 {
            for _ in 0..if i / 5000 % 2 == 0 { 1000 } else { 1 } {
                actions += usize::from(backup.next_action().is_some());
            }
            if let Some(MasterAction::Iterate { cursor, .. }) = master.next_action() {
                master.page(now, cursor, Page::default());
            }
        }
    }
    assert!(most > 100_000 && most < bound, "{most} of {bound} bytes");
    let mut waiting = 0;
    while backup.next_action().is_some() {
        waiting += 1;
    }
    let mut out = 0;
    while master.next_action().is_some() {
        out += 1;
    }
    assert!(actions > 1000 && waiting < 300_000 && out <= 201, "{actions} {waiting} {out}");
    assert!(backup.peers(5000).count() <= 8);
    // The peer from before: its place was not taken, and it is heard.
    assert!(backup.peers(5000).any(|p| p.origin == origin(A)));
    backup.on_datagram(5000, at(1), &hello(A, 2, 1)).unwrap();
    backup.on_datagram(5000, at(1), &numbered(1, &[77])).unwrap();
    assert_eq!(wanted(&mut backup).0.last(), Some(&77));
}

#[test]
fn a_loss_within_a_bulk_is_not_whole_though_the_count_is_right() {
    let config = BackupConfig { repair_tries: 0, ..BackupConfig::new(B, 7) };
    let mut backup = Backup::new(config);
    backup.on_datagram(0, at(1), &hello(A, 1, 5)).unwrap();
    let begin = Body::BulkBegin { bulk: 1, asked: vec![origin(B)] };
    backup.on_datagram(1, at(1), &request(A, 5, &begin)).unwrap();
    // Number 6 was a deletion, say: it has no records.
    backup.on_datagram(1, at(1), &request(A, 7, &Body::BulkEnd { bulk: 1, count: 0 })).unwrap();
    backup.poll(50);
    let (_, _, others) = wanted(&mut backup);
    let peer = backup.peers(50).next().unwrap();
    assert_eq!((others, peer.lost, peer.whole), (vec![], 1, false));
}

#[test]
fn a_bulk_that_another_asked_for_does_not_make_whole() {
    let mut backup = joined();
    let begin = Body::BulkBegin { bulk: 1, asked: vec![Origin { node: 9, boot: 1 }] };
    backup.on_datagram(1, at(1), &request(A, 5, &begin)).unwrap();
    backup.on_datagram(1, at(1), &request(A, 6, &Body::BulkEnd { bulk: 1, count: 0 })).unwrap();
    assert_eq!(wanted(&mut backup).2, []);
    assert!(!backup.peers(1).next().unwrap().whole);
    // It still asks for its own.
    backup.poll(1000);
    assert_eq!(wanted(&mut backup).1, [Body::BulkRequest { to: origin(A), request: 1 }]);
}

/// Found by fuzzing. No director counts as far; a forger may say that it did.
#[test]
fn nothing_comes_after_the_last_number() {
    let mut backup = Backup::new(BackupConfig::new(B, 7));
    backup.on_datagram(0, at(1), &hello(A, 1, u64::MAX - 1)).unwrap();
    let _ = wanted(&mut backup);
    backup.on_datagram(0, at(1), &numbered(u64::MAX - 1, &[1])).unwrap();
    for number in [u64::MAX, u64::MAX, 0] {
        assert_eq!(backup.on_datagram(0, at(1), &numbered(number, &[2])), Err(Reason::Old), "{number}");
    }
    assert_eq!(wanted(&mut backup).0, [1]);
}

#[test]
fn what_is_held_and_what_waits_is_bounded() {
    let config = BackupConfig { hold_datagrams: 3, queue_datagrams: 2, ..BackupConfig::new(B, 7) };
    let mut backup = Backup::new(config.clone());
    backup.on_datagram(0, at(1), &hello(A, 1, 5)).unwrap();
    wanted(&mut backup);
    for number in [7, 8, 9] {
        backup.on_datagram(1, at(1), &numbered(number, &[1])).unwrap();
    }
    assert_eq!(backup.on_datagram(1, at(1), &numbered(10, &[1])), Err(Reason::Room));
    // The one that all wait for is taken even so.
    backup.on_datagram(1, at(1), &numbered(5, &[5])).unwrap();
    let bytes = BackupConfig { hold_bytes: numbered(7, &[1]).len(), ..config };
    let mut backup = Backup::new(bytes);
    backup.on_datagram(0, at(1), &hello(A, 1, 5)).unwrap();
    wanted(&mut backup);
    backup.on_datagram(1, at(1), &numbered(7, &[1])).unwrap();
    assert_eq!(backup.on_datagram(1, at(1), &numbered(8, &[1])), Err(Reason::Room));
    let mut packer = Packer::new(7, 1472, 0);
    assert!(packer.push(0, &record(9)).is_none());
    let plain = packer.flush().unwrap();
    backup.on_datagram(1, at(3), &plain).unwrap();
    backup.on_datagram(1, at(3), &plain).unwrap();
    assert_eq!(backup.on_datagram(1, at(3), &plain), Err(Reason::Room));
    assert_eq!(wanted(&mut backup).0, [9, 9]);
}
