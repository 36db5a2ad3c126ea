//! A lab for the length of a test.

use super::{Lab, LabSpec};
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
