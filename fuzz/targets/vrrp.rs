//! VRRP: bytes as packets of each version, family and authentication, and as what happens to a sync
//! group and when. What is read says the same when it is written and read again; a router never
//! panics, wants to be called later than it was, and holds its addresses as a master only.
#![no_main]

use dirigent_failover::exercise;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    if first & 1 == 0 { exercise::codec(rest) } else { exercise::machine(rest) }
});
