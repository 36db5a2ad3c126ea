//! Two to five hosts in one network, simulated: messages are lost, delayed, overtaken and doubled;
//! hosts are paused, killed, started again and cut off; all from a seed. `SEED=7 cargo nextest run -p
//! dirigent-failover simulation` runs one and prints what happens, `SEEDS=60000` runs more than usual.
//!
//! # What must hold
//!
//! Let I be the advert interval, D `down_timer_adverts`, δ the longest delay, J what a timer may fire
//! late, L the most adverts lost in a row from one host to another. A host *holds* the addresses from
//! `AddAddresses` to `RemoveAddresses`, or until the guard takes them off at `addresses_valid_until`.
//!
//! 1. **Two that hear each other hold no longer than the bound** ([`Net::bound`]). Of two masters one is
//!    better. It sends an advert when it becomes one and every I + J; of L + 1 in a row the other hears
//!    one, δ later, and gives way: (L + 1)(I + J) + δ. With pauses, a master's adverts may be as
//!    far apart as it is sure for, D·I, for later it has given way or the guard has taken its addresses:
//!    (L + 1)·D·I + δ, and the other may itself be paused when the advert comes, for D·I at most:
//!    (L + 2)·D·I + δ. Who is dead holds at most D·I.
//! 2. **In a network that is whole and quiet for [`Net::settled`], exactly one holds**; the best, if all preempt;
//!    of a sync group one host all.
//! 3. **Two that held at the end of a split**: who is left has announced the addresses since.
//! 4. **Nobody who slept longer than one and a half I takes over for want of adverts that wait in its socket**, even if it
//!    looks at its timers before the socket.
//! 5. In a network without loss, where nobody preempts and skew times differ by more than δ + J, **two never hold at all**,
//!    whatever is paused, killed or started ([`orderly`]), but those who wake at different times and happen to take over
//!    within δ + J of each other; and from the start the best takes over, and nobody else.
//! 6. **A sync group does not take over in one network and give way in the other, in turns**, when only one of its
//!    networks is cut.
//!
//! # Mutants
//!
//! Each was tried by hand. The simulation found (by property): no skew time (5, who takes over first), no tie-break (1), a late master
//! that goes on (a master must hold), a late backup that takes over (4, 5), priority 0 heeded from anyone (5), a better
//! master not given way (1), never and always preempting (2; 5), a guard an interval late (5), no last word to a
//! better master (3), members that do not pull each other (their states differ), that do not wait for each other (6), that
//! do not announce for each other (3), a heard master that does not set the timer (2, 5), a hand-over without a way back (2),
//! a late master that says priority 0 (5), no announcement after an episode of two masters (3).
//!
//! It did not find, since they cost time or an announcement and no property, but the scripts beside the code did:
//! a lower master not answered or not announced at, a stop without priority 0, a late master that listens for a skew time
//! only, a draw in a group not decided; and resuming however late, which the guard makes impossible here.
//!
//! Found by more seeds than run each time (`SEEDS=60000`, 5): a master sure for D·I without the quarter of an interval that
//! its advert takes (seed 5359), and two messages overtaken by a third, of which a backup that knows one
//! master only makes a take-over (seed 4151). The scripts `late_master` and `priority_zero_of_another` hold these.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use dirigent_failover::action::Event;
use dirigent_failover::{
    Action, Addresses, Advert, Alarm, Centis, Format, Group, MemberAction, Parameters, Received, Role, Router, Start,
    Time, Why, address, packet,
};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// 0 to `n` - 1.
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
    fn up_to(&mut self, most: Duration) -> Duration {
        Duration::from_nanos(self.below(most.as_nanos() as u64 + 1))
    }
    /// Up to one of these times `unit`.
    fn within(&mut self, unit: Duration, times: &[u32]) -> Duration {
        let most = unit * self.pick(times);
        self.up_to(most)
    }
    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }
}

