//! Weighted round robin (ipvs-semantics §4.2): passes over the list, each for
//! the servers of at least the current weight, which falls by the weights'
//! common divisor from pass to pass.

use super::{Client, list, takes};
use crate::records::Service;
use crate::tables::{Step, Tables};

/// One run over at most three passes: the rest of the current one, one at the
/// next weight that any server reaches, and, after the round, one from the top.
struct Scan {
    base: u32,
    len: u32,
    start: u32,
    weight: u32,
    max: u32,
    step: u32,
    /// Largest usable weight met: where the next pass can find somebody.
    best: u32,
    /// A whole pass found nobody above zero.
    full: bool,
    found: Option<(u32, u32)>,
}

impl<T: Tables> Step<T> for Scan {
    fn step(&mut self, t: &T, _: u32) -> bool {
        if self.start >= self.len {
            // IPVS lowers the weight by `step` until a pass finds somebody: here
            // at once to where that will be.
            self.start = 0;
            let below = self.weight.saturating_sub(self.step);
            self.weight = match below {
                0 => self.max,
                w if self.full && self.best < w => {
                    if self.best == 0 {
                        return false;
                    }
                    // w − k·step is the first at or below `best`.
                    let gap = w - self.best;
                    let k = gap.div_ceil(self.step.max(1));
                    match w.saturating_sub(k.wrapping_mul(self.step)) {
                        0 => self.max,
                        w => w,
                    }
                }
                w => w,
            };
            if self.full && self.best == 0 {
                return false;
            }
            self.full = true;
        }
        let Some(index) = t.slot(self.base.wrapping_add(self.start)) else { return false };
        self.start += 1;
        if let Some(server) = t.server(index) {
            let weight = if takes(server) { server.weight.load() } else { 0 };
            self.best = self.best.max(weight);
            if weight > 0 && weight >= self.weight {
                self.found = Some((self.start - 1, index));
                return false;
            }
        }
        true
    }
}

/// One try: the server, and whether the cursor moved to it.
#[inline(never)]
fn attempt<T: Tables>(t: &T, service: &Service) -> Option<(u32, bool)> {
    let (base, len) = list(service);
    if service.wrr_max == 0 {
        return None;
    }
    let cursor = service.cursor.load();
    let weight = match cursor as u32 {
        0 => service.wrr_max,
        w => w.min(service.wrr_max),
    };
    let mut scan = Scan {
        base,
        len,
        start: (cursor >> 32) as u32,
        weight,
        max: service.wrr_max,
        step: service.wrr_step.max(1),
        best: 0,
        full: false,
        found: None,
    };
    t.walk(len.saturating_mul(4), &mut scan);
    let (at, index) = scan.found?;
    let moved = u64::from(at + 1) << 32 | u64::from(scan.weight);
    Some((index, service.cursor.swap_if(cursor, moved)))
}

pub fn pick<T: Tables>(t: &T, service: &Service, _: &Client) -> Option<u32> {
    super::settle(|| attempt(t, service))
}
