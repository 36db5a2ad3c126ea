//! The director's tables, as synchronisation reads and writes them.

use super::origins::Origins;
use crate::daemon::tables::Seen;
use crate::failure::Result;
use dirigent_datapath::control::sync::{Moment, Shared, Source, forget_entry, learned};
use dirigent_datapath::control::{Entry, Flow, KernelStore, Page, Store as _};
use dirigent_director::records::{Lesson, conn_flag, kind, lesson};
use dirigent_director::sync::Told;
use dirigent_sync::backup::{self, Decision, From, Owner};
use dirigent_sync::extension::Origin;
use dirigent_sync::machine::{Page as Records, Whose};
use dirigent_sync::{Key, Reason, Record};

/// Lessons that are done at once.
const BATCH: usize = 256;

/// What became of lessons.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// Entered, changed or removed.
    pub done: u64,
    /// The entry was another one by then.
    pub changed: u64,
    /// The server's answers could not be told from another connection's.
    pub taken: u64,
    /// There was no room.
    pub full: u64,
    /// The server is not there any more, or is the client itself.
    pub refused: u64,
}

/// A record, and from whom it is.
pub struct Heard<'r> {
    pub origin: Origin,
    pub mark: u32,
    pub record: &'r Record,
    pub idle_ms: u64,
    pub seen_by: u32,
}

/// See the module.
pub struct Tables {
    store: KernelStore,
    origins: Origins,
    seen: Seen,
    waiting: Vec<Lesson>,
    page: Option<(u64, Page)>,
    /// Of persistent services only templates are told.
    pub templates_only: bool,
    pub done: Done,
}

impl Tables {
    pub fn new(store: KernelStore, origins: Origins, seen: Seen) -> Self {
        let (waiting, done) = (Vec::new(), Done::default());
        Self { store, origins, seen, waiting, page: None, templates_only: false, done }
    }

    /// When they were last empty.
    pub fn epoch(&self) -> u64 {
        self.origins.epoch()
    }

    /// The greatest mark of what was learned so far.
    pub fn greatest_mark(&self) -> Result<u32> {
        let mut greatest = 0;
        for v6 in [false, true] {
            self.store.walk(v6, &mut |entry| {
                greatest = greatest.max(learned(&entry).map_or(0, |(_, mark)| mark));
            })?;
        }
        Ok(greatest)
    }

    /// How many are this director's own.
    pub fn own(&self) -> u64 {
        self.seen.census().of(0)
    }

    /// How many were learned from a node, whichever start of it.
    pub fn learned_from(&self, node: u32) -> u64 {
        let census = self.seen.census();
        let numbers = (1..=u8::MAX).filter(|number| self.origins.origin(*number).is_some_and(|o| o.node == node));
        numbers.map(|number| census.of(number)).sum()
    }

    /// The connections and templates to tell, of what packets said.
    pub fn records(&self, news: &[Flow]) -> Result<Vec<Record>> {
        let moment = Moment::of(&self.store)?;
        let shared = Shared::at(&self.store, &moment);
        let mut records = Vec::with_capacity(news.len());
        for flow in news {
            // It may be gone by now.
            let Some(entry) = self.store.entry(flow)? else { continue };
            if !self.spared(&entry) {
                records.extend(shared.record(&entry)?);
            }
            if let Some(controller) = shared.controller(&entry)? {
                records.extend(shared.record(&controller)?);
            }
        }
        Ok(records)
    }

    /// A connection that its template is told instead of.
    fn spared(&self, entry: &Entry) -> bool {
        self.templates_only && entry.kind != kind::TEMPLATE && entry.flags & conn_flag::CONTROLLED != 0
    }

