//! Scripts, files and processes that virtual routers look at.

use super::machine::Object;
use crate::daemon::health::scripts::Scripts;
use dirigent_config::failover::{Arguments, Failover, InterfaceDelay, TrackFile, TrackProcess, TrackScript};
use dirigent_failover::RiseFall;
use dirigent_failover::track::State;
use dirigent_health::judge::script::Exit;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};
use tokio::task::{JoinError, JoinSet};

/// Between two looks at a file, or at all processes.
const LOOK: Duration = Duration::from_millis(500);

enum Kind {
    Script(Box<TrackScript>, RiseFall),
    File(TrackFile),
    /// With what was found otherwise than is counted, and since when.
    Process(Box<TrackProcess>, Option<Instant>),
}

struct One {
    kind: Kind,
    next: Instant,
    running: bool,
    /// Of which configuration its results are.
    turn: u64,
}

/// What came of a look.
enum Found {
    Well(bool),
    Number(i32),
    Runs(bool),
}

/// All that is known of what is looked at.
#[derive(Default)]
pub struct Tracking {
    all: BTreeMap<Object, One>,
    states: HashMap<Object, State>,
    /// What interfaces count as; and of those that are found otherwise since when, and until when that does not count.
    interfaces: HashMap<String, (State, Option<Instant>)>,
    patience_until: HashMap<String, Instant>,
    looks: JoinSet<(Object, u64, Found)>,
    turn: u64,
}

impl Tracking {
    /// Looks at these from now on.
    pub fn follow<'a>(&mut self, failover: &Failover, objects: impl Iterator<Item = &'a Object>) {
        let mut before = std::mem::take(&mut self.all);
        for object in objects {
            let kind = match object {
                Object::Script(name) => failover.scripts.iter().find(|s| s.name == *name).map(|script| {
                    Kind::Script(Box::new(script.clone()), RiseFall::new(script.rise, script.fall, script.start_down))
                }),
                Object::File(name) => failover.files.iter().find(|f| f.name == *name).cloned().map(Kind::File),
                Object::Process(name) => {
                    let process = failover.processes.iter().find(|p| p.name == *name).cloned();
                    process.map(|process| Kind::Process(Box::new(process), None))
                }
                Object::Interface(_) | Object::Service(_) | Object::Bfd(_) => None,
            };
            let Some(kind) = kind else { continue };
            let same = |one: &One| match (&one.kind, &kind) {
                (Kind::Script(a, _), Kind::Script(b, _)) => a == b,
                (Kind::File(a), Kind::File(b)) => a == b,
                (Kind::Process(a, _), Kind::Process(b, _)) => a == b,
                _ => false,
            };
            if self.all.contains_key(object) {
                continue;
            }
            let one = before.remove(object).filter(same).unwrap_or_else(|| {
                self.turn += 1;
                let state = match &kind {
                    Kind::Script(_, counted) => counted.state(),
                    Kind::Process(..) => State::Unknown,
                    Kind::File(file) => {
                        begin(file.clone());
                        State::Unknown
                    }
                };
                self.states.insert(object.clone(), state);
                // What is written to a file at the start is what is read first.
                let written = matches!(&kind, Kind::File(file) if file.initial.is_some());
                let next = Instant::now() + if written { LOOK } else { Duration::ZERO };
                One { kind, next, running: false, turn: self.turn }
            });
            self.all.insert(object.clone(), one);
        }
    }

    /// What is known of a script or file.
    pub fn state(&self, object: &Object) -> State {
        self.states.get(object).copied().unwrap_or_default()
    }

    /// When [`Self::look`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        let looks = self.all.values().filter(|one| !one.running).map(|one| one.next);
        looks.chain(self.patience_until.values().copied()).min()
    }

    /// Begins the looks that are due.
    pub fn look(&mut self, scripts: &Scripts) {
        let now = Instant::now();
        for (object, one) in self.all.iter_mut().filter(|(_, one)| !one.running && one.next <= now) {
            let (object, turn) = (object.clone(), one.turn);
            one.running = true;
            match &one.kind {
                Kind::Script(script, _) => {
                    one.next = now + script.interval;
                    let (scripts, command) = (scripts.clone(), script.command.clone());
                    let limit = script.timeout.unwrap_or(script.interval);
                    self.looks.spawn(async move {
                        let well = matches!(scripts.run(command, limit).await, Ok(Exit::Code(0)));
                        (object, turn, Found::Well(well))
                    });
                }
                Kind::Process(process, _) => {
                    one.next = now + LOOK;
                    let process = process.clone();
                    self.looks.spawn_blocking(move || (object, turn, Found::Runs(runs(&process))));
                }
                Kind::File(file) => {
                    one.next = now + LOOK;
                    let path = file.path.clone();
                    // A file system that does not answer must not hold adverts up.
                    self.looks.spawn_blocking(move || (object, turn, Found::Number(number(&path))));
                }
            }
        }
    }

    /// An interface was found up or down: what it counts as.
    pub fn interface(&mut self, name: &str, up: bool, delays: &[InterfaceDelay], now: Instant) -> State {
        let delay = delays.iter().find(|delay| delay.interface == name);
        let delay = delay.map_or((Duration::ZERO, Duration::ZERO), |delay| (delay.up, delay.down));
        let (state, otherwise) = self.interfaces.entry(name.to_owned()).or_default();
        *state = delayed(*state, up, delay, otherwise, now);
        match otherwise {
            Some(since) => self.patience_until.insert(name.to_owned(), *since + if up { delay.0 } else { delay.1 }),
            None => self.patience_until.remove(name),
        };
        *state
    }

    /// Whether a look is under way.
    pub fn is_looking(&self) -> bool {
        !self.looks.is_empty()
    }

    /// Waits for the end of a look.
    pub async fn found(&mut self) {
        if let Some(done) = self.looks.join_next().await {
            self.take(done);
        }
    }

    fn take(&mut self, done: Result<(Object, u64, Found), JoinError>) {
        let (object, turn, found) = match done {
            Ok(done) => done,
            Err(error) => return tracing::error!("looking at what virtual routers depend on: {error}"),
        };
        let Some(one) = self.all.get_mut(&object).filter(|one| one.turn == turn) else { return };
        one.running = false;
        let state = match (found, &mut one.kind) {
            (Found::Well(well), Kind::Script(_, counted)) => {
                counted.result(well);
                counted.state()
            }
            (Found::Number(number), Kind::File(_)) => State::Number(number),
            (Found::Runs(found), Kind::Process(process, otherwise)) => {
                let before = self.states.get(&object).copied().unwrap_or_default();
                delayed(before, found, (process.start_delay, process.stop_delay), otherwise, Instant::now())
            }
            _ => return,
        };
        let before = self.states.insert(object.clone(), state);
        if before != Some(state) {
            let text = match state {
                State::Up => "is up".to_owned(),
                State::Down => "is down".to_owned(),
                State::Number(number) => format!("says {number}"),
                State::Unknown => return,
            };
            tracing::info!("{object} {text}");
        }
    }
}

