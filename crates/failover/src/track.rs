//! What a virtual router depends on: interfaces, scripts, files, processes, BFD sessions. Each is up or
//! down, or a number; together they say whether the router is in fault and what its priority is
//! (keepalived's `track_*` and `weight`).

use crate::parameters::OWNER;

/// What is known of a tracked object.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum State {
    /// Nothing yet: no effect. (`init_fail` begins with [`State::Down`].)
    #[default]
    Unknown,
    /// Up.
    Up,
    /// Down.
    Down,
    /// A tracked file's number.
    Number(i32),
}

/// One tracked object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tracked {
    /// -253 to 253 (files: 254). 0: down is a fault. Positive: added while up. Negative: taken off while
    /// down. A file's number is multiplied by it; with 0 any number but 0 is a fault.
    pub weight: i16,
    /// `reverse`: up and down change places in faults, and the weight its sign.
    pub reverse: bool,
    /// What is known.
    pub state: State,
}

impl Tracked {
    /// An object of which nothing is known yet.
    pub const fn new(weight: i16, reverse: bool) -> Self {
        Self { weight, reverse, state: State::Unknown }
    }

    /// What it does: `None` is a fault.
    fn effect(self) -> Option<i64> {
        let sign = if self.reverse { -1 } else { 1 };
        let weight = i64::from(self.weight);
        match self.state {
            State::Unknown => Some(0),
            State::Up if weight == 0 => (!self.reverse).then_some(0),
            State::Down if weight == 0 => self.reverse.then_some(0),
            State::Up => Some(weight.max(0) * sign),
            State::Down => Some(weight.min(0) * sign),
            State::Number(number) if weight == 0 => ((number == 0) != self.reverse).then_some(0),
            // A file that says -254 is a fault, whatever the others say (keepalived).
            State::Number(number) => Some(i64::from(number) * weight * sign).filter(|effect| *effect > -254),
        }
    }
}

/// What all tracked objects together say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Something that the router needs is down.
    Fault,
    /// This is its priority.
    Priority(u8),
}

/// The tracked objects of one router.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tracker {
    objects: Vec<Tracked>,
}

impl Tracker {
    /// Tracks these; their order is their name.
    pub const fn new(objects: Vec<Tracked>) -> Self {
        Self { objects }
    }

    /// Something was learned of an object. Whether it is new.
    pub fn learn(&mut self, object: usize, state: State) -> bool {
        match self.objects.get_mut(object) {
            Some(tracked) if tracked.state != state => {
                tracked.state = state;
                true
            }
            _ => false,
        }
    }

    /// The objects.
    pub fn objects(&self) -> &[Tracked] {
        &self.objects
    }

    /// What follows for a router of this configured priority: 1 to 254, but an owner stays one.
    pub fn verdict(&self, priority: u8) -> Verdict {
        let mut sum = i64::from(priority);
        for object in &self.objects {
            let Some(effect) = object.effect() else { return Verdict::Fault };
            sum += effect;
        }
        if priority == OWNER {
            return Verdict::Priority(OWNER);
        }
        Verdict::Priority(u8::try_from(sum.clamp(1, i64::from(OWNER) - 1)).unwrap_or(1))
    }
}

/// A script's results, counted: so many in a row until it is up or down (`rise`, `fall`). The very
/// first result counts at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RiseFall {
    rise: u32,
    fall: u32,
    state: State,
    /// Results in a row that say otherwise.
    against: u32,
}

impl RiseFall {
    /// `rise` and `fall` of 0 are taken for 1. With `init_fail` it is down before the first result.
    pub const fn new(rise: u32, fall: u32, init_fail: bool) -> Self {
        let state = if init_fail { State::Down } else { State::Unknown };
        Self { rise, fall, state, against: 0 }
    }

    /// What it is now.
    pub const fn state(&self) -> State {
        self.state
    }

