//! Recordings of states (`oracle/golden/states`), in two formats. What a packet does in a state:
//! the state after it, the time left, whether it passed, and what the server's counters do. And
//! how long each state lasts. Frames are those of the oracle's gold_states.py.

use std::collections::BTreeMap;
use std::net::IpAddr;

use dirigent_config::Model;
use serde::Deserialize;

use super::bed::{self, Bed, Side};
use super::compare::seconds;
use super::directory::{Unsupported, not_run};
use super::executor::{Executor, Load, Row, told};
use super::host::outcome;
use super::report::{Mismatch, Ran};
use super::setup::{self, NoSetup};
use crate::packet::{self as build, IpOptions, Tcp, flag, proto};

/// The one service, its server's port, and the client.
const SERVICE: &str = "192.0.2.10:80";
const PORT: u16 = 80;
const CLIENT: &str = "203.0.113.5";
/// The port of the first connection is the next one.
const SPORT: u16 = 10_000;
/// Seconds by which the kernel's timers are off, and a recorded time is early.
const TOLERANCE_S: i64 = 1;

/// What packets do, and how long states last.
#[derive(Debug, Deserialize)]
pub struct States {
    /// Its name.
    pub name: String,
    /// Forwarding method, unless steps have it.
    mode: Option<String>,
    /// Protocol, unless it is TCP.
    proto: Option<String>,
    /// Kernel parameters, set before.
    #[serde(default)]
    sysctls: BTreeMap<String, i64>,
    /// The steps: connections of their own.
    pub steps: Vec<Step>,
}

/// A packet after others, or a time.
#[derive(Debug, Deserialize)]
pub struct Step {
    /// Forwarding method, if not the file's.
    mode: Option<String>,
    /// `ipvsadm --set`.
    set: Option<String>,
    /// The packets before, with blanks between: `c:S s:SA`.
    path: String,
    /// The state after them.
    state: Option<String>,
    /// The packet.
    event: Option<String>,
    /// The state after it.
    to: Option<String>,
    /// Seconds left after it, or after the path.
    timer: Option<i64>,
    /// Whether it came out at the other side.
    passed: Option<bool>,
    /// What it changed in the server's active connections.
    active: Option<i64>,
    /// And in the inactive ones.
    inactive: Option<i64>,
    /// The row's state and time.
    #[serde(rename = "ipvsadm -Lcn")]
    listed: Option<(String, String)>,
    /// Seconds until there was no row.
    gone_after: Option<f64>,
}

impl Step {
    /// Whether this is a step of such a recording.
    pub fn is_one(step: &serde_json::Value) -> bool {
        step.get("path").is_some() && (step.get("event").is_some() || step.get("gone_after").is_some())
    }
    fn describe(&self) -> String {
        let words = [self.mode.as_deref(), self.set.as_deref(), Some(&self.path), self.event.as_deref()];
        words.into_iter().flatten().collect::<Vec<_>>().join(" > ")
    }
}

/// Runs one recording.
pub fn run_states(executor: &mut dyn Executor, states: &States, unsupported: Unsupported) -> Ran {
    let mut ran = Ran { recording: states.name.clone(), executor: executor.name(), ..Ran::default() };
    let mut run = Run::new(executor, states);
    for (number, step) in states.steps.iter().enumerate() {
        match run.step(step) {
            Ok(None) => ran.passed += 1,
            Ok(Some(rule)) => ran.excused.entry(rule).or_default().push(number),
            Err(Failed::NoSetup(why)) => return not_run(ran, why, states.steps.len(), unsupported),
            Err(Failed::Differs(difference)) => {
                ran.failed += 1;
                ran.mismatches.push(Mismatch { step: number, note: step.describe(), difference });
            }
        }
    }
    ran
}

enum Failed {
    NoSetup(NoSetup),
    Differs(String),
}

impl From<String> for Failed {
    fn from(text: String) -> Self {
        Failed::Differs(format!("    {text}"))
    }
}

struct Run<'r> {
    executor: &'r mut dyn Executor,
    states: &'r States,
    bed: Result<Bed, String>,
    proto: u8,
    /// Method and `--set` of the director that runs.
    runs: Option<(String, Option<String>)>,
    sport: u16,
    /// Closed connections, given up for new ones, that IPVS may still count.
    lingering: i64,
}

/// What a connection is like: its row's state and time, and its server's counters.
type Found = (Option<(String, i64)>, [i64; 2]);

impl<'r> Run<'r> {
    fn new(executor: &'r mut dyn Executor, states: &'r States) -> Self {
        let proto = match states.proto.as_deref() {
            Some("udp") => proto::UDP,
            Some("sctp") => proto::SCTP,
            _ => proto::TCP,
        };
        let bed = Bed::with_servers(1, &[]);
        Self { executor, states, bed, proto, runs: None, sport: SPORT, lingering: 0 }
    }

