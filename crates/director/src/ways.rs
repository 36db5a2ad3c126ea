//! Ways to clients that reply entries remember, so that not each packet asks the kernel's routing table.
//!
//! A way is asked for again when user space has heard of a change of routes, rules, neighbours, links or addresses, and has
//! counted [`Settings::ways`] on. As long as user space says now and then that it is there to tell
//! ([`Settings::ways_followed`]), no other packet asks, but once in some minutes. Where it does not, because it ended, or is
//! busy, a way is good for a period ([`period`]): a director without its daemon follows changes too, within a second. Packets
//! longer than the way carries ask each for themselves.
//!
//! [`Conn::link`] holds the next hop's MAC in its low 48 bits and the interface above, [`Conn::timeout`] the number under
//! which it was found in the low half and the largest packet's bytes in the high one: 0, as entries begin, remembers
//! nothing. The interface's own MAC is looked up.

use crate::conn::Held;
use crate::forward::Way;
use crate::records::Settings;
use crate::tables::{Route, Tables};
use dirigent_wire::Mac;

/// A way whose changes somebody follows is good for so many times a period, as a power of two: some minutes.
const LONG: u32 = 10;

/// The number after this one: [`Settings::ways`].
#[must_use]
pub const fn next(ways: u32) -> u32 {
    ways % 0xffff + 1
}

/// [`Settings::ways_period`] of a clock that ticks so many times a second: the longest power of two of ticks with which it
/// and the time for which user space is trusted, its half, are no longer than a second.
#[must_use]
pub const fn period(hz: u32) -> u32 {
    match (hz * 2 / 3).checked_ilog2() {
        Some(bit) => !((1 << bit) - 1),
        None => u32::MAX,
    }
}

/// Whether a way that was good at `then` is still, of those of the same number.
#[inline(always)]
fn lasts(settings: &Settings, then: u32, now: u32) -> bool {
    let (period, passed) = (settings.ways_period, now ^ then);
    if passed & period == 0 {
        return true;
    }
    let half = (period as i32 >> 1) as u32;
    passed & (period << LONG) == 0 && now.wrapping_sub(settings.ways_followed) & half == 0
}

/// The way of this entry's packet of `len` bytes, if it is remembered.
#[inline(always)]
pub fn recall<A, T: Tables>(t: &T, settings: &Settings, conn: &Held<'_, A>, len: u32) -> Option<Way> {
    let found = conn.timeout.load();
    if found as u16 != settings.ways as u16 || len > found >> 16 || !lasts(settings, conn.last_seen.load(), t.now()) {
        return None;
    }
    let to = conn.link.load();
    let ifindex = (to >> 48) as u32;
    let link = t.link(ifindex)?;
    let dst = Mac([to as u16, (to >> 16) as u16, (to >> 32) as u16]);
    Some(Way { resolved: true, src: link.mac, dst, ..Way::by(ifindex) })
}

/// Remembers what the routing table said, if that can be. (Two CPUs that ask while it changes may leave half of each
/// answer: until the period ends.)
#[inline(always)]
pub fn remember<A, T: Tables>(t: &T, settings: &Settings, conn: &Held<'_, A>, route: &Route) {
    let Route::To { ifindex, src, dst: Mac([a, b, c]), mtu } = *route else { return };
    let ours = |mac| t.link(ifindex).is_some_and(|link| link.mac == mac);
    if settings.ways == 0 || ifindex > u16::MAX.into() || !ours(src) {
        return;
    }
    conn.link.store(u64::from(a) | u64::from(b) << 16 | u64::from(c) << 32 | u64::from(ifindex) << 48);
    conn.timeout.store(settings.ways & 0xffff | mtu.min(0xffff) << 16);
    // Or another connection has the entry by now, whose way it is not.
    if !conn.lasts() {
        conn.timeout.store(0);
    }
}
