//! The tables as the API tells them: read from the pinned maps, with or without a daemon.

use crate::daemon::size::Size;
use crate::failure::{Failure, Result};
use dirigent_api::{Connections, Service, Stats, Status};
use dirigent_datapath::kernel::Instance;

/// Reads one director's tables.
pub struct Reader;

impl Reader {
    pub fn open(_: &Instance) -> Result<Self> {
        Err(Failure::new("", "not yet", ""))
    }
    pub fn size(&self) -> Option<Size> {
        None
    }
    pub fn status(&self) -> Result<Status> {
        Ok(Status::default())
    }
    pub fn services(&self) -> Result<Vec<Service>> {
        Ok(Vec::new())
    }
    pub fn connections(&self, _: usize) -> Result<Connections> {
        Ok(Connections::default())
    }
    pub fn stats(&self) -> Result<Stats> {
        Ok(Stats::default())
    }
}
