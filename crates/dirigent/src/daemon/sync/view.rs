//! What the status says of synchronisation.

use dirigent_api::{Problem, Synchronisation};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// As of the last look.
#[derive(Debug, Default)]
struct Seen {
    report: Option<Synchronisation>,
    problem: Option<Problem>,
}

/// What the thread shows.
#[derive(Clone, Debug, Default)]
pub struct View(Arc<Mutex<Seen>>);

impl View {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// It is this now, and nothing is wrong.
    pub fn set(&self, report: Option<Synchronisation>) {
        *self.seen() = Seen { report, problem: None };
    }
    /// This is wrong.
    pub fn fail(&self, problem: Problem) {
        *self.seen() = Seen { report: None, problem: Some(problem) };
    }
    /// What is wrong.
    pub fn problem(&self) -> Option<Problem> {
        self.seen().problem.clone()
    }
    /// How it is.
    pub fn report(&self) -> Option<Synchronisation> {
        self.seen().report.clone()
    }
}
