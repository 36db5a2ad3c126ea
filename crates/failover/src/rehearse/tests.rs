//! Forecasts, and whether they come true.

use super::*;
use crate::action::{Action, Event, Start};
use crate::packet::{Addresses, Format};
use crate::parameters::Parameters;
use std::net::Ipv4Addr;
use std::time::Duration;

fn router(last: u8, priority: u8) -> Router {
    let addresses = Addresses::V4(vec![Ipv4Addr::new(192, 0, 2, 100)]);
    let format = Format::V3Ipv4 { checksum_as_v2: false };
    let mut p = Parameters::new(51, format, IpAddr::from([192, 0, 2, last]), addresses);
    p.priority = priority;
    Router::new(p)
}

fn peer(last: u8, priority: u8) -> Peer {
    Peer { address: IpAddr::from([192, 0, 2, last]), priority, heard_at: None }
}

/// A master, and the time of its last advert.
fn master() -> (Router, Time) {
    let mut master = router(5, 150);
    master.handle(Time::ZERO, Event::Start(Start::default()), &mut vec![]);
    while master.role() != Role::Master {
        let deadline = master.deadline().unwrap();
        master.poll(deadline, &mut vec![]);
    }
    let at = master.last_advert().unwrap();
    (master, at)
}

#[test]
fn the_best_peer_takes_over() {
    let (master, sent) = master();
    let now = sent + Duration::from_millis(500);
    let peers = [peer(7, 100), peer(3, 128), peer(9, 128), peer(1, 0)];
    let of = |what_if| match rehearse(now, &master, &peers, what_if) {
        Forecast::TakenOver { by, expected, latest } => {
            assert_eq!(by, peers[2], "of equal ones the higher address");
            (expected.since(sent).as_millis(), latest.since(sent).as_millis())
        }
        other => panic!("{other:?}"),
    };
    // Skew time (256 - 128) / 256 s; without the word 3 s more, from the last advert.
    assert_eq!(of(WhatIf::Stops), (1000, 3500));
    assert_eq!(of(WhatIf::HandsOver), (1000, 3500));
    // From the last advert, or one that still goes out.
    assert_eq!(of(WhatIf::LosesLink), (3500, 4000));
}

#[test]
fn without_peers_there_are_bounds() {
    let (master, sent) = master();
    let skew = |n: u64| Duration::from_nanos(n * 1_000_000_000 / 256);
    assert_eq!(
        rehearse(sent, &master, &[], WhatIf::HandsOver),
        Forecast::Unknown {
            earliest: sent + skew(1),
            latest: sent + Duration::from_secs(3) + skew(255),
            comes_back: Some(sent + master.hand_over_bound()),
        }
    );
}

#[test]
fn of_a_backup_nothing_changes() {
    let mut backup = router(5, 100);
    let nobody = Forecast::NothingChanges { master: None };
    assert_eq!(rehearse(Time::ZERO, &backup, &[], WhatIf::Stops), nobody);
    backup.handle(Time::ZERO, Event::Start(Start::default()), &mut vec![]);
    let advert = backup.advert(200);
    let source = IpAddr::from([192, 0, 2, 7]);
    backup.handle(Time::ZERO, Event::Advert { advert: &advert, source }, &mut vec![]);
    assert_eq!(rehearse(Time::ZERO, &backup, &[], WhatIf::Stops), Forecast::NothingChanges { master: Some(source) });
}

/// Two routers that hear each other at once: what was said is what happens.
#[test]
fn the_forecast_comes_true() {
    for (what_if, word_lost) in [
        (WhatIf::Stops, false),
        (WhatIf::Stops, true),
        (WhatIf::HandsOver, false),
        (WhatIf::HandsOver, true),
        (WhatIf::LosesLink, true),
    ] {
        let (mut master, sent) = master();
        let mut backup = router(7, 100);
        backup.handle(Time::ZERO, Event::Start(Start::default()), &mut vec![]);
        let advert = master.advert(150);
        let from = master.parameters().source;
        backup.handle(sent, Event::Advert { advert: &advert, source: from }, &mut vec![]);
        let now = sent + Duration::from_millis(900);
        backup.poll(now, &mut vec![]);
        let forecast = rehearse(now, &master, &[peer(7, 100)], what_if);
        let mut out = vec![];
        match what_if {
            WhatIf::Stops => master.handle(now, Event::Stop, &mut out),
            WhatIf::HandsOver => master.handle(now, Event::HandOver, &mut out),
            WhatIf::LosesLink => {}
        }
        if out.iter().any(|action| matches!(action, Action::SendAdvert { priority: 0, .. })) && !word_lost {
            let zero = master.advert(0);
            backup.handle(now, Event::Advert { advert: &zero, source: from }, &mut vec![]);
        }
        let mut at = now;
        while backup.role() != Role::Master {
            at = backup.deadline().unwrap();
            backup.poll(at, &mut vec![]);
        }
        let Forecast::TakenOver { expected, latest, .. } = forecast else { panic!("{forecast:?}") };
        let expected_to_be = if word_lost && what_if != WhatIf::LosesLink { latest } else { expected };
        assert_eq!(at, expected_to_be, "{what_if:?}, word lost: {word_lost}");
    }
}
