use super::*;
use proptest::prelude::*;

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);
/// A random number that takes half of everything.
const HALF: u64 = 1 << 63;

fn settings(retries: u32, rise: u32) -> Settings {
    let pace =
        Pace { interval: 10 * S, jitter: 2 * S, timeout: 3 * S, retries, retry_interval: 500 * MS, warmup: None, rise };
    Settings { pace, start_down: false, parts: 1 }
}

fn fail() -> Outcome {
    Err(Why::of("refused"))
}

fn ok() -> Outcome {
    Ok(Weight::Keep)
}

/// A machine, its clock, and no randomness.
struct Rig {
    m: Machine,
    now: Instant,
    t0: Instant,
}

impl Rig {
    fn new(settings: Settings) -> Self {
        let now = Instant::now();
        let mut m = Machine::new(settings);
        m.start(now, 0);
        Self { m, now, t0: now }
    }
    /// Waits for the next attempt, which ends at once.
    fn attempt(&mut self, outcome: Outcome) -> Actions {
        self.now = self.m.deadline().unwrap();
        let probe = self.m.on_deadline(self.now, 0).probe.unwrap();
        self.m.on_result(self.now, probe.number, outcome, 0)
    }
    fn begin(&mut self) -> Attempt {
        self.now = self.m.deadline().unwrap();
        self.m.on_deadline(self.now, 0).probe.unwrap()
    }
    /// Milliseconds until the deadline.
    fn wait(&self) -> u128 {
        self.m.deadline().unwrap().duration_since(self.now).as_millis()
    }
    fn at(&self) -> u128 {
        self.now.duration_since(self.t0).as_millis()
    }
}

/// `+` a success, `-` a failure; after each: u, d, and capitals where it changed. Then the milliseconds to the next.
fn play(settings: Settings, results: &str) -> (String, Vec<u128>) {
    let mut rig = Rig::new(settings);
    let step = |c: char| {
        let actions = rig.attempt(if c == '+' { ok() } else { fail() });
        let letter = if rig.m.is_up() { 'u' } else { 'd' };
        let letter = if actions.change.is_some() { letter.to_ascii_uppercase() } else { letter };
        (letter, rig.wait())
    };
    results.chars().map(step).unzip()
}

#[test]
fn the_table_of_results() {
    for (retries, rise, results, states) in [
        // The first failure after the start is enough, retries or not.
        (1, 1, "-", "D"),
        (9, 1, "-+", "DU"),
        (9, 3, "-+++", "DddU"),
        // The first success needs no rise.
        (1, 3, "+", "U"),
        // One failure more than retries.
        (0, 1, "+-", "UD"),
        (1, 1, "+--", "UuD"),
        (3, 1, "+----+", "UuuuDU"),
        // A run begins anew: neither successes nor failures are added up (haproxy#1963, #2866).
        (1, 1, "+-+-+-+-+-+-", "Uuuuuuuuuuuu"),
        (2, 1, "+--+--+---", "UuuuuuuuuD"),
        (0, 2, "+-+-+-+-++", "UDdddddddU"),
        (0, 3, "-++-++-+++", "DddddddddU"),
        (1, 2, "-++-+--++", "DdUuuuDdU"),
        // A rise of 0, which no configuration has, is as 1.
        (0, 0, "-+", "DU"),
    ] {
        assert_eq!(play(settings(retries, rise), results).0, states, "retries {retries}, rise {rise}: {results}");
    }
}

#[test]
fn waits() {
    // Interval while it is up, the shorter one for tries, interval while it is down.
    assert_eq!(play(settings(2, 2), "+---++").1, [10_000, 500, 500, 10_000, 10_000, 10_000]);
    // No pause between tries is one of a millisecond.
    let mut hasty = settings(1, 1);
    hasty.pace.retry_interval = Duration::ZERO;
    assert_eq!(play(hasty, "+-").1, [10_000, 1]);
}

