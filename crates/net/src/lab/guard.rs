//! A lab for the length of a test.

use super::state::State;
use super::{Identity, Lab, LabSpec};
use crate::error::Result;
use std::ops::Deref;
use std::sync::atomic::{AtomicU32, Ordering};

/// A lab with a name of its own that goes down when dropped. If the test process dies first, the next guard of any
/// process (or [`Lab::clean_stale`]) removes it.
#[derive(Debug)]
pub struct LabGuard {
    lab: Lab,
}

impl LabGuard {
    /// Builds a lab under a unique name; `spec.name` is not used. Removes stale labs of dead tests first.
    pub fn up(spec: &LabSpec) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        for name in Lab::clean_stale()? {
            tracing::info!(lab = name, "removed the lab of a test that died");
        }
        let name = format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Ok(LabGuard { lab: Lab::build(&LabSpec { name, ..spec.clone() }, true)? })
    }

    /// Takes over a lab that another process built (a test of `dirigent lab up`): it now lives as long as this guard.
    pub fn adopt(name: &str) -> Result<Self> {
        let builder = Identity::of_this_process()?;
        State::update(name, |state| {
            state.builder = builder;
            state.owned = true;
        })?;
        Ok(LabGuard { lab: Lab::open(name)? })
    }
}

impl Deref for LabGuard {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.lab
    }
}

impl Drop for LabGuard {
    fn drop(&mut self) {
        if let Err(error) = Lab::down(self.lab.name()) {
            tracing::error!(lab = self.lab.name(), %error, "could not remove the lab of a test");
        }
    }
}
