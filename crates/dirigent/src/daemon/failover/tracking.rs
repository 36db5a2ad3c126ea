//! Scripts and files that virtual routers look at.

use super::machine::Object;
use crate::daemon::health::scripts::Scripts;
use dirigent_config::failover::{Failover, TrackFile, TrackScript};
use dirigent_failover::RiseFall;
use dirigent_failover::track::State;
use dirigent_health::judge::script::Exit;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};
use tokio::task::{JoinError, JoinSet};

/// Between two looks at a file.
const LOOK: Duration = Duration::from_millis(500);

enum Kind {
    Script(Box<TrackScript>, RiseFall),
    File(TrackFile),
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
}

/// All that is known of what is looked at.
#[derive(Default)]
pub struct Tracking {
    all: BTreeMap<Object, One>,
    states: HashMap<Object, State>,
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
                Object::Interface(_) | Object::Service(_) => None,
            };
            let Some(kind) = kind else { continue };
            let same = |one: &One| match (&one.kind, &kind) {
                (Kind::Script(a, _), Kind::Script(b, _)) => a == b,
                (Kind::File(a), Kind::File(b)) => a == b,
                _ => false,
            };
            if self.all.contains_key(object) {
                continue;
            }
            let one = before.remove(object).filter(same).unwrap_or_else(|| {
                self.turn += 1;
                let state = match &kind {
                    Kind::Script(_, counted) => counted.state(),
                    Kind::File(file) => {
                        begin(file.clone());
                        State::Unknown
                    }
                };
                self.states.insert(object.clone(), state);
                One { kind, next: Instant::now(), running: false, turn: self.turn }
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
        self.all.values().filter(|one| !one.running).map(|one| one.next).min()
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
                Kind::File(file) => {
                    one.next = now + LOOK;
                    let path = file.path.clone();
                    // A file system that does not answer must not hold adverts up.
                    self.looks.spawn_blocking(move || (object, turn, Found::Number(number(&path))));
                }
            }
        }
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
            (Found::Number(number), _) => State::Number(number),
            (Found::Well(_), Kind::File(_)) => return,
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
        if file.overwrite || !std::path::Path::new(&file.path).exists() {
            if let Err(error) = std::fs::write(&file.path, format!("{initial}\n")) {
                tracing::error!("track_file {}: {}: {error}", file.name, file.path);
            }
        }
    });
}

/// A file that is not there, or says nothing, says 0.
fn number(path: &str) -> i32 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let number: i64 = text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0);
    number.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
}