#[test]
fn warmup_and_jitter_are_shares() {
    let now = Instant::now();
    let wait = |m: &Machine| m.deadline().map(|at| at.duration_since(now));
    let mut m = Machine::new(settings(1, 1));
    assert_eq!(m.deadline(), None);
    m.start(now, HALF);
    assert_eq!(wait(&m), Some(5 * S), "half of the interval");
    m.start(now + S, 0);
    assert_eq!(wait(&m), Some(5 * S), "it has begun");
    let mut warm = settings(1, 1);
    warm.pace.warmup = Some(S);
    let mut m = Machine::new(warm.clone());
    m.start(now, HALF);
    assert_eq!(wait(&m), Some(500 * MS));
    let probe = m.on_deadline(now + 500 * MS, 0).probe.unwrap();
    assert_eq!(wait(&m), Some(3500 * MS), "the timeout");
    let _ = m.on_result(now + 700 * MS, probe.number, ok(), HALF);
    assert_eq!(wait(&m), Some(11_500 * MS), "interval from the start, and half of the jitter");
    warm.pace.warmup = Some(Duration::ZERO);
    let mut m = Machine::new(warm);
    m.start(now, u64::MAX);
    assert_eq!(wait(&m), Some(Duration::ZERO));
}

#[test]
fn start_down_is_down_until_the_first_success() {
    let mut rig = Rig::new(Settings { start_down: true, ..settings(1, 3) });
    assert_eq!((rig.m.health(), rig.m.is_up()), (Health::Unknown, false));
    assert_eq!(rig.m.why().unwrap().to_string(), "not checked yet");
    let change = rig.attempt(ok()).change.unwrap();
    assert_eq!((change.from, change.to, change.why), (Health::Unknown, Health::Up, None));
    assert!(rig.m.is_up() && rig.m.why().is_none());
    // Without it: up until the first failure.
    let mut rig = Rig::new(settings(5, 1));
    assert_eq!((rig.m.health(), rig.m.is_up(), rig.m.why()), (Health::Unknown, true, None));
    let actions = rig.attempt(fail());
    let change = actions.change.unwrap();
    assert_eq!((change.to, change.since, change.why), (Health::Down, rig.now, Some(Why::of("refused"))));
    assert_eq!(actions.failed, Some(Why::of("refused")));
    assert_eq!(rig.m.since(), Some(rig.now));
}

#[test]
fn the_last_reason_is_told() {
    let mut rig = Rig::new(settings(0, 1));
    let _ = rig.attempt(fail());
    let since = rig.m.since();
    let actions = rig.attempt(Err(Why::of("status 500")));
    assert_eq!((actions.change, rig.m.why()), (None, Some(&Why::of("status 500"))));
    assert_eq!(rig.m.since(), since);
}

#[test]
fn what_takes_too_long_has_failed() {
    // The runner noticed.
    let mut rig = Rig::new(settings(0, 1));
    let _ = rig.attempt(ok());
    let probe = rig.begin();
    assert_eq!(rig.wait(), 3000);
    assert_eq!(rig.m.on_deadline(rig.now + 2999 * MS, 0), Actions::default());
    rig.now += 3 * S;
    let actions = rig.m.on_deadline(rig.now, 0);
    assert!(actions.abandon && actions.change.unwrap().why == Some(Why::TIMEOUT));
    assert_eq!(rig.wait(), 7000, "an interval from when it began");
    // What comes of the attempt afterwards does not count.
    assert_eq!(rig.m.on_result(rig.now, probe.number, ok(), 0), Actions::default());
    assert!(!rig.m.is_up());
    // The runner was late itself.
    let mut rig = Rig::new(settings(0, 1));
    let probe = rig.begin();
    let actions = rig.m.on_result(rig.now + 3 * S + MS, probe.number, ok(), 0);
    assert!(!actions.abandon && actions.failed == Some(Why::TIMEOUT));
    // At the last moment.
    let mut rig = Rig::new(settings(0, 1));
    let probe = rig.begin();
    assert_eq!(rig.m.on_result(rig.now + 3 * S, probe.number, ok(), 0).failed, None);
    assert!(rig.m.is_up());
}

