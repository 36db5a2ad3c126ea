use super::*;
use crate::bfd::find;
use proptest::prelude::*;
use std::collections::BTreeMap;

const MS: Duration = Duration::from_millis(1);
const STATES: [State; 4] = [State::AdminDown, State::Down, State::Init, State::Up];
/// A random number that makes intervals whole.
const WHOLE: u64 = u64::MAX;

fn settings() -> Settings {
    Settings { min_rx_us: 20_000, min_tx_us: 10_000, idle_tx_us: 1_000_000, multiplier: 5, passive: false }
}

/// What the neighbour says: discriminator 2, 50 ms, three missed.
fn hears(state: State) -> Packet {
    Packet {
        diagnostic: 0,
        state,
        poll: false,
        last: false,
        independent: false,
        authentication: false,
        demand: false,
        multiplier: 3,
        mine: 2,
        yours: 1,
        desired_min_tx_us: 50_000,
        required_min_rx_us: 30_000,
        required_min_echo_rx_us: 0,
    }
}

/// A session, number 1, in this state.
fn in_state(state: State, now: Instant) -> Session {
    let mut s = Session::new(settings(), 1, now, WHOLE);
    let _ = match state {
        State::AdminDown => s.hold_down(now, true, WHOLE),
        State::Down => Actions::default(),
        State::Init => s.on_packet(now, &hears(State::Down), WHOLE),
        State::Up => s.on_packet(now, &hears(State::Init), WHOLE),
    };
    assert_eq!(s.state(), state);
    s
}

/// Milliseconds from one to the other.
fn ms(from: Instant, to: Option<Instant>) -> Option<u128> {
    to.map(|to| to.duration_since(from).as_millis())
}

#[test]
fn the_table_of_states() {
    use State::{AdminDown as A, Down as D, Init as I, Up as U};
    let now = Instant::now();
    // Section 6.8.6. Columns: what the neighbour is in.
    for (state, next) in [(A, [A, A, A, A]), (D, [D, I, U, D]), (I, [D, I, U, U]), (U, [D, D, U, U])] {
        for (heard, next) in STATES.into_iter().zip(next) {
            let mut s = in_state(state, now);
            let actions = s.on_packet(now, &hears(heard), WHOLE);
            assert_eq!(s.state(), next, "{state:?} hears {heard:?}");
            assert_eq!(actions.change, (state != next).then_some((state, next)));
            // A change is sent at once, with the reason.
            assert_eq!(actions.send.map(|p| p.state), actions.change.map(|(_, to)| to));
            let told = actions.told.map(|told| told.map_err(|why| why.to_string()));
            match (state, next, heard) {
                (D | I, U, _) => assert_eq!(told, Some(Ok(Weight::Keep))),
                (U, D, A) => assert_eq!(told, Some(Err("the neighbour is administratively down".into()))),
                (U, D, _) => {
                    assert_eq!(told, Some(Err("the neighbour signalled down: no diagnostic".into())));
                    assert_eq!(actions.send.unwrap().diagnostic, SIGNALLED);
                }
                _ => assert_eq!(told, None),
            }
        }
        // The timer.
        let mut s = in_state(state, now);
        let Some(at) = s.expiry else { continue };
        let actions = s.on_deadline(at, WHOLE);
        assert_eq!(s.state(), if state == A { A } else { D });
        assert_eq!(actions.change.is_some(), [I, U].contains(&state));
        assert_eq!(actions.told.is_some(), state == U);
    }
}