/// What a tracked file has to say before the director does anything.
fn begin(file: TrackFile) {
    let Some(initial) = file.initial else { return };
    tokio::task::spawn_blocking(move || {
        let wanted = file.overwrite || !std::path::Path::new(&file.path).exists();
        if wanted && let Err(error) = std::fs::write(&file.path, format!("{initial}\n")) {
            tracing::error!("track_file {}: {}: {error}", file.name, file.path);
        }
    });
}

/// A file that is not there, or says nothing, says 0.
fn number(path: &str) -> i32 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let number: i64 = text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0);
    number.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
}

/// What a process or interface counts as: another state must last for its delay (up, down), but the first one counts at
/// once.
fn delayed(
    before: State,
    up: bool,
    delay: (Duration, Duration),
    otherwise: &mut Option<Instant>,
    now: Instant,
) -> State {
    let (found, delay) = if up { (State::Up, delay.0) } else { (State::Down, delay.1) };
    if before == State::Unknown || before == found {
        *otherwise = None;
        return found;
    }
    if now.duration_since(*otherwise.get_or_insert(now)) < delay {
        return before;
    }
    *otherwise = None;
    found
}

/// Whether as many run as must, and not more than may.
fn runs(process: &TrackProcess) -> bool {
    let Ok(all) = std::fs::read_dir("/proc") else { return false };
    let processes = all.flatten().filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok());
    let count = processes.filter(|entry| is(process, &entry.path())).count();
    count >= usize::from(process.quorum) && process.quorum_max.is_none_or(|most| count <= usize::from(most))
}