#[derive(Clone, Debug)]
enum What {
    /// An advert arrives.
    Deliver {
        to: usize,
        vr: usize,
        from: usize,
        advert: Advert,
    },
    /// A timer fires; only the last one set counts.
    Wake {
        host: usize,
        timer: u64,
    },
    /// The guard looks.
    Guard,
    Pause {
        host: usize,
        length: Duration,
    },
    Resume {
        host: usize,
    },
    Kill {
        host: usize,
    },
    Stop {
        host: usize,
    },
    Start {
        host: usize,
    },
    Split {
        sides: u32,
        vr: Option<usize>,
    },
    Heal,
    HandOver {
        host: usize,
    },
    Fault {
        host: usize,
        member: usize,
    },
    Recovered {
        host: usize,
        member: usize,
    },
    Priority {
        host: usize,
        priority: u8,
    },
    /// Everything works from now on.
    Quiet,
}

/// What happens, and when; of the same time in the order in which it was planned.
struct Due {
    at: Time,
    number: u64,
    what: What,
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Due {}

struct Host {
    group: Option<Group>,
    parameters: Vec<Parameters>,
    paused: bool,
    paused_at: Time,
    inbox: VecDeque<(usize, usize, Advert)>,
    timer: u64,
    /// For each virtual router.
    holds: Vec<bool>,
    guard: Vec<Option<Time>>,
    last_advert: Vec<Option<Time>>,
    announced: Vec<Option<Time>>,
    took_over: Vec<Time>,
}

/// What a seed may do.
#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    /// Adverts lost in a row from one to another at most.
    losses: u32,
    doubles: bool,
    pauses: bool,
    ends: bool,
    splits: bool,
    hand_overs: bool,
    /// Of what a router needs.
    outages: bool,
    priorities: bool,
}

struct Net {
    random: Random,
    verbose: bool,
    now: Time,
    sequence: u64,
    queue: BinaryHeap<Reverse<Due>>,
    hosts: Vec<Host>,
    vrs: usize,
    faults: Faults,
    /// As `faults.losses` was before the quiet.
    most_losses: u32,
    interval: Duration,
    down_adverts: u32,
    /// By virtual router, from and to.
    up: Vec<Vec<Vec<bool>>>,
    lost: Vec<Vec<Vec<u32>>>,
    /// Since when both hold and hear each other.
    both: Vec<Vec<Vec<Option<Time>>>>,
    /// Whether adverts go through bytes.
    bytes: bool,
    quiet_since: Option<Time>,
    /// By virtual router: whether several held when the network became whole.
    was_split: Vec<bool>,
    /// The most time that two held, hearing each other.
    worst: Duration,
    counts: Counts,
    /// Nobody may ever hold beside another, but for those who took over within a moment of each other.
    strict: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    take_overs: u32,
    second_masters: u32,
    late: u32,
    late_masters: u32,
    resumed: u32,
}

impl Net {
    fn delay(&self) -> Duration {
        self.interval / 10
    }

    fn jitter(&self) -> Duration {
        self.interval / 20
    }

    /// Property 1.
    fn bound(&self) -> Duration {
        // If who is better changes in between, it begins anew.
        let times = if self.faults.priorities { 2 } else { 1 };
        let losses = self.most_losses;
        if self.faults.pauses || self.faults.ends {
            (self.interval * self.down_adverts * (losses + 2) + self.delay() + self.jitter()) * times
        } else {
            ((self.interval + self.jitter()) * (losses + 1) + self.delay()) * times
        }
    }

    /// Property 2. A master-down interval is at most D·I and a skew time of I; a hand-over that nobody
    /// takes two I more. Then somebody has taken over, whom a better one preempts within another; or two
    /// in one group gave way at once, and one waits another.
    fn settled(&self) -> Duration {
        self.interval * (2 * (self.down_adverts + 3) + 2)
    }

    fn say(&self, text: impl FnOnce() -> String) {
        if self.verbose {
            println!("{:>10.3} {}", self.now.as_ns() as f64 / 1e6, text());
        }
    }

    fn at(&mut self, at: Time, what: What) {
        self.sequence += 1;
        self.queue.push(Reverse(Due { at, number: self.sequence, what }));
    }

