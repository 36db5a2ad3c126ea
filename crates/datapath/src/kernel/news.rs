//! The ring by which packets say which connections and templates are to be told to other
//! directors: their keys.

use std::os::fd::{AsFd as _, OwnedFd};

use aya::maps::{Map, MapData, RingBuf};
use dirigent_director::records::map;

use super::{Kernel, error::Error};
use crate::keys::Flow;

/// The ring's reader: there is one.
pub struct News(RingBuf<MapData>);

impl News {
    /// Of a director that is loaded.
    pub fn of(kernel: &Kernel) -> Result<Self, Error> {
        let fail = |e| Error::Map { map: map::NEWS.to_owned(), reason: format!("cannot be read: {e}") };
        let data = MapData::from_fd(kernel.map_fd(map::NEWS)?).map_err(fail)?;
        let map = Map::from_map_data(data).map_err(fail)?;
        RingBuf::try_from(map).map(Self).map_err(fail)
    }

    /// A duplicate of its descriptor, which is readable when something comes.
    pub fn descriptor(&self) -> Result<OwnedFd, Error> {
        let fd = self.0.as_fd().try_clone_to_owned();
        fd.map_err(|e| Error::system(format!("duplicating the descriptor of map {}", map::NEWS), e))
    }

    /// Takes what is there, at most so many.
    pub fn take(&mut self, at_most: usize, mut see: impl FnMut(Flow)) {
        for _ in 0..at_most {
            let Some(item) = self.0.next() else { return };
            if let Some(flow) = Flow::of_key(&item) {
                see(flow);
            }
        }
    }
}
