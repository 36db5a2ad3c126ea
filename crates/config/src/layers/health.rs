//! The layer above what is configured: what health checks say.
//!
//! What is in force of a service follows from what is configured and from its servers' health.
//! Servers that fail are away, or weigh nothing; without its quorum a service leaves its clients
//! to the sorry server. A server that returns becomes the newest, as with keepalived: the order
//! of a list decides ties, and those that stayed keep their places.

use crate::health::{OnFailure, Sorry};
use crate::model::{Server, Service};
use dirigent_health::{Edge, Live, Quorum, ServerState, ServiceState};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

/// What is remembered of a service between changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Whether it has its quorum.
    state: ServiceState,
    /// Servers that are configured and not in force.
    away: Vec<(IpAddr, u16)>,
    /// Those that were away and are back, in the order in which they came.
    returned: Vec<(IpAddr, u16)>,
}

impl Memory {
    /// Whether the service has its quorum.
    pub fn is_up(&self) -> bool {
        self.state.is_up()
    }
}

/// Whether health says anything about a service.
pub fn matters(service: &Service) -> bool {
    service.health.sorry.is_some() || service.servers.iter().any(|server| !server.health.checks.is_empty())
}

/// The service that is in force, with its servers as `states` has them (in the order in which they
/// are configured; of those that it lacks nothing bad is known), and whether its quorum was won or lost.
pub fn in_force(service: &Service, states: &[ServerState], memory: &mut Memory) -> (Service, Option<Edge>) {
    let state = |at: usize, server: &Server| match states.get(at) {
        Some(state) => (state.is_up(), state.weight),
        None => (true, server.weight),
    };
    let lives = service.servers.iter().enumerate().map(|(at, server)| {
        let (up, weight) = state(at, server);
        Live { up, weight: if server.draining { 0 } else { weight } }
    });
    let quorum = Quorum { quorum: service.health.quorum, hysteresis: service.health.hysteresis };
    let edge = memory.state.on_servers(quorum, lives);
    let apologizes = memory.state.sorry_serves(service.health.sorry.is_some());

    let mut servers: Vec<Server> = Vec::with_capacity(service.servers.len() + 1);
    for (at, server) in service.servers.iter().enumerate() {
        let (up, weight) = state(at, server);
        let on_failure = server.health.on_failure.unwrap_or(service.health.on_failure);
        match (up && !apologizes, on_failure) {
            (true, _) => servers.push(Server { weight, ..server.clone() }),
            (false, OnFailure::Quiesce) => servers.push(Server { weight: 0, ..server.clone() }),
            (false, OnFailure::Remove) => {}
        }
    }
    if let Some(sorry) = service.health.sorry.as_deref()
        && service.server(sorry.address, sorry.port).is_none()
        && (apologizes || sorry.on_failure == OnFailure::Quiesce)
    {
        servers.push(Server { weight: u32::from(apologizes), ..server_of(sorry) });
    }
    memory.arrange(service, &mut servers);
    (Service { servers, ..service.without_servers() }, edge)
}

fn server_of(sorry: &Sorry) -> Server {
    Server::new(sorry.address, sorry.port, sorry.method)
}

