//! The learning step: user space writes what other directors told of connections, this enters
//! it, by the same steps as the packet path.

use core::ffi::c_void;

use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use dirigent_director::sync::learn;

use crate::maps::{KernelTables, lesson};
use crate::step;

extern "C" fn learn_one(i: u32, _: *mut c_void) -> i64 {
    let mut tables = KernelTables::aside();
    match lesson(i) {
        Some((lesson, four, six)) => {
            learn::learn(&mut tables, lesson, four, six);
            0
        }
        None => 1,
    }
}

#[xdp]
pub fn dirigent_learn(ctx: XdpContext) -> u32 {
    step::each(&ctx, learn_one)
}
