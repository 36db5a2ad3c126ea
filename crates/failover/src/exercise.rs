//! What fuzzing asks of the crate, in functions that a unit test runs on random bytes too. They
//! panic where something is wrong.

use crate::action::{Action, Event, Role, Start};
use crate::ah::{self, Key, Outer, Sequence};
use crate::group::{Group, MemberAction};
use crate::packet::{self, Addresses, Auth, Centis, Family, Format, Received, Rules};
use crate::parameters::{Parameters, UnicastPeer};
use crate::router::Router;
use crate::time::Time;
use dirigent_wire::Mac;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// All the formats.
pub fn formats() -> [Format; 6] {
    [
        Format::V2 { auth: Auth::None },
        Format::V2 { auth: Auth::Password(*b"password") },
        Format::V2 { auth: Auth::Ah },
        Format::V3Ipv4 { checksum_as_v2: false },
        Format::V3Ipv4 { checksum_as_v2: true },
        Format::V3Ipv6,
    ]
}

/// Bytes as an advert of each format, as they are and with the checksum made right; and as a packet
/// with an AH header. What is read says the same when it was written and read again.
pub fn codec(data: &[u8]) {
    for format in formats() {
        let (source, destination) = ends(format.family());
        let rules = Rules { no_addresses: true, ttl: 0..=255, ..Rules::new(format) };
        let read = |payload: &[u8]| packet::parse(&Received { source, destination, ttl: 1, payload }, &rules);
        let refused = read(data);
        let mut right = data.to_vec();
        if let Err(packet::ParseError::Checksum { want, .. }) = refused
            && let Some(field) = right.get_mut(6..8)
        {
            field.copy_from_slice(&want.to_be_bytes());
        }
        match read(&right) {
            Ok(advert) => {
                let again = packet::emit(&advert, source, destination, format);
                let again = again.map(|bytes| read(&bytes));
                assert_eq!(again, Ok(Ok(advert)), "{format:?}");
            }
            Err(why) => {
                assert!(!matches!(why, packet::ParseError::Checksum { .. }), "a sum made right is wrong");
                assert!(!why.to_string().is_empty());
            }
        }
    }
    if let Some(key) = Key::new(b"secret") {
        // Nobody guesses an ICV.
        assert!(ah::open(data, &key, &mut Sequence::default()).is_err());
        let outer = Outer { source: OURS, destination: THEIRS, ttl: 255, id: 1, tos: 0 };
        if let Ok(sealed) = ah::seal(&outer, data, &key, &mut Sequence::default()) {
            let opened = ah::open(&sealed, &key, &mut Sequence::default());
            assert_eq!(opened.map(|opened| opened.payload), Ok(data));
        }
    }
}

/// A sync group of one to three routers, shaped by the first bytes, and what the other bytes make
/// happen to it, at times that they say.
pub fn machine(data: &[u8]) {
    let mut bytes = Bytes(data);
    let routers = (0..=bytes.below(3)).map(|vr| Router::new(bytes.parameters(vr))).collect();
    let Ok(mut group) = Group::new(routers) else { return };
    let mut holds = vec![false; group.routers().len()];
    // Not far from the clock's end, sometimes.
    let mut now =
        if bytes.next() == 0 { Time::from_ns(u64::MAX - 1_000_000_000_000_000) } else { Time::from_ms(5_000) };
    while !bytes.0.is_empty() {
        now = now + bytes.duration();
        if bytes.below(4) == 0
            && let Some(deadline) = group.deadline()
        {
            now = now.max(deadline);
        }
        let mut out = Vec::new();
        let member = usize::from(bytes.below(3)).min(holds.len() - 1);
        bytes.happen(&mut group, member, now, &mut out);
        check(&group, &mut holds, &out, now);
        out.clear();
        group.poll(now, &mut out);
        check(&group, &mut holds, &out, now);
        assert!(group.deadline().is_none_or(|deadline| deadline > now), "nothing is due after a poll");
    }
}

const OURS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 5);
const THEIRS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

fn ends(family: Family) -> (IpAddr, IpAddr) {
    match family {
        Family::V4 => (OURS.into(), THEIRS.into()),
        Family::V6 => (Ipv6Addr::from_bits(5).into(), Ipv6Addr::from_bits(7).into()),
    }
}

