//! What a service's servers make of it: whether it has its quorum, and whether the sorry server serves.

use serde::{Deserialize, Serialize};

/// How much weight must be up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quorum {
    /// Weight of live servers below which the service is down.
    pub quorum: u32,
    /// It comes up at quorum and this, and goes down below quorum less this.
    pub hysteresis: u32,
}

/// A server, as far as the quorum is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// Whether its checks pass.
    pub up: bool,
    /// Its weight in force.
    pub weight: u32,
}

/// The quorum was won or lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// `quorum_up` is due.
    Up,
    /// `quorum_down` is due.
    Down,
}

/// Whether a service is up, as it remembers.
///
/// It begins as up: a service whose servers are taken for up is none that just came up, and no script is run for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceState {
    up: bool,
}

impl Default for ServiceState {
    fn default() -> Self {
        Self { up: true }
    }
}

impl ServiceState {
    /// The servers as they are now.
    ///
    /// A service that is up needs quorum less hysteresis of live weight, and at least some; one that is down needs
    /// quorum and hysteresis. A quorum that all servers together do not reach is lowered to what they have, and so is
    /// what is needed to come up: with all servers up the service is. (keepalived lowers the quorum only, so that one
    /// with a hysteresis near it never comes back.)
    pub fn on_servers(&mut self, q: Quorum, servers: impl IntoIterator<Item = Live>) -> Option<Edge> {
        let (mut live, mut all) = (0u64, 0u64);
        for server in servers {
            let weight = u64::from(server.weight);
            all = all.saturating_add(weight);
            live = live.saturating_add(if server.up { weight } else { 0 });
        }
        let quorum = u64::from(q.quorum).min(all);
        let hysteresis = u64::from(q.hysteresis);
        let needed =
            if self.up { quorum.saturating_sub(hysteresis) } else { quorum.saturating_add(hysteresis).min(all) };
        let was = std::mem::replace(&mut self.up, live > 0 && live >= needed);
        match (was, self.up) {
            (false, true) => Some(Edge::Up),
            (true, false) => Some(Edge::Down),
            _ => None,
        }
    }

    /// Whether it has its quorum.
    pub fn is_up(self) -> bool {
        self.up
    }

    /// Who gets new connections, if there is a sorry server. Without one the servers that are left serve, with the
    /// quorum or without.
    pub fn sorry_serves(self, there_is_one: bool) -> bool {
        !self.up && there_is_one
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Weight per letter: a capital is up, a small letter down; the number is the weight of each.
    fn servers(pattern: &str, weight: u32) -> Vec<Live> {
        pattern.chars().map(|c| Live { up: c.is_ascii_uppercase(), weight }).collect()
    }

    #[test]
    fn table() {
        // Quorum, hysteresis, weight of each server; then the servers over time and what comes of it.
        for (quorum, hysteresis, weight, steps) in [
            (1, 0, 1, "AB=u Ab=u ab=D aB=U AB=u"),
            (2, 0, 1, "ABC=u aBC=u abC=D aBC=U"),
            // Lost below 2 - 1, won at 2 + 1.
            (2, 1, 1, "ABCD=u abCD=u abcD=u abcd=D abcD=d abCD=d aBCD=U abCD=u"),
            (30, 10, 10, "ABCDE=u abcDE=u abcdE=D abCDE=d aBCDE=U"),
            // More than all have: all of it is needed.
            (9, 0, 1, "ABC=u aBC=D ABC=U"),
            // Coming up would need 4 of 3.
            (3, 1, 1, "ABC=u aBC=u abC=D aBC=d ABC=U"),
            // Servers that get no new connections are no quorum, nor is none at all.
            (1, 0, 0, "AB=D AB=d"),
            (1, 0, 1, "=D A=U"),
        ] {
            let mut state = ServiceState::default();
            for step in steps.split(' ') {
                let (pattern, expected) = step.split_once('=').unwrap();
                let edge = state.on_servers(Quorum { quorum, hysteresis }, servers(pattern, weight));
                let found = match (edge, state.is_up()) {
                    (Some(Edge::Up), true) => "U",
                    (Some(Edge::Down), false) => "D",
                    (None, true) => "u",
                    (None, false) => "d",
                    other => panic!("{other:?}"),
                };
                assert_eq!(found, expected, "{step} of quorum {quorum}, hysteresis {hysteresis}");
                assert_eq!(state.sorry_serves(true), !state.is_up());
                assert!(!state.sorry_serves(false));
            }
        }
    }

    fn quorum() -> impl Strategy<Value = Quorum> {
        (1..40u32).prop_flat_map(|quorum| (0..quorum).prop_map(move |hysteresis| Quorum { quorum, hysteresis }))
    }

    fn lives() -> impl Strategy<Value = Vec<Live>> {
        prop::collection::vec((any::<bool>(), 0..9u32).prop_map(|(up, weight)| Live { up, weight }), 0..8)
    }

    proptest! {
        #[test]
        fn with_all_servers_up_it_is_up(q in quorum(), before in lives(), mut then in lives()) {
            let mut state = ServiceState::default();
            state.on_servers(q, before);
            then.iter_mut().for_each(|server| server.up = true);
            let any = then.iter().any(|server| server.weight > 0);
            state.on_servers(q, then);
            prop_assert_eq!(state.is_up(), any);
        }

        /// Whatever the servers were before: the same servers again change nothing, and one server that wobbles, of
        /// no more weight than twice the hysteresis, changes the service once at most. (That holds where quorum and
        /// hysteresis can be reached: here by a server that is down.)
        #[test]
        fn no_flapping_within_the_hysteresis(
            q in quorum(), before in lives(), mut steady in lives(), part in any::<prop::sample::Index>(),
            wobbles in prop::collection::vec(any::<bool>(), 1..20),
        ) {
            prop_assume!(q.hysteresis > 0);
            let weight = 1 + part.index(2 * q.hysteresis as usize) as u32;
            steady.push(Live { up: false, weight: q.quorum + q.hysteresis });
            let mut state = ServiceState::default();
            state.on_servers(q, before);
            let mut edges = 0;
            for up in wobbles {
                let now = || steady.iter().copied().chain([Live { up, weight }]);
                edges += u32::from(state.on_servers(q, now()).is_some());
                prop_assert_eq!(state.on_servers(q, now()), None);
            }
            prop_assert!(edges <= 1);
        }

        #[test]
        fn edges_are_changes(q in quorum(), steps in prop::collection::vec(lives(), 1..20)) {
            let mut state = ServiceState::default();
            for step in steps {
                let before = state.is_up();
                let edge = state.on_servers(q, step);
                prop_assert_eq!(edge.is_some(), before != state.is_up());
                prop_assert_eq!(edge == Some(Edge::Up), !before && state.is_up());
            }
        }
    }

    #[test]
    fn sums_do_not_overflow() {
        let mut state = ServiceState::default();
        let q = Quorum { quorum: u32::MAX, hysteresis: u32::MAX - 1 };
        assert_eq!(state.on_servers(q, [Live { up: true, weight: u32::MAX }; 9]), None);
    }
}