fn is(process: &TrackProcess, directory: &std::path::Path) -> bool {
    // It may have ended meanwhile.
    let read = |file: &str| std::fs::read(directory.join(file)).unwrap_or_default();
    let [program, arguments @ ..] = process.command.as_slice() else { return false };
    let line = || {
        let line = read("cmdline");
        let line = String::from_utf8_lossy(line.strip_suffix(&[0]).unwrap_or(&line)).into_owned();
        line.split('\0').map(str::to_owned).collect::<Vec<_>>()
    };
    if process.full_command {
        let line = line();
        return line.first() == Some(program) && has(process.arguments, arguments, line.get(1..).unwrap_or_default());
    }
    let name = read("comm");
    // The kernel keeps 15 bytes of a name.
    let short = program.as_bytes().get(..15).unwrap_or(program.as_bytes());
    name.strip_suffix(b"\n").unwrap_or(&name) == short
        && (arguments.is_empty() && process.arguments == Arguments::Exact
            || has(process.arguments, arguments, line().get(1..).unwrap_or_default()))
}

fn has(how: Arguments, wanted: &[String], found: &[String]) -> bool {
    match how {
        Arguments::Exact => wanted.is_empty() || wanted == found,
        Arguments::Initial => found.starts_with(wanted),
        Arguments::Partial => match wanted {
            [first @ .., last] => {
                found.starts_with(first) && found.get(first.len()).is_some_and(|word| word.starts_with(last.as_str()))
            }
            [] => true,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_all_the_first_or_begun() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let found = words("-c /etc/x.conf -v");
        for (how, wanted, expected) in [
            (Arguments::Exact, "", true),
            (Arguments::Exact, "-c /etc/x.conf -v", true),
            (Arguments::Exact, "-c /etc/x.conf", false),
            (Arguments::Initial, "-c /etc/x.conf", true),
            (Arguments::Initial, "-c /etc/x", false),
            (Arguments::Partial, "-c /etc/x", true),
            (Arguments::Partial, "-v", false),
        ] {
            assert_eq!(has(how, &words(wanted), &found), expected, "{how:?} {wanted}");
        }
    }

    #[test]
    fn another_state_must_last() {
        let second = Duration::from_secs(1);
        let (now, mut otherwise) = (Instant::now(), None);
        let mut look =
            |before, up, at: u32| delayed(before, up, (second * 2, second), &mut otherwise, now + second * at);
        assert_eq!(look(State::Unknown, false, 0), State::Down);
        assert_eq!(look(State::Down, true, 1), State::Down);
        assert_eq!(look(State::Down, true, 2), State::Down);
        assert_eq!(look(State::Down, true, 3), State::Up);
        assert_eq!(look(State::Up, false, 4), State::Up);
        // It was only a restart.
        assert_eq!(look(State::Up, true, 5), State::Up);
        assert_eq!(look(State::Up, false, 6), State::Up);
        assert_eq!(look(State::Up, false, 7), State::Down);
    }

    #[test]
    fn an_interface_that_is_patient_is_looked_at_in_time() {
        let second = Duration::from_secs(1);
        let delays = [InterfaceDelay { interface: "eth0".into(), down: second * 2, up: Duration::ZERO }];
        let (now, mut tracking) = (Instant::now(), Tracking::default());
        assert_eq!(tracking.interface("eth0", true, &delays, now), State::Up);
        assert_eq!(tracking.interface("eth0", false, &delays, now + second), State::Up);
        assert_eq!(tracking.deadline(), Some(now + second * 3));
        assert_eq!(tracking.interface("eth0", false, &delays, now + second * 3), State::Down);
        assert_eq!(tracking.deadline(), None);
        assert_eq!(tracking.interface("eth0", true, &delays, now + second * 3), State::Up);
        assert_eq!(tracking.interface("eth1", true, &delays, now), State::Up);
        assert_eq!(tracking.interface("eth1", false, &delays, now), State::Down, "of another nothing is said");
    }

    #[test]
    fn this_program_runs() {
        let name = std::fs::read_to_string("/proc/self/comm").unwrap_or_default();
        let command = vec![name.trim_end().to_owned()];
        let process = TrackProcess { command: command.clone(), ..TrackProcess::default() };
        assert!(runs(&process));
        assert!(!runs(&TrackProcess { quorum: 1000, ..process.clone() }));
        assert!(!runs(&TrackProcess { quorum_max: Some(0), ..process }));
        assert!(!runs(&TrackProcess { command: vec!["no such program".into()], ..TrackProcess::default() }));
    }
}