#[test]
fn a_session_comes_up() {
    let t0 = Instant::now();
    let mut s = Session::new(settings(), 1, t0, WHOLE);
    assert_eq!(s.deadline(), Some(t0));
    let first = s.on_deadline(t0, WHOLE).send.unwrap();
    assert_eq!(
        first.emit(),
        [0x20, 0x40, 5, 24, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0x0f, 0x42, 0x40, 0, 0, 0x4e, 0x20, 0, 0, 0, 0],
        "Down, no neighbour known, one packet a second, 20 ms taken"
    );
    assert_eq!(ms(t0, s.next), Some(999));
    let now = t0 + 100 * MS;
    let actions = s.on_packet(now, &Packet { yours: 0, ..hears(State::Down) }, WHOLE);
    let init = actions.send.unwrap();
    assert_eq!((init.state, init.yours, init.poll, init.desired_min_tx_us), (State::Init, 2, false, 1_000_000));
    assert_eq!((ms(now, s.next), ms(now, s.expiry)), (Some(999), Some(150)), "3 times 50 ms");
    let now = now + 50 * MS;
    let actions = s.on_packet(now, &hears(State::Up), WHOLE);
    let up = actions.send.unwrap();
    assert_eq!((up.state, up.poll, up.desired_min_tx_us), (State::Up, true, 10_000), "the interval changed: a poll");
    // The neighbour takes a packet each 30 ms.
    assert_eq!(ms(now, s.next), Some(29));
    let now = now + 30 * MS;
    assert!(s.on_deadline(now, WHOLE).send.unwrap().poll, "until it is answered");
    let _ = s.on_packet(now, &Packet { last: true, ..hears(State::Up) }, WHOLE);
    let now = now + 30 * MS;
    let periodic = s.on_deadline(now, WHOLE).send.unwrap();
    assert!(!periodic.poll && !periodic.last);
}

#[test]
fn silence_is_the_end() {
    let t0 = Instant::now();
    let mut s = in_state(State::Up, t0);
    let (now, actions) = loop {
        let now = s.deadline().unwrap();
        let actions = s.on_deadline(now, WHOLE);
        if actions.change.is_some() {
            break (now, actions);
        }
    };
    assert_eq!(ms(t0, Some(now)), Some(150));
    assert_eq!(actions.told, Some(Err(Why::of("control detection time expired"))));
    let down = actions.send.unwrap();
    assert_eq!((down.state, down.diagnostic, down.yours), (State::Down, EXPIRED, 0));
    assert_eq!(down.desired_min_tx_us, 1_000_000, "slow again");
    assert_eq!(ms(now, s.next), Some(999));
    assert_eq!(s.expiry, None);
    // It begins anew, with the neighbour's new name.
    let _ = s.on_packet(now, &Packet { mine: 9, yours: 0, ..hears(State::Down) }, WHOLE);
    let _ = s.on_packet(now, &Packet { mine: 9, ..hears(State::Init) }, WHOLE);
    assert_eq!((s.state(), s.packet().yours, s.diagnostic), (State::Up, 9, 0));
}

#[test]
fn the_detection_time_is_the_neighbours() {
    let now = Instant::now();
    for (rx, tx, multiplier, expected) in
        [(20_000, 50_000, 3, 150), (60_000, 50_000, 3, 180), (20_000, 0, 1, 20), (1, u32::MAX, 255, 1_095_216_660)]
    {
        let mut s = Session::new(Settings { min_rx_us: rx, ..settings() }, 1, now, 0);
        let _ = s.on_packet(now, &Packet { desired_min_tx_us: tx, multiplier, ..hears(State::Init) }, 0);
        assert_eq!(ms(now, s.expiry), Some(expected));
    }
}

#[test]
fn one_that_never_comes_up_is_told_once() {
    let t0 = Instant::now();
    let mut s = Session::new(settings(), 1, t0, WHOLE);
    let mut told = Vec::new();
    while s.deadline().unwrap() < t0 + 30_000 * MS {
        let now = s.deadline().unwrap();
        let actions = s.on_deadline(now, WHOLE);
        told.extend(actions.told.map(|told| (ms(t0, Some(now)).unwrap(), told)));
    }
    assert_eq!(told, [(5000, Err(Why::of("no session came up")))]);
    // One that comes up in time is not.
    let mut s = in_state(State::Up, t0);
    s.expiry = None;
    assert_eq!(s.settle, None);
    assert_eq!(s.on_deadline(t0 + 6000 * MS, 0).told, None);
}

#[test]
fn polls_are_answered_at_once() {
    let now = Instant::now();
    for state in STATES {
        let mut s = in_state(state, now);
        let next = s.next;
        let same = if state == State::Init { State::Down } else { state };
        let actions = s.on_packet(now + MS, &Packet { poll: true, ..hears(same) }, WHOLE);
        let answer = actions.send;
        if state == State::AdminDown {
            // Section 6.8.6 discards it before.
            assert_eq!(answer, None);
        } else {
            let answer = answer.unwrap();
            assert!(answer.last && !answer.poll, "{state:?}");
            assert_eq!(answer.state, s.state());
            assert!(state == State::Down || s.next == next, "periodic packets are not moved");
        }
    }
}