    fn run_until(&mut self, end: Time) {
        while self.queue.peek().is_some_and(|Reverse(due)| due.at <= end) {
            let Some(Reverse(due)) = self.queue.pop() else { break };
            self.now = due.at;
            self.happen(due.what);
            self.look();
        }
        self.now = end;
        self.look();
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Deliver { to, vr, from, advert } => {
                let host = &mut self.hosts[to];
                if host.group.is_none() {
                } else if host.paused {
                    host.inbox.push_back((vr, from, advert));
                } else {
                    self.hear(to, vr, from, &advert);
                }
            }
            What::Wake { host, timer } if self.hosts[host].timer == timer && !self.hosts[host].paused => {
                self.poll(host)
            }
            What::Wake { .. } | What::Guard => {}
            What::Pause { host, length } => {
                let now = self.now;
                if self.quiet_since.is_none() && self.hosts[host].group.is_some() && !self.hosts[host].paused {
                    self.say(|| format!("{host} paused for {length:?}"));
                    self.hosts[host].paused = true;
                    self.hosts[host].paused_at = now;
                    self.guard(host);
                    self.at(self.now + length, What::Resume { host });
                }
            }
            What::Resume { host } => self.resume(host),
            What::Kill { host } => {
                if self.quiet_since.is_none() {
                    self.say(|| format!("{host} killed"));
                    self.hosts[host].group = None;
                    self.hosts[host].paused = false;
                    self.hosts[host].inbox.clear();
                    self.guard(host);
                }
            }
            What::Stop { host } => {
                if self.quiet_since.is_none() && !self.hosts[host].paused {
                    self.act(host, |group, now, out| group.handle(now, 0, Event::Stop, out));
                    self.hosts[host].group = None;
                }
            }
            What::Start { host } => self.start(host),
            What::Split { sides, vr } => {
                self.say(|| format!("split {sides:b} of {vr:?}"));
                for which in (0..self.vrs).filter(|which| vr.is_none_or(|vr| vr == *which)) {
                    for from in 0..self.hosts.len() {
                        for to in 0..self.hosts.len() {
                            self.up[which][from][to] = sides >> from & 1 == sides >> to & 1;
                        }
                    }
                }
            }
            What::Heal => self.heal(),
            What::HandOver { host } => {
                if !self.hosts[host].paused {
                    self.say(|| format!("{host} hands over"));
                    self.act(host, |group, now, out| group.handle(now, 0, Event::HandOver, out));
                }
            }
            What::Fault { host, member } => self.tell(host, member, Event::Fault),
            What::Recovered { host, member } => self.tell(host, member, Event::Recovered),
            What::Priority { host, priority } => self.tell(host, 0, Event::Priority(priority)),
            What::Quiet => {
                self.say(|| "quiet".into());
                for host in 0..self.hosts.len() {
                    self.resume(host);
                    (0..self.vrs).for_each(|member| self.tell(host, member, Event::Recovered));
                }
                self.faults.losses = 0;
                self.quiet_since = Some(self.now);
                self.heal();
                self.look();
                // Of the dead, whose guard has not come yet, nobody can know.
                let alive = |host: &usize| self.hosts[*host].group.is_some();
                let split = |vr| self.holders(vr).into_iter().filter(alive).count() > 1;
                self.was_split = (0..self.vrs).map(split).collect();
            }
        }
    }

    /// Tells a host that runs.
    fn tell(&mut self, host: usize, member: usize, event: Event<'_>) {
        if !self.hosts[host].paused && self.quiet_since.is_none() {
            self.say(|| format!("{host}.{member} {event:?}"));
            self.act(host, |group, now, out| group.handle(now, member, event, out));
        }
    }

    fn heal(&mut self) {
        self.say(|| "healed".into());
        self.up.iter_mut().flatten().flatten().for_each(|up| *up = true);
    }

    fn start(&mut self, host: usize) {
        if self.hosts[host].group.is_some() {
            return;
        }
        let routers = self.hosts[host].parameters.iter().cloned().map(Router::new).collect();
        let me = &mut self.hosts[host];
        me.group = Some(Group::new(routers).unwrap());
        let held = me.holds.iter().zip(&me.guard).all(|(holds, until)| *holds && until.is_some_and(|u| u > self.now));
        let last_advert = me.last_advert.iter().copied().min().flatten();
        let start = Start { still_holds_addresses: held || me.holds.iter().any(|holds| *holds), last_advert };
        self.say(|| format!("{host} starts {start:?}"));
        self.act(host, |group, now, out| group.handle(now, 0, Event::Start(start), out));
    }

    /// The guard looks at a host that does not run.
    fn guard(&mut self, host: usize) {
        for until in self.hosts[host].guard.clone().into_iter().flatten() {
            self.at(until.max(self.now), What::Guard);
        }
    }

    /// What waited is read, before or after the timers are looked at.
    fn resume(&mut self, host: usize) {
        if !self.hosts[host].paused {
            return;
        }
        self.say(|| format!("{host} resumes"));
        self.hosts[host].paused = false;
        if self.random.one_in(2) {
            self.poll(host);
        }
        while let Some((vr, from, advert)) = self.hosts[host].inbox.pop_front() {
            self.hear(host, vr, from, &advert);
        }
        self.poll(host);
    }

    fn poll(&mut self, host: usize) {
        self.act(host, |group, now, out| group.poll(now, out));
    }

    fn hear(&mut self, host: usize, vr: usize, from: usize, advert: &Advert) {
        let source = self.hosts[from].parameters[vr].source;
        self.act(host, |group, now, out| group.handle(now, vr, Event::Advert { advert, source }, out));
    }

    /// Lets a host act, and does what it says.
    fn act(&mut self, host: usize, what: impl FnOnce(&mut Group, Time, &mut Vec<MemberAction>)) {
        let now = self.now;
        let Some(mut group) = self.hosts[host].group.take() else { return };
        let mut out = Vec::new();
        what(&mut group, now, &mut out);
        let roles: Vec<_> = group.routers().map(Router::role).collect();
        assert!(roles.iter().all(|role| *role == roles[0]), "members apart: {roles:?}");
        for MemberAction { member, action } in out {
            self.carry_out(host, member, action, &group);
        }
        let me = &mut self.hosts[host];
        for (vr, router) in group.routers().enumerate() {
            // A guard counts from the last word of the daemon: it outlives it.
            if let Some(until) = router.addresses_valid_until() {
                me.guard[vr] = Some(until);
                me.last_advert[vr] = router.last_advert();
            }
            assert_eq!(router.role() == Role::Master, me.holds[vr], "host {host} at {now:?}: a master holds");
        }
        me.timer += 1;
        let (timer, deadline) = (me.timer, group.deadline());
        me.group = Some(group);
        if let Some(deadline) = deadline {
            let jitter = self.jitter();
            let late = self.random.up_to(jitter);
            self.at(deadline.max(now) + late, What::Wake { host, timer });
        }
    }

    fn carry_out(&mut self, host: usize, vr: usize, action: Action, group: &Group) {
        self.say(|| format!("{host}.{vr} {action:?}"));
        let now = self.now;
        match action {
            Action::SendAdvert { priority, .. } => self.send(host, vr, group.router(vr).unwrap().advert(priority)),
            Action::AddAddresses => self.hosts[host].holds[vr] = true,
            Action::RemoveAddresses => self.hosts[host].holds[vr] = false,
            Action::Announce { .. } => self.hosts[host].announced[vr] = Some(now),
            Action::StateChanged { to: Role::Master, why, .. } => {
                self.counts.take_overs += 1;
                self.counts.resumed += u32::from(why == Why::Resumed);
                let me = &mut self.hosts[host];
                me.took_over[vr] = now;
                let own = group.router(vr).unwrap().priority();
                let better = |waits: &(usize, usize, Advert)| waits.0 == vr && waits.2.priority >= own;
                let slept = now.since(me.paused_at) > (self.interval + self.interval / 20) * 3 / 2;
                let waits = slept && matches!(why, Why::NoAdvert) && me.inbox.iter().any(better);
                assert!(!waits, "property 4: {host} takes over, an advert waits");
            }
            Action::StateChanged { why: Why::Late { .. }, .. } => self.counts.late_masters += 1,
            Action::Late { .. } => self.counts.late += 1,
            Action::Alarm(Alarm::SecondMaster { .. }) => self.counts.second_masters += 1,
            Action::Alarm(_) | Action::StateChanged { .. } | Action::Discarded { .. } => {}
        }
    }

    fn send(&mut self, from: usize, vr: usize, advert: Advert) {
        let advert = if self.bytes { self.through_bytes(from, vr, &advert) } else { advert };
        for to in (0..self.hosts.len()).filter(|to| *to != from) {
            if !self.up[vr][from][to] {
                continue;
            }
            if self.lost[vr][from][to] < self.faults.losses && self.random.one_in(2) {
                self.lost[vr][from][to] += 1;
                continue;
            }
            self.lost[vr][from][to] = 0;
            let copies = if self.faults.doubles && self.random.one_in(4) { 2 } else { 1 };
            for _ in 0..copies {
                let most = self.delay();
                let delay = self.random.up_to(most);
                self.at(self.now + delay, What::Deliver { to, vr, from, advert: advert.clone() });
            }
        }
    }

    fn through_bytes(&self, from: usize, vr: usize, advert: &Advert) -> Advert {
        let p = &self.hosts[from].parameters[vr];
        let destination = p.destinations()[0];
        let bytes = packet::emit(advert, p.source, destination, p.format).unwrap();
        let received = Received { source: p.source, destination, ttl: address::TTL, payload: &bytes };
        packet::parse(&received, &p.rules(p.source)).unwrap()
    }

    /// Who holds the addresses now; the guard has taken what is overdue.
    fn holders(&self, vr: usize) -> Vec<usize> {
        (0..self.hosts.len()).filter(|host| self.hosts[*host].holds[vr]).collect()
    }

    /// Checks what must hold at any time.
    fn look(&mut self) {
        let now = self.now;
        for host in &mut self.hosts {
            for (holds, until) in host.holds.iter_mut().zip(&host.guard) {
                // Running hosts are asked in `act`: of them it would be a bug to be overdue.
                if until.is_none_or(|until| until <= now) && (host.paused || host.group.is_none()) {
                    *holds = false;
                }
            }
        }
        for vr in 0..self.vrs {
            for a in 0..self.hosts.len() {
                for b in 0..a {
                    let holds = |host: usize| self.hosts[host].holds[vr];
                    let together = holds(a) && holds(b) && self.up[vr][a][b] && self.up[vr][b][a];
                    let since = self.both[vr][a][b];
                    let long = since.map_or(Duration::ZERO, |since| now.since(since));
                    let at_once = self.hosts[a].took_over[vr]
                        .max(self.hosts[b].took_over[vr])
                        .since(self.hosts[a].took_over[vr].min(self.hosts[b].took_over[vr]));
                    if self.strict && together && at_once > self.delay() + self.jitter() {
                        panic!("property 5: {a} and {b} hold {vr}");
                    }
                    self.worst = self.worst.max(long);
                    assert!(
                        long <= self.bound(),
                        "property 1: {a} and {b} hold {vr} for {long:?} of {:?}",
                        self.bound()
                    );
                    self.both[vr][a][b] = if together { since.or(Some(now)) } else { None };
                }
            }
            let settled = self.quiet_since.is_some_and(|since| now.since(since) > self.settled());
            if settled {
                let holders = self.holders(vr);
                assert_eq!(holders.len(), 1, "property 2: {holders:?} hold {vr}");
                assert_eq!(holders, self.holders(0), "property 2: a group apart");
            }
        }
    }
}

