//! What members do to each other. Two members: 0 on the clients' side, 1 on the servers'.

use super::*;
use crate::action::Start;
use crate::packet::{Addresses, Centis, Format};
use crate::parameters::Parameters;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

fn router(vr: u8, priority: u8) -> Router {
    let mut p = Parameters::new(
        vr + 1,
        Format::V3Ipv4 { checksum_as_v2: false },
        IpAddr::from([192, 0, vr, 5]),
        Addresses::V4(vec![Ipv4Addr::new(192, 0, vr, 100)]),
    );
    p.priority = priority;
    Router::new(p)
}

struct Rig {
    group: Group,
    now: Time,
    out: Vec<MemberAction>,
}

impl Rig {
    fn new(priorities: &[u8]) -> Self {
        let routers = (0u8..).zip(priorities).map(|(vr, priority)| router(vr, *priority)).collect();
        let mut rig = Self { group: Group::new(routers).unwrap(), now: Time::from_ms(1000), out: Vec::new() };
        rig.event(0, Event::Start(Start::default()));
        rig
    }

    fn event(&mut self, member: usize, event: Event<'_>) {
        self.group.handle(self.now, member, event, &mut self.out);
    }

    fn hear(&mut self, member: usize, last: u8, priority: u8) {
        let advert = self.group.router(member).unwrap().advert(priority);
        let source = IpAddr::from([192, 0, member as u8, last]);
        self.event(member, Event::Advert { advert: &advert, source });
    }

    /// Every poll in time.
    fn pass(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while let Some(deadline) = self.group.deadline().filter(|at| *at <= end) {
            self.now = deadline;
            self.group.poll(self.now, &mut self.out);
        }
        self.now = end;
    }

    fn roles(&self) -> Vec<Role> {
        self.group.routers().map(Router::role).collect()
    }

    /// Who changed to what and why, and which adverts were sent, since the last call.
    fn said(&mut self) -> Vec<String> {
        let text = |MemberAction { member, action }: MemberAction| match action {
            Action::StateChanged { to, why, .. } => Some(format!("{member} {to:?} {why:?}")),
            Action::SendAdvert { priority, .. } => Some(format!("{member} send {priority}")),
            Action::Announce { occasion, .. } => Some(format!("{member} {occasion:?}")),
            _ => None,
        };
        self.out.drain(..).filter_map(text).collect()
    }
}

#[test]
fn members_take_over_together() {
    let mut rig = Rig::new(&[100, 100]);
    assert_eq!(rig.said(), ["0 Backup Started", "1 Backup Started"]);
    rig.pass(3000);
    rig.hear(0, 7, 200);
    // Member 1 hears nobody, but its sibling does: no more than a switch's trouble.
    rig.pass(3600);
    assert_eq!(rig.said(), [""; 0]);
    rig.pass(10);
    let both = ["0 send 100", "0 TakeOver", "0 Master NoAdvert", "1 send 100", "1 TakeOver", "1 Master Group"];
    assert_eq!(rig.said(), both);
}

#[test]
fn a_better_master_in_one_member_is_given_way_in_all() {
    let mut rig = Rig::new(&[100, 100]);
    rig.pass(4000);
    rig.said();
    rig.hear(1, 7, 200);
    // Whoever it is hears the last word, and announces for all his members.
    assert_eq!(
        rig.said(),
        ["1 send 100", "1 Backup BetterMaster { address: 192.0.1.7, priority: 200 }", "0 Backup Group"]
    );
    assert_eq!(rig.roles(), [Role::Backup, Role::Backup]);
}

#[test]
fn all_announce_when_one_hears_a_lower_master() {
    let mut rig = Rig::new(&[100, 100]);
    rig.pass(4000);
    rig.said();
    rig.hear(0, 7, 50);
    assert_eq!(rig.said(), ["0 send 100", "0 LowerPriority", "1 LowerPriority"]);
    rig.pass(4100);
    let healed = rig.said().into_iter().filter(|text| text.ends_with("Healed")).collect::<Vec<_>>();
    assert_eq!(healed, ["0 Healed", "1 Healed"]);
}