/// The addresses are where the state says, and what is to be sent can be.
fn check(group: &Group, holds: &mut [bool], out: &[MemberAction], now: Time) {
    for MemberAction { member, action } in out {
        let (Some(router), Some(held)) = (group.router(*member), holds.get_mut(*member)) else { continue };
        match action {
            Action::AddAddresses => *held = true,
            Action::RemoveAddresses => *held = false,
            Action::SendAdvert { priority, .. } => {
                let (source, destination) = ends(router.parameters().family());
                let emitted = packet::emit(&router.advert(*priority), source, destination, router.parameters().format);
                assert!(emitted.is_ok(), "{emitted:?}");
            }
            Action::Announce { repeat, .. } => assert!(*repeat > 0),
            Action::StateChanged { from, to, .. } => assert_ne!(from, to),
            _ => {}
        }
    }
    for (router, held) in group.routers().zip(holds.iter()) {
        assert_eq!(router.role() == Role::Master, *held, "who is master holds the addresses, and nobody else");
        assert_eq!(router.addresses_valid_until().is_some(), *held);
        assert!(router.addresses_valid_until().is_none_or(|until| until > now), "who is not sure is no master");
    }
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn below(&mut self, n: u8) -> u8 {
        self.next() % n
    }

    fn flag(&mut self) -> bool {
        self.next() & 1 == 1
    }

    /// From a microsecond to more than an hour, short times and long ones alike.
    fn duration(&mut self) -> Duration {
        Duration::from_micros(u64::from(self.next()) << self.below(26))
    }

    fn parameters(&mut self, vr: u8) -> Parameters {
        let list = formats();
        let format = list.get(usize::from(self.below(6))).copied().unwrap_or(Format::V3Ipv6);
        let (source, peer) = ends(format.family());
        let addresses = match format.family() {
            Family::V4 => Addresses::V4(vec![Ipv4Addr::new(192, 0, 2, 100); usize::from(self.below(3))]),
            Family::V6 => Addresses::V6(vec![Ipv6Addr::from_bits(100); usize::from(self.below(3))]),
        };
        let interval = match format.version() {
            packet::Version::V2 => u16::from(self.next()).max(1) * 100,
            packet::Version::V3 => u16::from(self.next()) * 16 + 1,
        };
        let mut p = Parameters::new(vr + 1, format, source, addresses);
        p.advert_int = Centis::new(interval).unwrap_or(Centis::SECOND);
        p.priority = self.next();
        p.down_timer_adverts = self.below(101);
        p.preempt = self.flag();
        p.start_as_master = self.flag();
        p.preempt_delay = self.duration();
        p.startup_delay = if self.flag() { self.duration() } else { Duration::ZERO };
        p.garp_master_delay = self.duration();
        p.garp_master_repeat = u16::from(self.next());
        p.garp_master_refresh = self.duration();
        p.lower_prio_no_advert = self.flag();
        p.higher_prio_send_advert = self.flag();
        p.strict_mode = self.flag();
        p.skip_check_adv_addr = self.flag();
        p.check_unicast_src = self.flag();
        p.unicast_peers = if self.flag() { vec![UnicastPeer::new(peer)] } else { vec![] };
        p.late_after = if self.flag() { Some(self.duration()) } else { None };
        p
    }

    /// One event.
    fn happen(&mut self, group: &mut Group, member: usize, now: Time, out: &mut Vec<MemberAction>) {
        let Some(router) = group.router(member) else { return };
        let (ours, theirs) = ends(router.parameters().family());
        let event = match self.below(16) {
            0 => Event::Start(Start {
                // Whoever says so holds them already; that is not what is tried here.
                still_holds_addresses: self.flag(),
                last_advert: if self.flag() { Some(now) } else { None },
            }),
            1 => Event::Stop,
            2 => Event::Fault,
            3 => Event::Recovered,
            4 => Event::Priority(self.next()),
            5 => Event::HandOver,
            6 => Event::HandBack,
            7 => Event::Source(ours),
            8 => Event::ForeignAnnouncement { address: theirs, mac: Mac::new([2; 6]) },
            9 => return group.poll(now, out),
            _ => {
                let mut advert = router.advert(self.next());
                advert.vrid = advert.vrid.wrapping_add(u8::from(self.below(16) == 0));
                if self.flag() {
                    advert.interval = Centis::new(u16::from(self.next()) * 16 + 1).unwrap_or(Centis::SECOND);
                }
                let source = match self.below(3) {
                    0 => ours,
                    1 => theirs,
                    _ => IpAddr::from([192, 0, 2, 1]),
                };
                return group.handle(now, member, Event::Advert { advert: &advert, source }, out);
            }
        };
        group.handle(now, member, event, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_bytes_are_a_codecs(data in proptest::collection::vec(any::<u8>(), 0..80)) {
            codec(&data);
        }

        #[test]
        fn nearly_adverts_are_a_codecs(kind in 0x20u8..0x40, count in 0u8..4, data in proptest::collection::vec(any::<u8>(), 8..80), format in 0usize..6) {
            let mut data = data;
            (data[0], data[3]) = (kind, count);
            let each = if format == 5 { 16 } else { 4 };
            data.resize(8 + usize::from(count) * each + if format < 3 { 8 } else { 0 }, 0);
            codec(&data);
        }

        #[test]
        fn any_bytes_are_a_machines(data in proptest::collection::vec(any::<u8>(), 0..400)) {
            machine(&data);
        }
    }
}