fn parameters(host: usize, vr: usize, last: u8, version: u8, interval: Centis) -> Parameters {
    let format = match version {
        2 => Format::V2 { auth: packet::Auth::None },
        _ => Format::V3Ipv4 { checksum_as_v2: false },
    };
    let source = IpAddr::from([10, vr as u8, host as u8, last]);
    let addresses = Addresses::V4(vec![Ipv4Addr::new(192, 0, 2, vr as u8 + 1)]);
    let mut p = Parameters::new(vr as u8 + 1, format, source, addresses);
    p.advert_int = interval;
    p.garp_master_delay = interval.duration() * 5;
    assert_eq!(p.check(), []);
    p
}

fn net(seed: u64, parameters: Vec<Vec<Parameters>>, faults: Faults) -> Net {
    let (hosts, vrs) = (parameters.len(), parameters[0].len());
    let first = &parameters[0][0];
    let matrix = |value: bool| vec![vec![vec![value; hosts]; hosts]; vrs];
    let host = |parameters: &Vec<Parameters>| Host {
        group: None,
        parameters: parameters.clone(),
        paused: false,
        paused_at: Time::ZERO,
        inbox: VecDeque::new(),
        timer: 0,
        holds: vec![false; vrs],
        guard: vec![None; vrs],
        last_advert: vec![None; vrs],
        announced: vec![None; vrs],
        took_over: vec![Time::ZERO; vrs],
    };
    Net {
        random: Random(seed),
        verbose: std::env::var_os("SEED").is_some(),
        // Not at the clock's start.
        now: Time::from_ms(1_000_000),
        sequence: 0,
        queue: BinaryHeap::new(),
        hosts: parameters.iter().map(host).collect(),
        vrs,
        faults,
        most_losses: faults.losses,
        interval: first.advert_int.duration(),
        down_adverts: u32::from(first.down_timer_adverts),
        up: matrix(true),
        lost: vec![vec![vec![0; hosts]; hosts]; vrs],
        both: vec![vec![vec![None; hosts]; hosts]; vrs],
        bytes: seed.is_multiple_of(8),
        quiet_since: None,
        was_split: vec![false; vrs],
        worst: Duration::ZERO,
        counts: Counts::default(),
        strict: false,
    }
}