#[test]
fn attempts_that_outlast_the_interval_follow_each_other() {
    let mut slow = settings(0, 1);
    slow.pace.interval = S;
    let mut rig = Rig::new(slow);
    let probe = rig.begin();
    rig.now += 2 * S;
    let _ = rig.m.on_result(rig.now, probe.number, ok(), 0);
    assert_eq!(rig.wait(), 0);
}

#[test]
fn only_the_attempt_that_is_made_counts() {
    let mut rig = Rig::new(settings(0, 1));
    let probe = rig.begin();
    assert_eq!(rig.m.on_result(rig.now, probe.number + 1, fail(), 0), Actions::default());
    let _ = rig.m.on_result(rig.now, probe.number, ok(), 0);
    assert_eq!(rig.m.on_result(rig.now, probe.number, fail(), 0), Actions::default(), "twice");
    assert!(rig.m.is_up());
}

#[test]
fn a_suspicion_brings_the_next_attempt_forward() {
    let mut rig = Rig::new(settings(1, 1));
    let _ = rig.attempt(ok());
    // Right after an attempt: not before tries would follow each other.
    rig.m.suspect(rig.now);
    assert_eq!(rig.wait(), 500);
    let _ = rig.attempt(ok());
    assert_eq!(rig.wait(), 10_000);
    // Later: at once, and never later than it would have been.
    rig.now += 4 * S;
    rig.m.suspect(rig.now);
    assert_eq!(rig.wait(), 0);
    // During an attempt: another follows.
    let probe = rig.begin();
    rig.now += S;
    rig.m.suspect(rig.now);
    let _ = rig.m.on_result(rig.now, probe.number, ok(), 0);
    assert_eq!(rig.wait(), 0);
    let _ = rig.attempt(ok());
    assert_eq!(rig.wait(), 10_000, "the suspicion is settled");
    // A storm of them makes no storm of attempts.
    let (mut attempts, end) = (0, rig.now + 10 * S);
    while rig.now < end {
        rig.now += MS;
        rig.m.suspect(rig.now);
        if rig.m.deadline().unwrap() <= rig.now {
            let _ = rig.attempt(ok());
            attempts += 1;
        }
    }
    assert_eq!(attempts, 20);
    // One that has not begun or rests is not roused.
    let mut m = Machine::new(settings(1, 1));
    m.suspect(rig.now);
    assert_eq!(m.deadline(), None);
}

#[test]
fn pausing_keeps_what_is_known() {
    let mut rig = Rig::new(settings(1, 2));
    let _ = (rig.attempt(ok()), rig.attempt(fail()));
    let probe = rig.begin();
    assert!(rig.m.pause().abandon && rig.m.is_paused());
    assert_eq!(rig.m.deadline(), None);
    rig.m.suspect(rig.now);
    assert_eq!(rig.m.on_result(rig.now, probe.number, fail(), 0), Actions::default());
    assert_eq!(rig.m.on_deadline(rig.now + 99 * S, 0), Actions::default());
    assert!(!rig.m.pause().abandon);
    rig.now += 100 * S;
    rig.m.resume(rig.now, HALF);
    assert!(rig.m.is_up());
    assert_eq!(rig.wait(), 5000, "as at the start");
    assert_eq!(rig.attempt(fail()).change, None, "the run of failures began anew");
    let _ = (rig.attempt(fail()), rig.attempt(ok()), rig.m.pause());
    rig.m.resume(rig.now, 0);
    assert_eq!(rig.attempt(ok()).change, None, "and that of successes");
    assert!(rig.attempt(ok()).change.is_some());
    // Paused before it began.
    let mut m = Machine::new(settings(1, 1));
    let _ = m.pause();
    m.start(rig.now, 0);
    assert_eq!(m.deadline(), None);
    m.resume(rig.now, 0);
    assert_eq!(m.deadline(), Some(rig.now));
}

