//! What a server's checks make of it: up only if all of them are, and with which weight.

use crate::machine::{Machine, Weight};
use crate::why::Why;

/// Largest weight that IPVS knows.
pub const MAX_WEIGHT: u32 = i32::MAX as u32;

/// One check, as far as the server is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Why it is down; none: it is up.
    pub why: Option<Why>,
    /// What it says about the weight.
    pub weight: Weight,
}

impl From<&Machine> for Finding {
    fn from(machine: &Machine) -> Self {
        Self { why: machine.why().cloned(), weight: machine.weight() }
    }
}

/// A server, as its checks have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerState {
    /// Of the first check that fails: its place in the configuration, from 0, and the reason. None: the server is up.
    pub down: Option<(usize, Why)>,
    /// The weight in force while it is up, 0 to [`MAX_WEIGHT`].
    pub weight: u32,
}

impl ServerState {
    /// A server with these checks and this configured weight. Without checks it is up.
    ///
    /// Scripts that set the weight override the configured one; of several the lowest counts, as all must pass. What
    /// files add is added to that. Below 0 it is 0: the server gets no new connections.
    pub fn of(weight: u32, checks: impl IntoIterator<Item = Finding>) -> Self {
        let (mut down, mut set, mut added) = (None, None, 0i64);
        for (place, finding) in checks.into_iter().enumerate() {
            match finding.weight {
                Weight::Keep => {}
                Weight::Set(weight) => set = Some(set.map_or(weight, |other: u32| other.min(weight))),
                Weight::Add(more) => added = added.saturating_add(more),
            }
            down = down.or(finding.why.map(|why| (place, why)));
        }
        let weight = i64::from(set.unwrap_or(weight)).saturating_add(added).clamp(0, i64::from(MAX_WEIGHT));
        Self { down, weight: u32::try_from(weight).unwrap_or(MAX_WEIGHT) }
    }

    /// Whether it is up.
    pub fn is_up(&self) -> bool {
        self.down.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Weight::{Add, Keep, Set};

    #[test]
    fn table() {
        let up = |weight| Finding { why: None, weight };
        let down = |why| Finding { why: Some(Why::of(why)), weight: Keep };
        for (weight, checks, reason, expected) in [
            (1, vec![], None, 1),
            (0, vec![], None, 0),
            (5, vec![up(Keep), up(Keep)], None, 5),
            (5, vec![up(Keep), down("refused"), down("timeout")], Some((1, "refused")), 5),
            (5, vec![up(Set(7))], None, 7),
            (5, vec![up(Set(0))], None, 0),
            (5, vec![up(Set(7)), up(Set(3)), up(Set(9))], None, 3),
            (5, vec![up(Add(10)), up(Add(-3))], None, 12),
            (5, vec![up(Set(20)), up(Add(-3))], None, 17),
            (5, vec![up(Add(-9))], None, 0),
            (5, vec![up(Add(i64::MAX)), up(Add(i64::MAX))], None, MAX_WEIGHT),
            (u32::MAX, vec![up(Add(i64::MIN)), up(Add(i64::MIN))], None, 0),
            (u32::MAX, vec![], None, MAX_WEIGHT),
        ] {
            let found = ServerState::of(weight, checks.clone());
            let down = reason.map(|(place, why)| (place, Why::of(why)));
            assert_eq!(found, ServerState { down: down.clone(), weight: expected }, "{weight} {checks:?}");
            assert_eq!(found.is_up(), down.is_none());
        }
    }
}