/// Properties 1 to 4 of one seed.
fn chaos(seed: u64) -> (Counts, f64) {
    let mut random = Random(seed ^ 0xdead_beef);
    let r = &mut random;
    let hosts = 2 + r.below(4) as usize;
    let vrs = if r.one_in(4) { 2 } else { 1 };
    let version = if r.one_in(4) { 2 } else { 3 };
    let interval = Centis::new(if version == 2 { 100 } else { r.pick(&[1, 10, 100, 1000]) }).unwrap();
    let down = r.pick(&[2, 3, 3, 3, 5]);
    let faults = Faults {
        losses: r.pick(&[0, 0, 1, 2, 4]),
        doubles: r.one_in(2),
        pauses: r.one_in(2),
        ends: r.one_in(2),
        splits: r.one_in(2),
        hand_overs: r.one_in(4),
        outages: r.one_in(4),
        priorities: r.one_in(4),
    };
    let all_preempt = r.one_in(2);
    let mut list = Vec::new();
    for host in 0..hosts {
        let priority = r.pick(&[1, 50, 100, 100, 150, 200, 254, 255]);
        let nopreempt = !all_preempt && r.one_in(2);
        let preempt_delay = if r.one_in(8) { interval.duration() * 3 } else { Duration::ZERO };
        let lower_prio_no_advert = r.one_in(4);
        let members = (0..vrs).map(|vr| {
            let mut p = parameters(host, vr, r.below(200) as u8, version, interval);
            (p.priority, p.preempt, p.preempt_delay, p.down_timer_adverts) =
                (priority, !nopreempt, preempt_delay, down);
            p.lower_prio_no_advert = lower_prio_no_advert;
            // Which of two hosts has the higher address is another for each virtual router.
            p.source = IpAddr::from([10, vr as u8, r.below(250) as u8, host as u8]);
            p
        });
        list.push(members.collect::<Vec<_>>());
    }
    let mut net = net(seed, list, faults);
    let begin = net.now;
    let unit = net.interval;
    let length = unit * 60;
    for host in 0..hosts {
        net.at(begin + r.up_to(unit * 5), What::Start { host });
    }
    let some_time = |r: &mut Random| begin + r.up_to(length);
    for _ in 0..6 {
        let host = r.below(hosts as u64) as usize;
        if faults.pauses {
            let length = unit / 10 + r.within(unit, &[1, 4, 12]);
            net.at(some_time(r), What::Pause { host, length });
        }
        if faults.ends && r.one_in(2) {
            let at = some_time(r);
            net.at(at, if r.one_in(2) { What::Kill { host } } else { What::Stop { host } });
            net.at(at + r.within(unit, &[1, 10, 40]), What::Start { host });
        }
        if faults.splits && r.one_in(2) {
            let at = some_time(r);
            let vr = if r.one_in(2) { None } else { Some(r.below(vrs as u64) as usize) };
            net.at(at, What::Split { sides: r.next() as u32, vr });
            net.at(at + r.up_to(unit * 20), What::Heal);
        }
        if faults.outages && r.one_in(2) {
            let (at, member) = (some_time(r), r.below(vrs as u64) as usize);
            net.at(at, What::Fault { host, member });
            net.at(at + r.within(unit, &[1, 10, 40]), What::Recovered { host, member });
        }
        if faults.priorities && r.one_in(2) {
            let priority = r.pick(&[1, 50, 120, 254]);
            net.at(some_time(r), What::Priority { host, priority });
        }
        if faults.hand_overs && r.one_in(2) {
            net.at(some_time(r), What::HandOver { host });
        }
    }
    net.at(begin + length, What::Quiet);
    // A restart may come after that.
    net.run_until(begin + length);
    if net.hosts.iter().all(|host| host.group.is_none()) {
        net.start(0);
    }
    let settled = net.settled() + unit * 6;
    net.queue.retain(|Reverse(due)| !matches!(due.what, What::Start { .. } | What::Split { .. }));
    net.run_until(begin + length + settled);
    let winner = net.holders(0)[0];
    let yielded = net.hosts.iter().flat_map(|host| &host.group).any(|group| group.routers().any(Router::has_yielded));
    let alive = |host: usize| net.hosts[host].group.is_some();
    let rank = |host: usize| {
        let router = net.hosts[host].group.as_ref().and_then(|group| group.router(0)).unwrap();
        (router.priority(), if vrs == 1 { Some(router.parameters().source) } else { None })
    };
    let delayed = net.hosts.iter().any(|host| host.parameters[0].preempt_delay > Duration::ZERO);
    if all_preempt && !yielded && !delayed {
        let best = (0..hosts).filter(|host| alive(*host)).map(|host| rank(host).0).max().unwrap();
        assert_eq!(rank(winner).0, best, "property 2: not the best");
    }
    for vr in 0..vrs {
        let announced = net.hosts[winner].announced[vr].is_some_and(|at| at >= begin + length);
        assert!(!net.was_split[vr] || announced, "property 3: {winner} has not announced {vr}");
    }
    // Two that held were seen by at least the better one.
    (net.counts, net.worst.as_secs_f64() / net.bound().as_secs_f64())
}