#[test]
fn changes_while_up_wait_for_the_answer() {
    let now = Instant::now();
    let mut s = in_state(State::Up, now);
    let end = |s: &mut Session| s.on_packet(now, &Packet { last: true, ..hears(State::Up) }, WHOLE);
    let _ = end(&mut s);
    assert_eq!((s.poll, s.interval()), (Poll::None, 30 * MS));
    // A longer interval of ours, and a shorter one of the neighbour's.
    s.reconfigure(now, Settings { min_tx_us: 80_000, min_rx_us: 5_000, ..settings() }, WHOLE);
    let said = s.packet();
    assert_eq!((said.desired_min_tx_us, said.required_min_rx_us), (80_000, 5_000));
    assert_eq!((s.interval(), s.rx.used_us), (30 * MS, 20_000), "as before");
    let _ = end(&mut s);
    assert_eq!(s.poll, Poll::Due, "no packet has said it yet: that was no answer to it");
    assert!(s.on_deadline(now + 30 * MS, WHOLE).send.unwrap().poll);
    let _ = end(&mut s);
    assert_eq!((s.poll, s.interval(), s.rx.used_us), (Poll::None, 80 * MS, 5_000));
    // The other way around they count at once.
    s.reconfigure(now, Settings { min_tx_us: 40_000, min_rx_us: 9_000, ..settings() }, WHOLE);
    assert_eq!((s.poll, s.interval(), s.rx.used_us), (Poll::Due, 40 * MS, 9_000));
    assert_eq!(s.state(), State::Up);
    // While it is down all do.
    let mut s = in_state(State::Down, now);
    s.reconfigure(now, Settings { idle_tx_us: 3_000_000, min_rx_us: 1, ..settings() }, WHOLE);
    assert_eq!((s.interval(), s.rx.used_us), (Duration::from_secs(3), 1));
    // A second is the least.
    s.reconfigure(now, Settings { idle_tx_us: 5, ..settings() }, WHOLE);
    assert_eq!(s.interval(), Duration::from_secs(1));
}

#[test]
fn who_does_not_speak() {
    let t0 = Instant::now();
    // Passive: not before the neighbour, and not after it fell silent.
    let mut s = Session::new(Settings { passive: true, ..settings() }, 1, t0, 0);
    assert_eq!((s.next, ms(t0, s.deadline())), (None, Some(5000)));
    assert!(s.on_packet(t0, &hears(State::Down), 0).send.is_some());
    assert!(s.next.is_some());
    let gone = s.expiry.unwrap();
    let actions = s.on_deadline(gone, 0);
    assert_eq!((actions.change, actions.send, s.next), (Some((State::Init, State::Down)), None, None));
    // The neighbour takes none.
    let mut s = in_state(State::Up, t0);
    let _ = s.on_packet(t0, &Packet { required_min_rx_us: 0, ..hears(State::Up) }, 0);
    assert_eq!(s.next, None);
    assert!(s.on_packet(t0, &Packet { required_min_rx_us: 0, poll: true, ..hears(State::Up) }, 0).send.is_some());
    let _ = s.on_packet(t0, &hears(State::Up), 0);
    assert!(s.next.is_some());
    // It demands none, but for our poll.
    let demand = Packet { demand: true, ..hears(State::Up) };
    let _ = s.on_packet(t0, &demand, 0);
    assert!(s.next.is_some() && s.poll == Poll::Sent);
    let _ = s.on_packet(t0, &Packet { last: true, ..demand }, 0);
    assert_eq!(s.next, None);
}