    fn step(&mut self, step: &Step) -> Result<Option<&'static str>, Failed> {
        self.set_up(step).map_err(Failed::NoSetup)?;
        self.sport += 1;
        for event in step.path.split_whitespace() {
            let before = self.found()?;
            self.send(event)?;
            self.lingering += i64::from(self.reopens(&before, event));
        }
        match &step.event {
            Some(event) => self.packet(step, event),
            None => self.lifetime(step).map(|()| None),
        }
    }

    /// A director for the step, a new one where the one before was of another kind, or has
    /// seen its time pass.
    fn set_up(&mut self, step: &Step) -> Result<(), NoSetup> {
        let mode = step.mode.as_ref().or(self.states.mode.as_ref()).map_or("masq", String::as_str);
        let runs = Some((mode.to_owned(), step.set.clone()));
        if self.runs == runs && step.event.is_some() {
            return Ok(());
        }
        let model = self.model(mode, step.set.as_deref())?;
        let bed = self.bed.clone().map_err(NoSetup::Wrong)?;
        self.executor.set_up(&bed, &model).map_err(NoSetup::Wrong)?;
        (self.runs, self.sport, self.lingering) = (runs, SPORT, 0);
        Ok(())
    }

    fn model(&self, mode: &str, set: Option<&str>) -> Result<Model, NoSetup> {
        let service = match self.proto {
            proto::UDP => format!("-u {SERVICE}"),
            proto::SCTP => format!("--sctp-service {SERVICE}"),
            _ => format!("-t {SERVICE}"),
        };
        let method = match mode {
            "masq" => "-m",
            "gate" => "-g",
            "ipip" => "-i",
            other => return Err(NoSetup::Wrong(format!("no forwarding method is called {other}"))),
        };
        let server = bed::server(1, false);
        let mut lines = vec![format!("-A {service} -s rr"), format!("-a {service} -r {server}:{PORT} {method}")];
        lines.extend(set.map(|times| format!("--set {times}")));
        let sysctls = self.states.sysctls.iter().map(|(name, value)| (name.as_str(), *value));
        setup::model(sysctls, lines.iter().map(String::as_str))
    }

    /// A packet in a state.
    fn packet(&mut self, step: &Step, event: &str) -> Result<Option<&'static str>, Failed> {
        let before = self.found()?;
        let (passed, verdict) = self.send(event)?;
        let after = self.found()?;
        let reopened = i64::from(self.reopens(&before, event));
        let name = |found: &Found| found.0.as_ref().map(|(state, _)| state.clone());

        let mut differs = Vec::new();
        let mut differ = |what: &str, expected: String, got: String| {
            differs.push(format!("    {what}: expected {expected}, got {got} by {verdict}"));
        };
        if name(&before) != step.state {
            differ("state before", format!("{:?}", step.state), format!("{:?}", name(&before)));
        }
        if name(&after) != step.to {
            differ("state", format!("{:?}", step.to), format!("{:?}", name(&after)));
        }
        if let (Some(timer), Some((_, left))) = (step.timer, &after.0)
            && (timer - left).abs() > TOLERANCE_S
        {
            differ("timer", timer.to_string(), left.to_string());
        }
        if step.passed != Some(passed) {
            differ("passed", format!("{:?}", step.passed), passed.to_string());
        }
        let moved = [0, 1].map(|i| after.1[i] - before.1[i]);
        if step.active != Some(moved[0]) {
            differ("active", format!("{:?}", step.active), moved[0].to_string());
        }
        // A closed connection that was given up for a new one IPVS counts for a tick more: it
        // leaves in this step or in one of the next (rule `reuse`).
        let more = step.inactive.map(|inactive| inactive - moved[1]);
        let excused = more.filter(|more| *more != 0 && (-self.lingering..=reopened).contains(more));
        self.lingering += excused.unwrap_or(0);
        if more != Some(0) && excused.is_none() {
            differ("inactive", format!("{:?}", step.inactive), moved[1].to_string());
        }
        match differs.is_empty() {
            true => Ok(excused.map(|_| "reuse")),
            false => Err(Failed::Differs(differs.join("\n"))),
        }
    }

    /// Whether the packet gives a closed connection up for a new one.
    fn reopens(&self, before: &Found, event: &str) -> bool {
        let state = before.0.as_ref().map_or("", |(state, _)| state);
        let new = match self.proto {
            proto::TCP => matches!(state, "TIME_WAIT" | "CLOSE") && event.contains('S'),
            proto::SCTP => state == "CLOSED" && event.ends_with(":1"),
            _ => false,
        };
        new && event.starts_with('c') && self.states.sysctls.get("conn_reuse_mode") != Some(&0)
    }

    /// How long a state lasts: until then there, after that not.
    fn lifetime(&mut self, step: &Step) -> Result<(), Failed> {
        let (row, _) = self.found()?;
        let got = format!("{row:?}");
        let differs = |what: &str, expected: String| Err(format!("{what}: expected {expected}, got {got}").into());
        let close = |expected: i64, got: i64| (expected - got).abs() <= TOLERANCE_S;
        if row.as_ref().map(|(state, _)| state) != step.state.as_ref() {
            return differs("state", format!("{:?}", step.state));
        }
        let (Some((state, left)), Some(timer)) = (&row, step.timer) else {
            return if step.gone_after.is_none() { Ok(()) } else { differs("entry", "one that ends".into()) };
        };
        if !close(timer, *left) {
            return differs("timer", timer.to_string());
        }
        if let Some((listed, time)) = &step.listed
            && (listed != state || seconds(time).is_none_or(|time| !close(time, *left)))
        {
            return differs("row", format!("{listed} {time}"));
        }
        let Some(gone_after) = step.gone_after else { return Err("no end is recorded".to_owned().into()) };
        // The recorded time left is up to a second early, and timers come late; in the kernel
        // time passes here, too.
        let (there, gone) = ((timer - 2 * TOLERANCE_S).max(0), gone_after.ceil() as i64);
        self.executor.sweep_after(there as u32)?;
        if self.found()?.0.is_none() {
            return Err(format!("gone before {there} s; recorded: {gone_after} s").into());
        }
        self.executor.sweep_after((gone - there).max(0) as u32)?;
        match self.found()?.0 {
            None => Ok(()),
            Some(_) => Err(format!("still there after {gone} s; recorded: {gone_after} s").into()),
        }
    }

    /// The connection's row, and its server's active and inactive connections.
    fn found(&mut self) -> Result<Found, String> {
        let client = format!("{CLIENT}:{}", self.sport);
        let row = self.executor.conns()?.into_iter().find(|row: &Row| row[3] == client);
        let row = row.and_then(|[_, state, time, ..]| Some((state, seconds(&time)?)));
        let loads = self.executor.loads()?;
        let [Load { counts: [_, active, inactive], .. }] = loads.as_slice() else {
            return Err(format!("not one server: {loads:?}"));
        };
        Ok((row, [i64::from(*active), i64::from(*inactive)]))
    }

    /// Sends a packet: whether it came out at the other side, and the verdict.
    fn send(&mut self, event: &str) -> Result<(bool, String), String> {
        let bad = || format!("{event:?} is no packet");
        let (who, what) = event.split_once(':').ok_or_else(bad)?;
        let address = |text: &str| text.parse::<std::net::SocketAddr>().map(|a| (a.ip(), a.port())).map_err(|_| bad());
        let client = (CLIENT.parse::<IpAddr>().map_err(|_| bad())?, self.sport);
        let (side, from, to, source) = match who {
            "c" => (Side::C, client, address(SERVICE)?, bed::GATEWAY),
            "s" => (Side::R, (bed::server(1, false), PORT), client, bed::server_mac(1)),
            _ => return Err(bad()),
        };
        let l4 = match self.proto {
            proto::UDP => build::udp(from.0, to.0, from.1, to.1, b"x"),
            proto::SCTP => {
                let mut chunk = [0; 20];
                (chunk[0], chunk[3]) = (what.parse().map_err(|_| bad())?, 20);
                build::sctp(from.1, to.1, &chunk)
            }
            _ => {
                let flags = flags(what).ok_or_else(bad)?;
                let segment = Tcp { sport: from.1, dport: to.1, flags, seq: 1000, ack: 0, payload: &[] };
                build::tcp(from.0, to.0, &segment)
            }
        };
        let packet = build::ip(from.0, to.0, self.proto, &l4, &IpOptions { ident: 1, ..IpOptions::default() });
        let bed = self.bed.clone()?;
        let (does, verdict) = self.executor.run(side, &build::eth(side.mac(), source, &packet))?;
        let first = outcome(&bed, side, &does).first().map(|(side, _)| *side);
        Ok((first.is_some_and(|out| out != side), told(verdict)))
    }
}

/// TCP flags by their first letters; `-`: none.
fn flags(letters: &str) -> Option<u8> {
    letters.chars().try_fold(0, |flags, letter| {
        let bit = match letter {
            'F' => flag::FIN,
            'S' => flag::SYN,
            'R' => flag::RST,
            'P' => flag::PSH,
            'A' => flag::ACK,
            '-' => 0,
            _ => return None,
        };
        Some(flags | bit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_by_letters() {
        assert_eq!(flags("SA"), Some(flag::SYN | flag::ACK));
        assert_eq!((flags("-"), flags("PA"), flags("X")), (Some(0), Some(flag::PSH | flag::ACK), None));
    }
}
