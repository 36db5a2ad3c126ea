//! What stands otherwise in IPVS's tables than in ours, on purpose: connections that IPVS
//! still has although their time is over (rules `reuse` and `timer`), until they go there
//! too. Each was foreseen by set-up and input; it must account for the whole difference.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use dirigent_config::{Method, Model, Settings};
use dirigent_director::tcp;

use super::bed;
use super::compare::{compare_rows, same_rows, seconds};
use super::executor::{Executor, Row};
use super::sched::whose;
use super::script::Loads;

/// A connection's client and service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The client.
    pub client: (IpAddr, u16),
    /// The service.
    pub service: (IpAddr, u16),
}

impl fmt::Display for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |(address, port)| SocketAddr::new(address, port);
        write!(f, "{} > {}", place(self.client), place(self.service))
    }
}

/// A connection that IPVS has, and we do not, or not so.
#[derive(Clone, Debug)]
struct Entry {
    rule: &'static str,
    ends: Ends,
    /// Its state there.
    state: String,
    /// Its server there, and whether it counts as active.
    there: (IpAddr, bool),
    /// The same here, once it was opened anew.
    here: Option<(IpAddr, bool)>,
    /// In this step and the tables after it only.
    brief: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Apart(Vec<Entry>);

fn active(row: &Row) -> bool {
    tcp::NAMES.iter().position(|name| *name == row[1]).is_some_and(|state| tcp::active(state as u8))
}

/// Seconds that a connection in the row's state lives.
fn lifetime(row: &Row, settings: &Settings) -> i64 {
    let state = tcp::NAMES.iter().position(|name| *name == row[1]);
    let time = match (row[0].as_str(), state.and_then(|state| settings.timeouts.tcp.by_state().get(state).copied())) {
        ("TCP", Some(time)) => time,
        _ => settings.timeouts.udp,
    };
    time.as_secs() as i64
}

/// Whether a client's packet ends its connection at once (ipvs-semantics §0 step 5, §3.8).
fn is_ended(row: &Row, server: IpAddr, opens: bool, model: &Model) -> bool {
    let settings = model.settings();
    let mut servers = model.services().iter().flat_map(|service| &service.servers);
    let server = servers.find(|of| of.address == server);
    let left = match server {
        None => true,
        Some(server) => opens && server.weight == 0,
    };
    let unanswered = server.is_some_and(|server| server.method != Method::Nat);
    let reused = match row[1].as_str() {
        "TIME_WAIT" | "CLOSE" | "CLOSED" => settings.conn_reuse_mode != 0,
        "FIN_WAIT" => settings.conn_reuse_mode & 2 != 0 && unanswered,
        _ => false,
    };
    (settings.expire_nodest_conn && left) || (opens && reused)
}

impl Apart {
    /// Another step than a table begins.
    pub fn next_step(&mut self) {
        self.0.retain(|entry| !entry.brief);
    }

    /// A packet of a client is about to come; `opens`: it may open a connection. If it ends
    /// the one of these ends, IPVS has that for a tick more (`reuse`).
    pub fn comes(
        &mut self,
        ends: &Ends,
        opens: bool,
        model: &Model,
        executor: &mut dyn Executor,
    ) -> Result<(), String> {
        for row in executor.conns()? {
            let Some((of, server)) = whose(&row).filter(|(of, _)| of == ends) else { continue };
            if is_ended(&row, server, opens, model) {
                let (state, there) = (row[1].clone(), (server, active(&row)));
                self.0.push(Entry { rule: "reuse", ends: of, state, there, here: None, brief: true });
            }
        }
        Ok(())
    }

    /// So much time is about to pass. What it ends IPVS may have a little longer: its timers
    /// come up to an eighth too late (`timer`).
    pub fn slept(&mut self, time: u32, settings: &Settings, executor: &mut dyn Executor) -> Result<(), String> {
        for row in executor.conns()? {
            let (Some((ends, server)), Some(left)) = (whose(&row), seconds(&row[2])) else { continue };
            let late = i64::from(time) - left;
            if (0..=lifetime(&row, settings) / 8).contains(&late) {
                let (state, there) = (row[1].clone(), (server, active(&row)));
                self.0.push(Entry { rule: "timer", ends, state, there, here: None, brief: false });
            }
        }
        Ok(())
    }

    /// A packet that opens connections went from one server, as recorded, to another: fine
    /// if it opened anew here what IPVS still has. The rule, or `None`: it is not fine.
    pub fn moved(&mut self, ends: &Ends, there: &str, here: u8) -> Option<&'static str> {
        let late = |entry: &&mut Entry| entry.ends == *ends && !entry.brief && entry.here.is_none();
        let entry = self.0.iter_mut().find(late)?;
        if bed::server_name(entry.there.0) != there {
            return None;
        }
        entry.here = Some((bed::server(here, ends.client.0.is_ipv6()), entry.there.1));
        Some(entry.rule)
    }

    /// Whether the loads are the same but for the connections that are apart: with the rule,
    /// if any are. `None`: they are not.
    pub fn same_loads(&mut self, expected: &Loads, got: &Loads) -> Option<Option<&'static str>> {
        // Of a server that was removed loads say nothing.
        let is_listed = |entry: &Entry| expected.0.iter().any(|(known, _)| *known == bed::server_name(entry.there.0));
        if expected == got {
            self.0.retain(|entry| !is_listed(entry));
            return Some(None);
        }
        let mut ours = expected.clone();
        for Entry { there, here, .. } in self.0.iter().filter(|entry| is_listed(entry)) {
            count(&mut ours, there, |n| n.checked_sub(1))?;
            if let Some(here) = here {
                count(&mut ours, here, |n| n.checked_add(1))?;
            }
        }
        (ours == *got).then(|| self.0.first().map(|entry| entry.rule))
    }

    /// The same of tables: rows whose time is over may be missing.
    pub fn same_rows(&mut self, expected: &[Row], got: &[Row]) -> Result<Option<&'static str>, String> {
        if same_rows(expected, got) {
            self.0.clear();
            return Ok(None);
        }
        let mut ours = expected.to_vec();
        for Entry { ends, state, there, here, .. } in &self.0 {
            let is_it = |row: &Row| whose(row).is_some_and(|(of, server)| of == *ends && server == there.0);
            match here {
                None => ours.retain(|row| !(is_it(row) && row[1] == *state && row[2] == "00:00")),
                Some(here) => {
                    for row in ours.iter_mut().filter(|row| is_it(row)) {
                        let port = row[5].rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or_default();
                        row[5] = SocketAddr::new(here.0, port).to_string();
                    }
                }
            }
        }
        match self.0.first() {
            Some(entry) if same_rows(&ours, got) => Ok(Some(entry.rule)),
            _ => compare_rows(expected, got).map(|()| None),
        }
    }
}

/// Changes a server's count.
fn count(loads: &mut Loads, (server, active): &(IpAddr, bool), change: impl Fn(u32) -> Option<u32>) -> Option<()> {
    let name = bed::server_name(*server);
    let (_, all) = loads.0.iter_mut().find(|(known, _)| *known == name)?;
    let counts = all.first_mut()?;
    let n = if *active { &mut counts[1] } else { &mut counts[2] };
    *n = change(*n)?;
    Some(())
}