#[test]
fn other_settings_keep_the_state() {
    let mut rig = Rig::new(settings(3, 1));
    let _ = (rig.attempt(ok()), rig.attempt(fail()), rig.attempt(fail()));
    let mut other = settings(2, 1);
    other.pace.interval = S;
    other.pace.retry_interval = 100 * MS;
    rig.m.reconfigure(rig.now, other.clone(), 0);
    assert_eq!(rig.wait(), 100, "the tries come by the new pace");
    assert!(rig.attempt(fail()).change.is_some(), "two failures before are remembered");
    let slower = settings(2, 1);
    rig.m.reconfigure(rig.now, slower, 0);
    assert_eq!(rig.wait(), 1000, "a longer interval does not delay what was due");
    rig.m.reconfigure(rig.now, other, HALF);
    assert_eq!(rig.wait(), 1000);
    let _ = rig.begin();
    let mut hasty = settings(2, 1);
    hasty.pace.timeout = S;
    rig.m.reconfigure(rig.now, hasty.clone(), 0);
    assert_eq!(rig.wait(), 1000, "the attempt that is being made has the new timeout");
    // One that has not begun, and one before its first result.
    let mut m = Machine::new(settings(1, 1));
    m.reconfigure(rig.now, hasty.clone(), 0);
    assert_eq!(m.deadline(), None);
    m.start(rig.now, HALF);
    hasty.pace.warmup = Some(S);
    m.reconfigure(rig.now, hasty, HALF);
    assert_eq!(m.deadline(), Some(rig.now + 500 * MS));
}

#[test]
fn a_recovery_in_parts() {
    let mut rig = Rig::new(Settings { parts: 3, ..settings(0, 2) });
    assert_eq!(rig.begin().part, None);
    let _ = rig.m.on_result(rig.now, 1, fail(), 0);
    let mut parts = Vec::new();
    for result in "++-+++++".chars() {
        let probe = rig.begin();
        assert_eq!(rig.at() % 10_000, 0, "one each interval");
        parts.push(probe.part.unwrap());
        let _ = rig.m.on_result(rig.now, probe.number, if result == '+' { ok() } else { fail() }, 0);
        assert!(!rig.m.is_up());
    }
    assert_eq!(parts, [0, 1, 2, 0, 1, 2, 0, 1]);
    // Fewer parts than were made already: the last one is left.
    rig.m.reconfigure(rig.now, Settings { parts: 2, ..settings(0, 2) }, 0);
    let probe = rig.begin();
    assert_eq!(probe.part, Some(1));
    assert!(rig.m.on_result(rig.now, probe.number, ok(), 0).change.is_some());
    assert_eq!(rig.begin().part, None, "one that is up is checked whole");
}

#[test]
fn parts_are_the_requests_of_http() {
    use crate::check::{Http, Request};
    let http = |fast_recovery| Http { requests: vec![Request::default(); 3], fast_recovery, ..Http::default() };
    let parts = |probe| Settings::from(&Check::new(probe)).parts;
    assert_eq!([parts(Probe::Http(http(false))), parts(Probe::Http(http(true))), parts(Probe::Tcp)], [3, 1, 1]);
}

#[test]
fn what_tells_is_not_counted() {
    let mut m = Machine::new(settings(5, 5));
    let now = Instant::now();
    assert_eq!(m.on_told(now, fail()).change.unwrap().to, Health::Down);
    assert_eq!(m.on_told(now, fail()).change, None);
    assert_eq!(m.on_told(now, ok()).change.unwrap().to, Health::Up);
    assert_eq!(m.deadline(), None);
}