    /// Some of all connections, for a bulk: from `cursor` on, 0 being the begin.
    pub fn page(&mut self, cursor: u64, at_most: usize) -> Result<Records> {
        let from = match self.page.take() {
            Some((at, page)) if at == cursor => page,
            _ => Page::default(),
        };
        let mut entries = Vec::with_capacity(at_most);
        let next = self.store.page(from, at_most, &mut |entry| entries.push(entry))?;
        let moment = Moment::of(&self.store)?;
        let shared = Shared::at(&self.store, &moment);
        let mut records = Vec::with_capacity(entries.len());
        for entry in entries.iter().filter(|entry| !self.spared(entry)) {
            let whose = match learned(entry) {
                None => Whose::Own,
                Some((number, _)) => match self.origins.origin(number) {
                    Some(origin) => Whose::Learned(origin),
                    None => Whose::Own,
                },
            };
            records.extend(shared.record(entry)?.map(|record| (whose, record)));
        }
        let next = next.map(|page| {
            self.page = Some((cursor + 1, page));
            cursor + 1
        });
        Ok(Records { records, next })
    }

    /// As which moment records of one turn are looked at.
    pub fn moment(&self) -> Result<Moment> {
        Ok(Moment::of(&self.store)?)
    }

    /// Does what a record says, if it is to be; else says why not.
    pub fn apply(&mut self, heard: &Heard<'_>, moment: &Moment, here: u32, threshold: u32) -> Result<Option<Reason>> {
        let record = heard.record;
        let owner = |number| self.origins.origin(number).map_or(Owner::KERNEL, |origin| origin.node);
        let shared = Shared::at(&self.store, moment);
        let (place, found) = shared.find(record, &owner)?;
        let from = From { node: heard.origin.node, here, seen_by: heard.seen_by, idle_ms: heard.idle_ms };
        let decision = backup::decide(record, &found, &from, threshold);
        if let Decision::Ignore(reason) = decision {
            return Ok(Some(reason));
        }
        let seen = &self.seen;
        let Some(origin) = self.origins.number(heard.origin, |number| seen.census().of(number) == 0) else {
            return Ok(Some(Reason::Sources));
        };
        let source = Source { origin, mark: heard.mark, idle_ms: heard.idle_ms };
        let Some(lessons) = shared.lessons(record, &place, &decision, &source) else {
            return Ok(Some(Reason::NoServer));
        };
        self.waiting.extend(lessons);
        self.finish_if(BATCH)?;
        Ok(None)
    }

    /// Removes a connection that its peer has removed, if it is the peer's still.
    pub fn delete(&mut self, origin: Origin, key: &Key, moment: &Moment) -> Result<()> {
        let ours = |told: Told, _| self.origins.origin(told.origin()).is_some_and(|o| o.node == origin.node);
        let lesson = Shared::at(&self.store, moment).forget(key, &ours)?;
        self.waiting.extend(lesson);
        self.finish_if(BATCH)
    }

    /// Removes what its peer, from that start on, does not know any more: all with an older mark.
    pub fn sweep(&mut self, origin: Origin, epoch: u64, mark: u32) -> Result<()> {
        self.finish()?;
        let theirs = |number| self.origins.origin(number).is_some_and(|o| o.node == origin.node && o.boot >= epoch);
        let ours = |told: Told, its: u32| theirs(told.origin()) && (its.wrapping_sub(mark) as i32) < 0;
        let mut gone = Vec::new();
        for v6 in [false, true] {
            self.store.walk(v6, &mut |entry| gone.extend(forget_entry(&entry, &ours)))?;
        }
        self.waiting = gone;
        self.finish()
    }

    fn finish_if(&mut self, waiting: usize) -> Result<()> {
        if self.waiting.len() >= waiting { self.finish() } else { Ok(()) }
    }

    /// Writes what waits to be written.
    pub fn finish(&mut self) -> Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let mut lessons = std::mem::take(&mut self.waiting);
        self.store.learn(&mut lessons)?;
        for one in &lessons {
            let count = match one.result {
                lesson::DONE => &mut self.done.done,
                lesson::TAKEN => &mut self.done.taken,
                lesson::FULL => &mut self.done.full,
                lesson::REFUSED => &mut self.done.refused,
                _ => &mut self.done.changed,
            };
            *count += 1;
        }
        Ok(())
    }
}