/// Property 5 of one seed: no loss, no preemption, priorities far apart.
fn orderly(seed: u64) -> Counts {
    let mut random = Random(seed ^ 0x0bad_cafe);
    let r = &mut random;
    let hosts = 2 + r.below(3) as usize;
    let version = r.pick(&[2, 3]);
    let interval = Centis::new(if version == 2 { 100 } else { 10 }).unwrap();
    let priorities = [254, 190, 126, 62];
    let list = (0..hosts).map(|host| {
        let mut p = parameters(host, 0, 1, version, interval);
        (p.priority, p.preempt) = (priorities[host], false);
        vec![p]
    });
    let mut net = net(seed, list.collect(), Faults { pauses: true, ends: true, ..Faults::default() });
    net.strict = true;
    let (begin, unit) = (net.now, net.interval);
    for host in 0..hosts {
        net.at(begin, What::Start { host });
    }
    // All begin at once: the best is master, and no other ever was.
    net.run_until(begin + unit * 8);
    assert_eq!((net.holders(0), net.counts.take_overs), (vec![0], 1), "the skew time decides");
    let mut at = begin + unit * 8;
    for _ in 0..8 {
        at = at + unit * 8 + r.up_to(unit * 4);
        // Mostly the master, of whom it matters.
        let host =
            if r.one_in(3) { r.below(hosts as u64) as usize } else { net.holders(0).first().copied().unwrap_or(0) };
        match r.below(3) {
            0 => {
                let length = r.within(unit, &[2, 5, 20]);
                net.at(at, What::Pause { host, length });
                // The others too, at times: they come back late, with adverts in their sockets.
                let other = r.below(hosts as u64) as usize;
                net.at(at + length / 2 + r.up_to(unit), What::Pause { host: other, length: unit * 3 });
                at = at + length;
            }
            1 => {
                net.at(at, What::Kill { host });
                net.at(at + r.up_to(unit * 10), What::Start { host });
            }
            _ => {
                net.at(at, What::Stop { host });
                net.at(at + r.up_to(unit * 10), What::Start { host });
            }
        }
        net.run_until(at + unit * 8);
        at = net.now;
    }
    net.at(net.now, What::Quiet);
    let end = net.now + net.settled() + unit * 3;
    net.run_until(end);
    net.counts
}

