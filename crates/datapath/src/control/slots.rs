//! Who has which part of the slots.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Part of the slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// First slot.
    pub base: u32,
    /// How many; 0: no region.
    pub len: u32,
}

/// A region that was given back may still be walked by a packet for as long.
const GRACE: Duration = Duration::from_millis(100);

/// The slots in use.
#[derive(Debug)]
pub struct Slots {
    room: u32,
    used: BTreeMap<u32, u32>,
    /// No slot below is free.
    full: u32,
    /// Given back, oldest first, and still in `used`.
    cooling: Vec<(Region, Instant)>,
}

impl Slots {
    /// No slot is in use.
    pub fn new(room: u32) -> Self {
        Self { room, used: BTreeMap::new(), full: 0, cooling: Vec::new() }
    }
    /// How many there are.
    pub fn room(&self) -> u32 {
        self.room
    }
    /// Notes a region that is in use already.
    pub fn take(&mut self, region: Region) {
        if region.len > 0 {
            self.used.insert(region.base, region.len);
        }
    }
    /// A region of `len` slots that no packet looks at.
    pub fn alloc(&mut self, len: u32) -> Option<Region> {
        if len == 0 {
            return Some(Region::default());
        }
        let now = Instant::now();
        let cold = self.cooling.iter().take_while(|(_, since)| now.duration_since(*since) >= GRACE).count();
        self.release(cold);
        if let Some(region) = self.first_fit(len) {
            return Some(region);
        }
        if self.cooling.is_empty() {
            return None;
        }
        std::thread::sleep(GRACE);
        self.release(self.cooling.len());
        self.first_fit(len)
    }
    /// Gives a region back.
    pub fn free(&mut self, region: Region) {
        if region.len > 0 {
            self.cooling.push((region, Instant::now()));
        }
    }

    fn release(&mut self, count: usize) {
        for (region, _) in self.cooling.drain(..count.min(self.cooling.len())) {
            self.used.remove(&region.base);
            self.full = self.full.min(region.base);
        }
    }
    fn first_fit(&mut self, len: u32) -> Option<Region> {
        while let Some(used) = self.used.get(&self.full) {
            self.full = self.full.saturating_add(*used);
        }
        let mut base = self.full;
        for (start, used) in self.used.range(base..) {
            if start.checked_sub(base).is_some_and(|gap| gap >= len) {
                break;
            }
            base = base.max(start.saturating_add(*used));
        }
        if self.room.checked_sub(base).is_none_or(|left| left < len) {
            return None;
        }
        self.used.insert(base, len);
        Some(Region { base, len })
    }
}

/// Which indexes of a table are in use.
#[derive(Debug, Default)]
pub struct Indexes {
    used: BTreeSet<u32>,
    /// All below are in use.
    full: u32,
}

impl Indexes {
    /// The lowest that is not in use.
    pub fn lowest_free(&mut self, room: u32) -> Option<u32> {
        while self.used.contains(&self.full) {
            self.full += 1;
        }
        (self.full < room).then_some(self.full)
    }
    /// From now on it is.
    pub fn insert(&mut self, index: u32) {
        self.used.insert(index);
    }
    /// It is not any more.
    pub fn remove(&mut self, index: u32) {
        self.used.remove(&index);
        self.full = self.full.min(index);
    }
    /// Whether it is.
    pub fn contains(&self, index: u32) -> bool {
        self.used.contains(&index)
    }
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.used.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_do_not_overlap_and_come_back() {
        let mut slots = Slots::new(100);
        let a = slots.alloc(40).unwrap();
        let b = slots.alloc(40).unwrap();
        assert_eq!((a.base, b.base), (0, 40));
        assert!(slots.alloc(40).is_none());
        slots.free(a);
        // Only cooling regions are left: it waits for one.
        assert_eq!(slots.alloc(30), Some(Region { base: 0, len: 30 }));
        assert_eq!(slots.alloc(20), Some(Region { base: 80, len: 20 }));
        assert_eq!(slots.alloc(10), Some(Region { base: 30, len: 10 }));
        assert_eq!(slots.alloc(1), None);
        assert_eq!(slots.alloc(0), Some(Region::default()));
    }
}
