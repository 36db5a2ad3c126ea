//! From whom connections were learned: entries have a number of 8 bits for it, here is who that is. Kept beside the maps
//! that hold these numbers.

use crate::daemon::kept;
use crate::daemon::lock::DIRECTORY;
use crate::failure::Result;
use dirigent_sync::extension::Origin;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Of the file.
const VERSION: u32 = 1;

/// Another director, as of one of its starts; or all kernels (0, 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    node: u32,
    boot: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    version: u32,
    /// When this director's tables were last empty: milliseconds since 1970.
    epoch: u64,
    /// Number 1 first.
    known: Vec<Known>,
}

/// The numbers of one director.
pub struct Origins {
    path: PathBuf,
    kept: Kept,
}

fn path(instance: &str) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{instance}.sync.json"))
}

/// Forgets them, with the maps.
pub fn forget(instance: &str) -> Result<()> {
    kept::remove(&path(instance)).map(|_| ())
}

impl Origins {
    /// Those of a director of this name, whose tables are new unless it `took_over`; `now_ms`: since 1970.
    pub fn open(instance: &str, took_over: bool, now_ms: u64) -> Result<Self> {
        let path = path(instance);
        let old: Option<Kept> = kept::read(&path).unwrap_or_else(|failure| {
            tracing::warn!("from whom connections were learned is not known any more: {failure}");
            None
        });
        let kept = match old {
            Some(old) if took_over && old.version == VERSION => old,
            _ => Kept { version: VERSION, epoch: now_ms, known: Vec::new() },
        };
        let origins = Self { path, kept };
        origins.write()?;
        Ok(origins)
    }

    fn write(&self) -> Result<()> {
        kept::write(&self.path, &self.kept)?.commit()
    }

    /// When the tables were last empty.
    pub fn epoch(&self) -> u64 {
        self.kept.epoch
    }

    /// Who has this number. (What is not known any more is told by nobody else.)
    pub fn origin(&self, number: u8) -> Option<Origin> {
        let known = self.kept.known.get(usize::from(number).checked_sub(1)?)?;
        Some(Origin { node: known.node, boot: known.boot })
    }

    /// The number of a director: a new one takes one that is `free`, or if there is none an earlier start's of its own.
    pub fn number(&mut self, of: Origin, free: impl Fn(u8) -> bool) -> Option<u8> {
        let new = Known { node: of.node, boot: of.boot };
        let number = |at: usize| u8::try_from(at + 1).ok();
        if let Some(at) = self.kept.known.iter().position(|known| *known == new) {
            return number(at);
        }
        let at = if self.kept.known.len() < usize::from(u8::MAX) {
            self.kept.known.push(new);
            self.kept.known.len() - 1
        } else {
            let mut numbers = (0..self.kept.known.len()).filter_map(|at| Some((at, number(at)?)));
            let unused = numbers.clone().find(|(_, number)| free(*number));
            let older = || numbers.find(|(at, _)| self.kept.known.get(*at).is_some_and(|known| known.node == of.node));
            let (at, _) = unused.or_else(older)?;
            *self.kept.known.get_mut(at)? = new;
            at
        };
        if let Err(failure) = self.write() {
            tracing::error!("a new daemon will not know from whom connections were learned: {failure}");
        }
        number(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_and_run_out() {
        let name = format!("unit-origins-{}", std::process::id());
        let of = |node, boot| Origin { node, boot };
        std::fs::create_dir_all(DIRECTORY).unwrap();
        let mut origins = Origins::open(&name, false, 5).unwrap();
        assert_eq!(origins.number(of(7, 1), |_| false), Some(1));
        assert_eq!(origins.number(of(0, 0), |_| false), Some(2));
        let mut again = Origins::open(&name, true, 9).unwrap();
        assert_eq!((again.epoch(), again.number(of(0, 0), |_| false)), (5, Some(2)));
        for boot in 2..255 {
            assert_eq!(again.number(of(7, boot), |_| false), u8::try_from(boot + 1).ok());
        }
        assert_eq!(again.number(of(8, 1), |_| false), None);
        assert_eq!(again.number(of(8, 1), |number| number == 9), Some(9));
        assert_eq!(again.origin(9), Some(of(8, 1)));
        assert_eq!((again.origin(0), again.number(of(7, 999), |_| false)), (None, Some(1)));
        assert_eq!(Origins::open(&name, false, 11).unwrap().epoch(), 11);
        forget(&name).unwrap();
    }
}
