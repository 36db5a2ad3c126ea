//! What was changed, written down before it is, so that `undo` knows it however the
//! command ended.

use super::change::Change;
use crate::failure::{Failure, Result};
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The record of changes.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct State {
    /// Version of this format.
    version: u32,
    /// In the order they were made.
    pub changes: Vec<Change>,
}

const VERSION: u32 = 1;

impl State {
    /// The record at `path`, empty where there is none.
    pub fn read(path: &Path) -> Result<Self> {
        let place = path.display().to_string();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Self { version: VERSION, changes: Vec::new() }),
            Err(e) => return Err(Failure::io(place, &e)),
        };
        let remedy = "move it away; what it records must then be undone by hand";
        let state: Self = serde_json::from_str(&text).map_err(|e| Failure::new(&place, e.to_string(), remedy))?;
        match state.version {
            VERSION => Ok(state),
            other => {
                Err(Failure::new(place, format!("version {other}, this dirigent knows {VERSION}"), "use a newer one"))
            }
        }
    }

    /// Writes it, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<()> {
        let fail = |e: std::io::Error| Failure::io(path.display().to_string(), &e);
        let mut new: PathBuf = path.to_owned();
        new.as_mut_os_string().push(".new");
        if self.changes.is_empty() {
            // With what a killed writer left.
            return [path, &new].into_iter().try_for_each(|file| match std::fs::remove_file(file) {
                Err(e) if e.kind() != ErrorKind::NotFound => Err(fail(e)),
                _ => Ok(()),
            });
        }
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(fail)?;
        }
        let text = serde_json::to_string_pretty(self).map_err(|e| Failure::new("JSON", e.to_string(), ""))?;
        std::fs::write(&new, text).map_err(fail)?;
        std::fs::File::open(&new).and_then(|file| file.sync_all()).map_err(fail)?;
        std::fs::rename(&new, path).map_err(fail)
    }
}
