//! Destinations that lblc and lblcr noted and nobody asks for any more (ipvs-semantics §4.10).

use std::collections::HashSet;

use dirigent_director::conn;
use dirigent_director::records::NOBODY;
use dirigent_director::schedule::Scheduler;

use super::Error;
use super::apply::Control;
use super::store::Store;

/// Destinations of one service beyond which those go that were not asked for in [`LATELY_S`].
const MANY: usize = 16384;

/// Six minutes.
const LATELY_S: u32 = 360;

impl<S: Store> Control<S> {
    /// Forgets them: what was not asked for within `lblc_expiration` or `lblcr_expiration`,
    /// and, of a service that has very many, the oldest that are not of late.
    pub(super) fn forget_old_notes(&mut self) -> Result<(), Error> {
        let (settings, now) = (self.store.settings()?, self.store.now());
        let mut old: HashSet<(u32, [u16; 8])> = HashSet::new();
        let notes = self.store.notes()?;
        let age = |used: u32| conn::age(now, used);
        for held in self.held.values() {
            let expiration = match Scheduler::from_number(self.store.service(held.index)?.scheduler) {
                Some(Scheduler::Lblc) => settings.lblc_expiration,
                Some(Scheduler::Lblcr) => settings.lblcr_expiration,
                _ => continue,
            };
            let mut heads: Vec<_> =
                notes.iter().filter(|(of, _)| of.service == held.index && of.server == NOBODY).collect();
            heads.sort_unstable_by_key(|(_, note)| std::cmp::Reverse(age(note.used)));
            let beyond = heads.len().saturating_sub(MANY);
            let goal = (beyond * 4 / 3).min(MANY / 2);
            let late = |place: usize, used: u32| {
                age(used) > expiration || place < goal && age(used) > LATELY_S.saturating_mul(settings.hz)
            };
            old.extend(
                heads
                    .iter()
                    .enumerate()
                    .filter(|(i, (_, note))| late(*i, note.used))
                    .map(|(_, (of, _))| (of.service, of.to)),
            );
        }
        if old.is_empty() {
            return Ok(());
        }
        self.forget_notes(|of| old.contains(&(of.service, of.to)))
    }
}
