//! Tracing: turning it on, and reading what is told.

use std::os::fd::{AsFd as _, OwnedFd};

use aya::maps::{Map, MapData, RingBuf};
use dirigent_director::trace::{Life, Wanted};
use zerocopy::FromBytes as _;

use super::{Kernel, error::Error, table::Table};

/// The ring of what is told.
const TOLD: &str = "TOLD";
/// Which packets are.
const WANTED: &str = "WANTED";
/// How many more may be, and how many were not.
const BUDGET: &str = "BUDGET";
/// Whether packets are traced.
const SWITCH: &str = ".bss";

/// Packets are traced as long as it is there.
pub struct Tracer {
    told: RingBuf<MapData>,
    budget: Table<u32, u64>,
    switch: Table<u32, u64>,
    before: u64,
}

impl Kernel {
    /// Begins to trace packets that are wanted; they are told of when that is allowed ([`Tracer::allow`]). One at a time: the
    /// first of several ends for all.
    pub fn trace(&mut self, wanted: &Wanted) -> Result<Tracer, Error> {
        self.load_trace()?;
        let unread = |e| Error::Map { map: TOLD.to_owned(), reason: format!("cannot be read: {e}") };
        let ring = Map::from_map_data(MapData::from_fd(self.map_fd(TOLD)?).map_err(unread)?).map_err(unread)?;
        let mut told = RingBuf::try_from(ring).map_err(unread)?;
        // What nobody took of an earlier time.
        while told.next().is_some() {}
        self.table::<u32, Wanted>(WANTED)?.insert(0, *wanted)?;
        let (budget, switch) = (self.table(BUDGET)?, self.table(SWITCH)?);
        let before = budget.get(&1)?.unwrap_or(0);
        budget.insert(0, 0)?;
        switch.insert(0, 1)?;
        Ok(Tracer { told, budget, switch, before })
    }
}

impl Tracer {
    /// A duplicate of the ring's descriptor, which is readable when something comes.
    pub fn descriptor(&self) -> Result<OwnedFd, Error> {
        let fd = self.told.as_fd().try_clone_to_owned();
        fd.map_err(|e| Error::system(format!("duplicating the descriptor of map {TOLD}"), e))
    }

    /// How many more are told of.
    pub fn allowed(&self) -> Result<u64, Error> {
        Ok(self.budget.get(&0)?.unwrap_or(0))
    }

    /// From now on so many more are told of.
    pub fn allow(&self, packets: u64) -> Result<(), Error> {
        self.budget.insert(0, packets)
    }

    /// Packets that were wanted and not told of, since the beginning.
    pub fn withheld(&self) -> Result<u64, Error> {
        Ok(self.budget.get(&1)?.unwrap_or(0).wrapping_sub(self.before))
    }

    /// The next one, if it is there.
    pub fn take(&mut self) -> Option<Box<Life>> {
        let item = self.told.next()?;
        Life::read_from_bytes(&item).ok().map(Box::new)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        if let Err(e) = self.switch.insert(0, 0) {
            tracing::warn!("tracing goes on, at a cost for each packet, until the daemon is started anew: {e}");
        }
    }
}