#[test]
fn held_down() {
    let now = Instant::now();
    let mut s = in_state(State::Up, now);
    let actions = s.hold_down(now, true, 0);
    assert_eq!(actions.told, Some(Err(Why::of("administratively down"))));
    let sent = actions.send.unwrap();
    assert_eq!((sent.state, sent.diagnostic), (State::AdminDown, ADMINISTRATIVE));
    assert_eq!(s.hold_down(now, true, 0), Actions::default());
    assert!(s.next.is_some(), "the neighbour is told again and again");
    let actions = s.hold_down(now, false, 0);
    assert_eq!((actions.change, actions.told), (Some((State::AdminDown, State::Down)), None));
    assert_eq!(s.hold_down(now, false, 0), Actions::default());
}

#[test]
fn intervals_are_jittered() {
    let now = Instant::now();
    let s = in_state(State::Up, now);
    assert_eq!((s.jittered(0), s.jittered(WHOLE).as_millis()), (22_500 * MS / 1000, 29));
    let mut one = s.clone();
    one.settings.multiplier = 1;
    assert_eq!(one.jittered(0), 22_500 * MS / 1000);
    assert!(one.jittered(WHOLE) <= 27 * MS);
    // Packets that come draw no new number.
    let mut s = s;
    for random in [0, 1 << 62, 5] {
        let next = s.next;
        let _ = s.on_packet(now, &hears(State::Up), random);
        assert_eq!(s.next, next);
    }
}

#[test]
fn settings_fit_a_packet() {
    let bfd = Bfd { min_tx: Duration::MAX, min_rx: 3 * MS, idle_tx: MS, multiplier: 0, ..Bfd::default() };
    let settings = Settings::from(&bfd);
    assert_eq!((settings.min_tx_us, settings.min_rx_us, settings.idle_tx_us), (u32::MAX, 3000, 1_000_000));
    assert_eq!(settings.multiplier, 1);
}

/// Two sessions and what is between them: 1 ms, and losses.
struct Net {
    now: Instant,
    sessions: [Session; 2],
    /// Under way: to whom, by arrival.
    packets: BTreeMap<(Instant, u64), (usize, Packet)>,
    count: u64,
    seed: u64,
    /// Packets lost, of 1000; either way.
    loss: [u64; 2],
    sent: [u32; 2],
    changes: Vec<(usize, State)>,
    told: [Option<bool>; 2],
}