    /// A result. What it is from now on, if that changed.
    pub fn result(&mut self, succeeded: bool) -> Option<State> {
        let (says, need) = if succeeded { (State::Up, self.rise) } else { (State::Down, self.fall) };
        if says == self.state {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(1);
        if self.against < need && self.state != State::Unknown {
            return None;
        }
        self.against = 0;
        self.state = says;
        Some(says)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// weight, reverse, state: what becomes of priority 100.
    #[test]
    fn an_object_has_its_effect() {
        use State::{Down, Number, Unknown, Up};
        use Verdict::{Fault, Priority};
        #[rustfmt::skip]
        let cases = [
            (0,    false, Unknown,      Priority(100)),
            (0,    false, Up,           Priority(100)),
            (0,    false, Down,         Fault),
            (0,    true,  Up,           Fault),
            (0,    true,  Down,         Priority(100)),
            (20,   false, Unknown,      Priority(100)),
            (20,   false, Up,           Priority(120)),
            (20,   false, Down,         Priority(100)),
            (20,   true,  Up,           Priority(80)),
            (-20,  false, Up,           Priority(100)),
            (-20,  false, Down,         Priority(80)),
            (-20,  true,  Down,         Priority(120)),
            (253,  false, Up,           Priority(254)),
            (-253, false, Down,         Priority(1)),
            (2,    false, Number(10),   Priority(120)),
            (-2,   false, Number(10),   Priority(80)),
            (2,    true,  Number(10),   Priority(80)),
            (1,    false, Number(-253), Priority(1)),
            (1,    false, Number(-254), Fault),
            (0,    false, Number(0),    Priority(100)),
            (0,    false, Number(1),    Fault),
            (0,    true,  Number(1),    Priority(100)),
            (254,  false, Number(i32::MAX), Priority(254)),
        ];
        for (weight, reverse, state, want) in cases {
            let tracker = Tracker::new(vec![Tracked { weight, reverse, state }]);
            assert_eq!(tracker.verdict(100), want, "{weight} {reverse} {state:?}");
        }
    }

    #[test]
    fn effects_add_up_and_an_owner_stays_one() {
        let mut tracker =
            Tracker::new(vec![Tracked::new(-200, false), Tracked::new(150, false), Tracked::new(0, false)]);
        assert!(tracker.learn(0, State::Down) && tracker.learn(1, State::Up));
        assert!(!tracker.learn(1, State::Up) && !tracker.learn(9, State::Up));
        // Not clamped on the way: 100 - 200 + 150.
        assert_eq!(tracker.verdict(100), Verdict::Priority(50));
        assert_eq!(tracker.verdict(255), Verdict::Priority(255));
        tracker.learn(2, State::Down);
        assert_eq!(tracker.verdict(255), Verdict::Fault);
    }

    /// rise 2, fall 3; each result and what changes.
    #[test]
    fn results_are_counted() {
        use State::{Down, Up};
        let run = |mut script: RiseFall, results: &[(bool, Option<State>)]| {
            for (i, (result, want)) in results.iter().enumerate() {
                assert_eq!(script.result(*result), *want, "result {i}");
            }
        };
        #[rustfmt::skip]
        run(RiseFall::new(2, 3, false), &[
            (true, Some(Up)), (false, None), (false, None), (true, None),
            (false, None), (false, None), (false, Some(Down)), (false, None),
            (true, None), (false, None), (true, None), (true, Some(Up)),
        ]);
        run(RiseFall::new(2, 3, false), &[(false, Some(Down)), (true, None), (true, Some(Up))]);
        run(RiseFall::new(2, 3, true), &[(false, None), (true, None), (true, Some(Up))]);
    }

    proptest! {
        /// A flip takes exactly as many equal results in a row, ending here, as the counter says.
        #[test]
        fn up_and_down_are_runs(results in proptest::collection::vec(any::<bool>(), 1..60), rise in 1u32..5, fall in 1u32..5) {
            let mut script = RiseFall::new(rise, fall, true);
            for end in 1..=results.len() {
                let last = results[end - 1];
                let run = results[..end].iter().rev().take_while(|r| **r == last).count();
                let before = script.state();
                let changed = script.result(last);
                let (want, need) = if last { (State::Up, rise) } else { (State::Down, fall) };
                prop_assert_eq!(changed.is_some(), before != want && run >= need as usize);
            }
        }
    }
}
