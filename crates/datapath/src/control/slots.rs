//! Who has which part of the slots.

use std::collections::BTreeMap;
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
    /// Given back, oldest first, and still in `used`.
    cooling: Vec<(Region, Instant)>,
}

impl Slots {
    /// No slot is in use.
    pub fn new(room: u32) -> Self {
        Self { room, used: BTreeMap::new(), cooling: Vec::new() }
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
        }
    }
    fn first_fit(&mut self, len: u32) -> Option<Region> {
        let mut base = 0u32;
        for (start, used) in &self.used {
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