impl Net {
    fn new(settings: [Settings; 2], seed: u64) -> Self {
        let now = Instant::now();
        let session = |n: u32| Session::new(settings[n as usize], 100 + n, now, seed);
        Self {
            now,
            sessions: [session(0), session(1)],
            packets: BTreeMap::new(),
            count: 0,
            seed,
            loss: [0, 0],
            sent: [0, 0],
            changes: Vec::new(),
            told: [None, None],
        }
    }
    /// xorshift64*.
    fn random(&mut self) -> u64 {
        self.seed ^= self.seed >> 12;
        self.seed ^= self.seed << 25;
        self.seed ^= self.seed >> 27;
        self.seed.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    fn carry_out(&mut self, who: usize, actions: Actions) {
        self.changes.extend(actions.change.map(|(_, to)| (who, to)));
        if let Some(told) = actions.told {
            self.told[who] = Some(told.is_ok());
        }
        if let Some(packet) = actions.send {
            self.sent[who] += 1;
            self.count += 1;
            if (self.random() >> 32) % 1000 >= self.loss[who] {
                let packet = Packet::parse(&packet.emit()).unwrap();
                self.packets.insert((self.now + MS, self.count), (1 - who, packet));
            }
        }
    }
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let arrival = self.packets.keys().next().map(|(at, _)| *at);
            let timers = self.sessions.iter().filter_map(Session::deadline);
            let Some(next) = timers.chain(arrival).min().filter(|at| *at <= end) else { break };
            self.now = self.now.max(next);
            let random = self.random();
            if arrival == Some(next) {
                let (_, (to, packet)) = self.packets.pop_first().unwrap();
                let own = self.sessions[to].discriminator();
                find(&packet, |name| (name == own).then_some(()), || Some(())).unwrap();
                let actions = self.sessions[to].on_packet(self.now, &packet, random);
                self.carry_out(to, actions);
            } else {
                for who in 0..2 {
                    if self.sessions[who].deadline().is_some_and(|at| at <= self.now) {
                        let actions = self.sessions[who].on_deadline(self.now, random);
                        self.carry_out(who, actions);
                    }
                }
            }
        }
        self.now = end;
    }
    fn states(&self) -> [State; 2] {
        [self.sessions[0].state(), self.sessions[1].state()]
    }
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn two_sessions(
        seed in 1..u64::MAX, passive in any::<bool>(), multipliers in (1..8u8, 1..8u8), rx in 5_000..60_000u32,
    ) {
        let one = Settings { passive, multiplier: multipliers.0, ..settings() };
        let other = Settings { min_rx_us: rx, min_tx_us: 15_000, multiplier: multipliers.1, ..settings() };
        let mut net = Net::new([one, other], seed);
        net.run(seconds(3));
        prop_assert_eq!(net.states(), [State::Up; 2]);
        prop_assert_eq!(net.told, [Some(true); 2]);
        // Once up and without a loss it stays up, at the pace that both can take, and the polls have ended.
        let (changes, sent) = (net.changes.len(), net.sent);
        net.run(seconds(20));
        prop_assert_eq!(net.changes.len(), changes);
        for (who, interval_us) in [(0, rx.max(10_000)), (1, 20_000)] {
            prop_assert_eq!(net.sessions[who].poll, Poll::None);
            let packets = net.sent[who] - sent[who];
            let most = 20_000_000 / (interval_us * 3 / 4) + 2;
            let least = 20_000_000 / interval_us - 2;
            prop_assert!((least..=most).contains(&packets), "{packets} packets of {least} to {most}");
        }
        // The way is cut: each is down when its detection time is over.
        net.loss = [1000, 1000];
        let longest = Duration::from_micros(u64::from(rx.max(20_000)) * 8) + 2 * MS;
        net.run(longest);
        prop_assert_eq!(net.states(), [State::Down; 2]);
        prop_assert_eq!(net.told, [Some(false); 2]);
        let sent = net.sent;
        net.run(seconds(20));
        prop_assert!((0..2).all(|who| net.sent[who] - sent[who] <= 28), "slow: {:?}", net.sent);
        net.loss = [0, 0];
        net.run(seconds(3));
        prop_assert_eq!(net.states(), [State::Up; 2]);
    }

    /// One way only: who hears nothing says so, and both are down; then it stays so.
    #[test]
    fn one_way_is_no_way(seed in 1..u64::MAX) {
        let mut net = Net::new([settings(), settings()], seed);
        net.run(seconds(3));
        net.loss = [1000, 0];
        net.run(seconds(10));
        prop_assert!(net.states().iter().all(|state| *state != State::Up));
        prop_assert_eq!(net.told, [Some(false); 2]);
        net.loss = [0, 0];
        net.run(seconds(3));
        prop_assert_eq!(net.states(), [State::Up; 2]);
    }

    /// With losses it comes up all the same, and up is never believed by one side for long.
    #[test]
    fn with_losses(seed in 1..u64::MAX, loss in 0..400u64) {
        let mut net = Net::new([settings(), settings()], seed);
        net.loss = [loss, loss];
        net.run(seconds(60));
        prop_assert!(net.changes.contains(&(0, State::Up)) && net.changes.contains(&(1, State::Up)));
        net.loss = [0, 0];
        net.run(seconds(4));
        prop_assert_eq!(net.states(), [State::Up; 2]);
    }

    /// Whatever comes: it answers within bounds, and its timers are sound.
    #[test]
    fn any_packets(seed in 1..u64::MAX, bytes in prop::collection::vec(prop::array::uniform24(any::<u8>()), 1..60)) {
        let mut net = Net::new([settings(), settings()], seed);
        for mut packet in bytes {
            (packet[0], packet[3]) = (0x20 | packet[0] & 0x1f, 24);
            packet[1] &= !5;
            let Ok(packet) = Packet::parse(&packet) else { continue };
            let before = net.sessions[0].state();
            let actions = net.sessions[0].on_packet(net.now, &packet, seed);
            prop_assert_eq!(actions.change.map_or(before, |(_, to)| to), net.sessions[0].state());
            prop_assert!(net.sessions[0].deadline().is_some_and(|at| at >= net.now || net.sessions[0].sent.is_none()));
        }
    }
}
