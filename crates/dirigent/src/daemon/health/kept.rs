//! What is known of servers' health, for the next daemon: it lies beside the maps, and goes with them.

use super::job::Job;
use crate::daemon::kept;
use crate::daemon::lock::DIRECTORY;
use crate::failure::Result;
use dirigent_config::ServiceKey;
use dirigent_config::layers::health::Memory;
use dirigent_health::Weight;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Of the file.
const VERSION: u32 = 1;

/// All that is kept.
#[derive(Debug, Serialize, Deserialize)]
pub struct All {
    version: u32,
    /// Checks with a result: why they fail, and what they say about the weight.
    pub jobs: Vec<(Job, Option<String>, Weight)>,
    /// Services that are not as if nothing had ever happened.
    pub services: Vec<(ServiceKey, Memory)>,
}

/// The file of one director.
pub struct Kept(PathBuf);

impl Kept {
    /// That of a director of this name.
    pub fn of(instance: &str) -> Self {
        Self(Path::new(DIRECTORY).join(format!("{instance}.health.json")))
    }
    /// What an earlier daemon wrote. What cannot be read any more is as good as nothing: checks find it out anew.
    pub fn read(&self) -> Result<Option<All>> {
        match kept::read::<All>(&self.0) {
            Ok(all) => Ok(all.filter(|all| all.version == VERSION)),
            Err(failure) => {
                tracing::warn!("what an earlier daemon knew of servers' health is not heeded: {failure}");
                Ok(None)
            }
        }
    }
    /// Writes it anew.
    pub fn write(&self, jobs: Vec<(Job, Option<String>, Weight)>, services: Vec<(ServiceKey, Memory)>) -> Result<()> {
        kept::write(&self.0, &All { version: VERSION, jobs, services })?.commit()
    }
    /// Forgets it.
    pub fn forget(&self) -> Result<()> {
        kept::remove(&self.0).map(|_| ())
    }
}