#[test]
fn a_fault_is_everybodys_until_the_last_is_gone() {
    let mut rig = Rig::new(&[100, 100]);
    rig.pass(4000);
    rig.said();
    rig.event(1, Event::Fault);
    assert_eq!(rig.said(), ["1 send 0", "1 Fault Fault", "0 send 0", "0 Fault Group"]);
    rig.event(0, Event::Fault);
    rig.event(1, Event::Recovered);
    assert_eq!((rig.said(), rig.roles()), (vec![], vec![Role::Fault, Role::Fault]));
    rig.event(0, Event::Recovered);
    assert_eq!(rig.said(), ["0 Backup Recovered", "1 Backup Recovered"]);
    // A fault in the stop is there at the start.
    rig.event(0, Event::Stop);
    rig.event(1, Event::Fault);
    rig.said();
    rig.event(0, Event::Start(Start::default()));
    assert_eq!(rig.roles(), [Role::Fault, Role::Fault]);
}

#[test]
fn the_lowest_priority_is_the_groups() {
    let mut rig = Rig::new(&[150, 100]);
    let priorities = |rig: &Rig| rig.group.routers().map(Router::priority).collect::<Vec<_>>();
    assert_eq!(priorities(&rig), [100, 100]);
    rig.event(1, Event::Priority(200));
    assert_eq!(priorities(&rig), [150, 150]);
    rig.event(0, Event::Priority(20));
    assert_eq!(priorities(&rig), [20, 20]);
}

#[test]
fn owners_are_among_themselves() {
    assert_eq!(Group::new(vec![]), Err(GroupError::Empty));
    assert_eq!(Group::new(vec![router(0, 255), router(1, 100)]), Err(GroupError::OwnerAndOthers));
    let mut rig = Rig::new(&[255, 255]);
    assert_eq!(rig.roles(), [Role::Master, Role::Master]);
    rig.event(0, Event::Priority(3));
    assert_eq!(rig.group.router(1).unwrap().priority(), 255);
}

#[test]
fn members_that_begin_differently_begin_as_backup() {
    let mut rig = Rig::new(&[100, 100]);
    rig.event(0, Event::Stop);
    let mut first = rig.group.router(0).unwrap().parameters().clone();
    first.start_as_master = true;
    let routers = vec![Router::new(first), router(1, 100)];
    rig.group = Group::new(routers).unwrap();
    rig.said();
    rig.event(0, Event::Start(Start::default()));
    assert_eq!(rig.said(), ["0 Backup Started", "1 Backup Started"]);
}

/// One has an interval of a second and one of ten: 5 s after the last advert only one could go on.
#[test]
fn all_members_go_on_or_none() {
    let mut slow = router(1, 100).parameters().clone();
    slow.advert_int = Centis::new(1000).unwrap();
    let mut rig = Rig::new(&[100]);
    rig.group = Group::new(vec![Router::new(slow), router(0, 100)]).unwrap();
    rig.now = Time::from_ms(20_000);
    rig.event(0, Event::Start(Start { still_holds_addresses: true, last_advert: Some(Time::from_ms(15_000)) }));
    assert_eq!(rig.roles(), [Role::Backup, Role::Backup]);
}

#[test]
fn all_hand_over_and_all_stop() {
    let mut rig = Rig::new(&[100, 100]);
    rig.pass(4000);
    rig.said();
    rig.event(1, Event::HandOver);
    assert_eq!(rig.said(), ["0 send 0", "0 Backup HandOver", "1 send 0", "1 Backup HandOver"]);
    rig.event(0, Event::Stop);
    assert_eq!(rig.roles(), [Role::Initialize, Role::Initialize]);
    assert_eq!(rig.group.deadline(), None);
}

/// Of two hosts of equal priority each may have the higher address in one member, and then both give
/// way. They must not take over at once again: who lost in the first member waits longer.
#[test]
fn a_draw_is_decided_by_the_first_member() {
    let lost_in = |member: usize| {
        let mut rig = Rig::new(&[100, 100]);
        rig.pass(4000);
        rig.hear(member, 7, 100);
        rig.group.routers().map(|router| router.down_at().unwrap().since(rig.now)).max().unwrap()
    };
    assert_eq!(lost_in(0), lost_in(1) + Centis::SECOND.duration());
}

#[test]
fn who_is_late_is_late_in_all_members() {
    let mut rig = Rig::new(&[100, 100]);
    rig.pass(4000);
    rig.said();
    rig.now = rig.now + Duration::from_secs(60);
    rig.hear(1, 7, 50);
    let silent = rig.said().into_iter().all(|text| !text.contains("send"));
    assert!(silent && rig.roles() == [Role::Backup, Role::Backup]);
    assert_eq!(rig.group.addresses_valid_until(), None);
}