/// Runs seeds, or the one that is asked for; a failure says its seed.
fn seeds<T>(count: u64, run: impl Fn(u64) -> T) -> Vec<T> {
    if let Ok(seed) = std::env::var("SEED") {
        return vec![run(seed.parse().unwrap())];
    }
    let count = std::env::var("SEEDS").map_or(count, |count| count.parse().unwrap());
    (0..count)
        .map(|seed| {
            let told = Told(seed);
            let result = run(seed);
            std::mem::forget(told);
            result
        })
        .collect()
}

/// Says the seed when it is dropped in a panic.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        eprintln!("SEED={}", self.0);
    }
}

fn sum(counts: impl Iterator<Item = Counts>) -> Counts {
    counts.fold(Counts::default(), |a, b| Counts {
        take_overs: a.take_overs + b.take_overs,
        second_masters: a.second_masters + b.second_masters,
        late: a.late + b.late,
        late_masters: a.late_masters + b.late_masters,
        resumed: a.resumed + b.resumed,
    })
}

#[test]
fn chaos_ends_in_one_master() {
    let results = seeds(2000, chaos);
    let counts = sum(results.iter().map(|(counts, _)| *counts));
    let worst = results.iter().map(|(_, worst)| *worst).fold(0.0, f64::max);
    println!("{counts:?}, worst overlap {worst:.2} of the bound");
    if results.len() > 1 {
        // What is to be tested did happen, often.
        assert!(counts.second_masters > 100 && counts.late_masters > 100 && counts.resumed > 20, "{counts:?}");
        assert!(worst > 0.3, "the bound is far from what happens: {worst}");
    }
}

#[test]
fn orderly_networks_never_have_two_masters() {
    let results = seeds(1000, orderly);
    println!("{:?}", sum(results.into_iter()));
}

/// The network of one member is cut for long: the other hears the master well.
#[test]
fn a_group_does_not_flap() {
    for seed in 0..20 {
        let priorities = [100, 150 + (seed as u8 % 2) * 50, 120];
        let member = |host: usize, vr: usize| {
            let mut p = parameters(host, vr, 1, 3, Centis::new(10).unwrap());
            p.priority = priorities[host];
            p
        };
        let hosts = (0..3).map(|host| vec![member(host, 0), member(host, 1)]);
        let mut net = net(seed, hosts.collect(), Faults::default());
        let (begin, unit) = (net.now, net.interval);
        for host in 0..3 {
            net.at(begin, What::Start { host });
        }
        net.at(begin + unit * 10, What::Split { sides: 1 << (seed % 3), vr: Some(0) });
        net.run_until(begin + unit * 10);
        assert_eq!(net.holders(0), [1]);
        let before = net.counts.take_overs;
        net.run_until(begin + unit * 200);
        assert_eq!((net.counts.take_overs, net.holders(0), net.holders(1)), (before, vec![1], vec![1]), "property 6");
    }
}