impl Memory {
    /// Puts those that came back behind the others.
    fn arrange(&mut self, service: &Service, servers: &mut [Server]) {
        let there: HashSet<_> = servers.iter().map(Server::identity).collect();
        let is_there = |id: &(IpAddr, u16)| there.contains(id);
        let back: Vec<_> = self.away.iter().filter(|id| is_there(id)).copied().collect();
        self.returned.retain(|id| is_there(id) && !back.contains(id));
        self.returned.extend(back);
        let sorry = service.health.sorry.as_deref().map(|sorry| (sorry.address, sorry.port));
        let configured = service.servers.iter().map(Server::identity).chain(sorry);
        self.away = configured.filter(|id| !is_there(id)).collect();
        // Stable: those that never went keep their order, before all that returned.
        let places: HashMap<_, _> = self.returned.iter().copied().zip(1..).collect();
        servers.sort_by_key(|server| places.get(&server.identity()).copied().unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Plan;
    use crate::testing::model;
    use dirigent_health::Why;
    use proptest::prelude::*;

    const FILE: &str = r#"version = 1
[[service]]
protocol = "tcp"
address = "192.0.2.10:80"
scheduler = "wrr"
[service.health]
quorum = 2
[[service.server]]
address = "10.0.0.2:80"
weight = 3
check = [{ type = "tcp" }]
[[service.server]]
address = "10.0.0.3:80"
on_failure = "quiesce"
check = [{ type = "tcp" }]
[[service.server]]
address = "10.0.0.4:80"
check = [{ type = "tcp" }]
"#;

    const SORRY: &str = "quorum = 2\nsorry = { address = \"10.0.0.9:80\" }";

    fn service(text: &str) -> Service {
        crate::file::parse("f", text).unwrap().services()[0].clone()
    }

    /// `2` is up, `!2` is down, `2=7` is up with weight 7.
    fn states(text: &str) -> Vec<ServerState> {
        let one = |word: &str| {
            let weight =
                word.split_once('=').map_or(if word.ends_with('2') { 3 } else { 1 }, |(_, w)| w.parse().unwrap());
            ServerState { down: word.starts_with('!').then(|| (0, Why::of("refused"))), weight }
        };
        text.split(' ').map(one).collect()
    }

    /// The servers in force by the last digit of their address, with their weights.
    fn shown(service: &Service) -> String {
        let one = |s: &Server| format!("{}={}", s.address.to_string().rsplit('.').next().unwrap(), s.weight);
        service.servers.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn servers_leave_and_return() {
        for (text, steps) in [
            (
                FILE.to_owned(),
                vec![
                    ("2 3 4", "2=3 3=1 4=1", None),
                    ("!2 3 4", "3=1 4=1", None),
                    // It returns as the newest.
                    ("2 3 4", "3=1 4=1 2=3", None),
                    ("2 !3 4", "3=0 4=1 2=3", None),
                    ("2 3 !4", "3=1 2=3", None),
                    ("2 3 4", "3=1 2=3 4=1", None),
                    ("2=7 3 4", "3=1 2=7 4=1", None),
                    // Without its quorum and without a sorry server, those that are left serve.
                    ("!2 !3 4", "3=0 4=1", Some(Edge::Down)),
                    ("!2 !3 !4", "3=0", None),
                    ("!2 3 4", "3=1 4=1", Some(Edge::Up)),
                ],
            ),
            (
                FILE.replace("quorum = 2", SORRY),
                vec![
                    ("2 3 4", "2=3 3=1 4=1", None),
                    ("!2 !3 4", "3=0 9=1", Some(Edge::Down)),
                    ("!2 !3 !4", "3=0 9=1", None),
                    ("!2 3 4", "3=1 4=1", Some(Edge::Up)),
                    ("2 3 4", "3=1 4=1 2=3", None),
                ],
            ),
            (
                FILE.replace("quorum = 2", &SORRY.replace(" }", ", on_failure = \"quiesce\" }")),
                vec![
                    ("2 3 4", "2=3 3=1 4=1 9=0", None),
                    ("!2 !3 !4", "3=0 9=1", Some(Edge::Down)),
                    ("2 3 4", "3=1 9=0 2=3 4=1", Some(Edge::Up)),
                ],
            ),
        ] {
            let service = service(&text);
            let mut memory = Memory::default();
            for (step, expected, edge) in steps {
                let (force, said) = in_force(&service, &states(step), &mut memory);
                assert_eq!((shown(&force).as_str(), said), (expected, edge), "{step} of {text}");
                assert_eq!(force.without_servers(), service.without_servers());
            }
        }
    }

    #[test]
    fn a_returned_server_that_is_configured_no_more_is_forgotten() {
        let (all, mut memory) = (service(FILE), Memory::default());
        in_force(&all, &states("!2 3 4"), &mut memory);
        in_force(&all, &states("2 3 4"), &mut memory);
        let mut fewer = all.clone();
        fewer.servers.remove(0);
        assert_eq!(shown(&in_force(&fewer, &states("3 4"), &mut memory).0), "3=1 4=1");
        // Configured anew, it stands where it is configured.
        assert_eq!(shown(&in_force(&all, &states("2 3 4"), &mut memory).0), "2=3 3=1 4=1");
    }

    proptest! {
        #[test]
        fn what_is_healthy_is_as_it_is_configured(model in model()) {
            for service in model.services() {
                let up: Vec<_> = service.servers.iter().map(|s| ServerState::of(s.weight, [])).collect();
                let bare = Service { health: crate::health::ServiceHealth { sorry: None, ..service.health.clone() }, ..service.clone() };
                prop_assert_eq!(&in_force(&bare, &up, &mut Memory::default()).0, &bare);
                prop_assert_eq!(&in_force(&bare, &[], &mut Memory::default()).0, &bare);
            }
        }

        /// Whatever health says: what is in force is a Model that may be, and a server that is up and
        /// stays so is neither removed nor moved.
        #[test]
        fn those_that_are_up_are_left_alone(model in model(), says in prop::collection::vec(any::<u8>(), 1..12)) {
            for service in model.services() {
                let mut memory = Memory::default();
                let mut before: Option<(Service, Vec<bool>)> = None;
                for (round, byte) in says.iter().enumerate() {
                    let up = |at: usize| byte >> (at % 8) & 1 == 0;
                    let states: Vec<_> = service.servers.iter().enumerate().map(|(at, s)| ServerState {
                        down: (!up(at)).then_some((0, Why::TIMEOUT)),
                        weight: s.weight,
                    }).collect();
                    let (force, _) = in_force(service, &states, &mut memory);
                    let mut may_be = crate::Model::default();
                    prop_assert!(may_be.put_service(force.clone()).is_ok(), "{force:?}");
                    let ups: Vec<_> = (0..service.servers.len()).map(up).collect();
                    if let Some((old, were)) = before.replace((force.clone(), ups.clone())) {
                        let sorry = service.health.sorry.is_some();
                        let plan = Plan::within(&old, &force);
                        for (at, server) in service.servers.iter().enumerate().filter(|(at, _)| ups[*at] && were[*at]) {
                            let touched = plan.ops.iter().any(|op| matches!(op,
                                crate::Op::RemoveServer { address, port, .. } if (*address, *port) == server.identity()));
                            prop_assert!(!touched || sorry, "round {round}, server {at}: {plan}");
                        }
                    }
                }
            }
        }
    }
}
