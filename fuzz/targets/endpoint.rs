//! Frames against the server's end of tunnels, through the in-memory executor's frames.
//!
//! The first byte: bit 0: what the server sends, not what comes in; 1: only directors are
//! heard; 2: the IPv4 checksum is made right; 3: the same behind the first 20 bytes of the
//! packet; 4: segments that were put together; 5: the device has taken a priority tag out.
//! Checked: no panic, and what `ends::hold` says.
#![no_main]

#[path = "../../crates/director/tests/support/ends.rs"]
mod ends;
#[allow(dead_code, reason = "the executor uses its part")]
#[path = "../../crates/datapath/src/keys.rs"]
mod keys;
/// The executor's own source: as a dependency, its crate would build the BPF object too.
#[allow(dead_code, unused_imports, reason = "the target uses its part")]
#[path = "../../crates/datapath/src/memory/mod.rs"]
mod memory;

use dirigent_director::endpoint::{TERMS_VERSION, Terms};
use dirigent_wire::{Be16, Mac, checksum};
use ends::{Ends, hold};
use libfuzzer_sys::fuzz_target;
use memory::{Frame, Incoming};

fuzz_target!(|data: &[u8]| {
    let Some((how, frame)) = data.split_first() else { return };
    let on = |bit: u8| how >> bit & 1 != 0;
    let mut frame = frame.to_vec();
    // Inside first: the outer sum does not cover it.
    for (bit, at) in [(3, 34), (2, 14)] {
        if on(bit) {
            mend(&mut frame, at);
        }
    }
    let terms = Terms {
        version: TERMS_VERSION,
        kinds: 0b1110,
        port: Be16::new(6080),
        mac: Mac::new([2, 0, 0, 0, 0, 1]),
        mss4: 1400,
        mss6: 1380,
        known_directors: on(1).into(),
        spare: 0,
    };
    let vip6 = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];
    let director6 = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let ends = Ends { terms: Some(terms), vips: ([192, 0, 2, 10], vip6), directors: ([10, 0, 0, 1], director6) };
    let (gso, tag) = (if on(4) { 1400 } else { 0 }, on(5).then_some(0));
    let make = |frame: &[u8]| {
        let packet = Incoming { frame, ingress: 2, gso_size: gso, stripped_tag: tag, mark: 0 };
        Frame::<true, true>::new(&packet).later()
    };
    hold(&ends, &frame, on(0), make, |frame| frame.bytes().to_vec());
});

/// Makes the checksum of an IPv4 header right, options and all.
fn mend(frame: &mut [u8], at: usize) {
    let header = frame.get(at).map_or(0, |b| usize::from(b & 15) * 4);
    if frame.get(at).is_some_and(|b| b >> 4 == 4) && header >= 20 && frame.len() >= at + header {
        frame[at + 10..at + 12].fill(0);
        let check = !checksum::sum_bytes(&frame[at..at + header]);
        frame[at + 10..at + 12].copy_from_slice(&check.to_ne_bytes());
    }
}
