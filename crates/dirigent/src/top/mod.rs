//! `dirigent top`: services, servers and connections as they change, on a terminal.
//!
//! What keys do ([`state`]), what becomes of answers ([`look`], [`rates`], [`rows`]) and how that is drawn ([`view`]) know
//! neither the terminal nor the daemon; this module brings them together.

mod header;
mod look;
mod rates;
mod rows;
mod state;
mod table;
mod terminal;
mod view;
mod words;

use crate::ask::Target;
use crate::cli::TopArgs;
use crate::failure::{Failure, Result, code};
use crate::print;
use crossterm::event::{Event as Input, EventStream, KeyEventKind};
use dirigent_api::{Event, StatsOf};
use look::{Known, Look, Want};
use state::{Effect, State};
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};
use terminal::Seat;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;
use view::{Screen, Skin};

/// Before a stream of events that ended is opened again.
const REOPEN: Duration = Duration::from_secs(2);

/// Shows the director until it is told to end.
pub async fn run(target: Target, args: &TopArgs) -> Result<()> {
    let stats = StatsOf { service: args.service.clone(), ..StatsOf::default() };
    let want = Want { stats, connections: None };
    let asked = Instant::now();
    let look = Look::at(&target, &want).await?;
    // As lists call it.
    let service = args.service.is_some().then(|| look.stats.services.first().map(|service| service.name())).flatten();
    let state = State::new(args.interval, service);
    let mut known = Known::default();
    known.seen(Instant::now(), asked.elapsed(), &want, look);
    let skin = Skin::of(|name| std::env::var(name).ok());
    if !args.once {
        return Session::begin(target, state, known, skin)?.run().await;
    }
    let now = Instant::now();
    let table = rows::table(&state.level().place, &known, now);
    let rows = table.arranged(state.sort(), &state.level().filter);
    let screen = Screen { state: &state, known: &known, table: &table, rows: &rows, now, skin };
    print::text(&screen.text(terminal::width()))
}

/// A question under way.
struct Asked {
    want: Want,
    at: Instant,
    answer: JoinHandle<Result<Look>>,
}

impl Drop for Asked {
    fn drop(&mut self) {
        // Nobody wants to know any more.
        self.answer.abort();
    }
}

/// What can happen.
enum Happens {
    Input(Input),
    Answer(Box<Result<Look>>),
    Due,
    Event(Event),
    End,
}

/// A terminal with somebody in front of it.
struct Session {
    target: Arc<Target>,
    state: State,
    known: Known,
    skin: Skin,
    seat: Seat,
    input: EventStream,
    heard: UnboundedReceiver<Event>,
    listener: JoinHandle<()>,
    ends: [Signal; 3],
    asked: Option<Asked>,
    /// What was asked for last, and when: of what failed, when it did.
    wanted: Want,
    last: Instant,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Session {
    fn begin(target: Target, state: State, known: Known, skin: Skin) -> Result<Self> {
        let target = Arc::new(target);
        let ends = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
        let [terminate, interrupt, hangup] = ends.map(|end| end.map_err(|e| Failure::io("signals", &e)));
        let ends = [terminate?, interrupt?, hangup?];
        let seat = Seat::take()?;
        let (tell, heard) = unbounded_channel();
        let listener = tokio::spawn(listen(Arc::clone(&target), tell));
        let last = Instant::now();
        let input = EventStream::new();
        Ok(Self {
            target,
            state,
            known,
            skin,
            seat,
            input,
            heard,
            listener,
            ends,
            asked: None,
            wanted: Want::default(),
            last,
        })
    }

    async fn run(mut self) -> Result<()> {
        loop {
            // Drawn before anything is waited for: this is where all that happened shows.
            let now = Instant::now();
            let table = rows::table(&self.state.level().place, &self.known, now);
            let filter = self.state.level().filter.clone();
            let rows = table.arranged(self.state.sort(), &filter);
            let page = view::page(&self.state, &self.known, now, self.seat.height()?);
            self.state.settle(&rows, page);
            let screen =
                Screen { state: &self.state, known: &self.known, table: &table, rows: &rows, now, skin: self.skin };
            self.seat.draw(|buffer| screen.draw(buffer))?;
            let effect = match self.next().await {
                Happens::End => return Ok(()),
                Happens::Due => Effect::Ask,
                Happens::Input(Input::Key(key)) if key.kind != KeyEventKind::Release => {
                    self.state.press(key, &rows, page)
                }
                // A new size is seen when it is drawn.
                Happens::Input(_) => Effect::Draw,
                Happens::Event(event) => {
                    self.known.heard(Instant::now(), &event);
                    Effect::Draw
                }
                Happens::Answer(answer) => self.answered(*answer),
            };
            match effect {
                Effect::Draw => {}
                Effect::Ask => self.ask(),
                Effect::Hold => self.asked = None,
                Effect::Clear => self.seat.clear()?,
                Effect::Suspend => self.seat.suspend()?,
                Effect::Quit => return Ok(()),
            }
        }
    }

    /// What happens next.
    async fn next(&mut self) -> Happens {
        let Self { input, heard, ends: [terminate, interrupt, hangup], asked, state, known, last, .. } = self;
        let due = *last + known.pause(state.interval);
        let waits = !state.paused && asked.is_none();
        let answer = async {
            match asked {
                Some(asked) => (&mut asked.answer).await,
                None => pending().await,
            }
        };
        tokio::select! {
            // A terminal that has gone has no more keys.
            key = input.next() => match key {
                Some(Ok(key)) => Happens::Input(key),
                Some(Err(_)) | None => Happens::End,
            },
            answer = answer => Happens::Answer(Box::new(answer.unwrap_or_else(|e| {
                Err(Failure::new("", format!("asking the daemon: {e}"), "please report this"))
            }))),
            Some(event) = heard.recv() => Happens::Event(event),
            () = tokio::time::sleep_until(due.into()), if waits => Happens::Due,
            _ = terminate.recv() => Happens::End,
            _ = interrupt.recv() => Happens::End,
            _ = hangup.recv() => Happens::End,
        }
    }

    /// Asks for what is shown now, and for nothing else any more.
    fn ask(&mut self) {
        let (target, want) = (Arc::clone(&self.target), self.state.want());
        if want != self.wanted {
            self.known.turned();
            self.wanted = want.clone();
        }
        let of = want.clone();
        let answer = tokio::spawn(async move { Look::at(&target, &of).await });
        self.asked = Some(Asked { want, at: Instant::now(), answer });
    }

    fn answered(&mut self, answer: Result<Look>) -> Effect {
        let Some(asked) = self.asked.take() else { return Effect::Draw };
        let now = Instant::now();
        self.last = if answer.is_ok() { asked.at } else { now };
        match answer {
            Ok(look) => self.known.seen(now, now.saturating_duration_since(asked.at), &asked.want, look),
            // What is shown has gone, and the daemon has not.
            Err(failure) if failure.code == code::ABSENT => {
                self.state.gone(failure.to_string());
                return Effect::Ask;
            }
            Err(failure) => {
                let why = failure.problems.first().map_or_else(String::new, |problem| problem.what.clone());
                self.known.failed(now, why);
            }
        }
        Effect::Draw
    }
}

/// Hears what happens, from whichever daemon runs. Drops have a table of their own.
async fn listen(target: Arc<Target>, tell: UnboundedSender<Event>) {
    while !tell.is_closed() {
        // That the daemon is away the looks say.
        let _ = target.events(u64::MAX, |event| tell.send(event).is_ok()).await;
        tokio::time::sleep(REOPEN).await;
    }
}

#[cfg(test)]
mod tests;