#[test]
fn weights_are_told_when_they_change() {
    let mut rig = Rig::new(settings(0, 1));
    assert!(rig.attempt(Ok(Weight::Set(3))).weighed);
    assert!(!rig.attempt(Ok(Weight::Set(3))).weighed);
    let actions = rig.attempt(Ok(Weight::Set(4)));
    assert!(actions.weighed && actions.change.is_none());
    assert!(!rig.attempt(fail()).weighed);
    assert_eq!(rig.m.weight(), Weight::Set(4));
}

#[derive(Clone, Debug)]
enum Event {
    Wait(u64),
    Deadline(u64),
    Result(bool),
    Suspect,
    Pause,
    Resume,
    Pace(u32, u32),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => (0..20_000u64).prop_map(Event::Wait),
        4 => any::<u64>().prop_map(Event::Deadline),
        4 => any::<bool>().prop_map(Event::Result),
        1 => Just(Event::Suspect),
        1 => Just(Event::Pause),
        1 => Just(Event::Resume),
        1 => (0..4u32, 0..4u32).prop_map(|(a, b)| Event::Pace(a, b)),
    ]
}

proptest! {
    /// What the table does is what the runs of results say: down after a run of retries + 1 failures, up after one of
    /// `rise` successes, and the first result alone.
    #[test]
    fn only_runs_count(retries in 0..4u32, rise in 1..4u32, results in prop::collection::vec(any::<bool>(), 1..60)) {
        let mut rig = Rig::new(settings(retries, rise));
        let mut up = None;
        for (n, &result) in results.iter().enumerate() {
            let _ = rig.attempt(if result { ok() } else { fail() });
            let run = results[..=n].iter().rev().take_while(|r| **r == result).count();
            let needed = if result { rise } else { retries + 1 };
            if up.is_none() || (up != Some(result) && run >= needed as usize) {
                up = Some(result);
            }
            prop_assert_eq!(Some(rig.m.is_up()), up, "after {:?}", &results[..=n]);
        }
    }

    /// Whatever happens: a change is one, attempts do not overlap, and one that has begun goes on.
    #[test]
    fn any_events(events in prop::collection::vec(event(), 1..80), start_down in any::<bool>()) {
        let mut rig = Rig::new(Settings { start_down, ..settings(1, 2) });
        let (mut running, mut paused) = (None, false);
        for event in events {
            let before = rig.m.health();
            let actions = match event {
                Event::Wait(ms) => { rig.now += Duration::from_millis(ms); Actions::default() }
                Event::Deadline(random) => {
                    rig.now = rig.m.deadline().unwrap_or(rig.now).max(rig.now);
                    rig.m.on_deadline(rig.now, random)
                }
                Event::Result(ok_) => {
                    let number = running.take().unwrap_or(u64::MAX);
                    rig.m.on_result(rig.now, number, if ok_ { ok() } else { fail() }, 7)
                }
                Event::Suspect => { rig.m.suspect(rig.now); Actions::default() }
                Event::Pause => { paused = true; rig.m.pause() }
                Event::Resume => { paused = false; rig.m.resume(rig.now, 7); Actions::default() }
                Event::Pace(retries, rise) => {
                    rig.m.reconfigure(rig.now, Settings { start_down, ..settings(retries, rise) }, 9);
                    Actions::default()
                }
            };
            if actions.abandon { prop_assert!(running.take().is_some()); }
            if let Some(probe) = actions.probe {
                prop_assert!(running.is_none() && !paused);
                running = Some(probe.number);
            }
            prop_assert_eq!(actions.change.is_some(), before != rig.m.health());
            prop_assert!(before == Health::Unknown || rig.m.health() != Health::Unknown);
            prop_assert_eq!(rig.m.deadline().is_none(), paused);
            prop_assert_eq!(rig.m.is_up(), rig.m.why().is_none());
        }
    }
}
