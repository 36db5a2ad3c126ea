//! Round robin (ipvs-semantics §4.1): the first available server after the one
//! chosen last, wrapping once.

use super::{Client, available, list};
use crate::records::Service;
use crate::tables::{Step, Tables};

struct Scan {
    base: u32,
    len: u32,
    /// Position the scan begins at: the chosen one + 1.
    start: u32,
    found: Option<(u32, u32)>,
}

impl<T: Tables> Step<T> for Scan {
    fn step(&mut self, t: &T, i: u32) -> bool {
        let mut at = self.start.wrapping_add(i);
        if at >= self.len {
            at = at.wrapping_sub(self.len);
        }
        let Some(index) = t.slot(self.base.wrapping_add(at)) else { return false };
        if t.server(index).is_some_and(available) {
            self.found = Some((at, index));
            return false;
        }
        true
    }
}

/// One try: the server, and whether the cursor moved to it.
#[inline(never)]
fn attempt<T: Tables>(t: &T, service: &Service) -> Option<(u32, bool)> {
    let (base, len) = list(service);
    let cursor = service.cursor.load();
    let start = (cursor >> 32) as u32;
    let mut scan = Scan { base, len, start: if start >= len { 0 } else { start }, found: None };
    t.walk(len, &mut scan);
    let (at, index) = scan.found?;
    let moved = u64::from(at + 1) << 32 | cursor & 0xffff_ffff;
    Some((index, service.cursor.swap_if(cursor, moved)))
}

pub fn pick<T: Tables>(t: &T, service: &Service, _: &Client) -> Option<u32> {
    super::settle(|| attempt(t, service))
}
