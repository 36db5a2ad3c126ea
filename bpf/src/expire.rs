//! The expire step: user space names idle candidates, this removes those that
//! are past their timeout, by the same compare-and-swap as the packet path.

use core::ffi::c_void;

use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use dirigent_director::conn;

use crate::maps::{KernelTables, candidate};
use crate::step;

extern "C" fn expire_one(i: u32, _: *mut c_void) -> i64 {
    let mut tables = KernelTables::aside();
    match candidate(i) {
        Some(candidate) => {
            conn::expire_candidate(&mut tables, candidate);
            0
        }
        None => 1,
    }
}

#[xdp]
pub fn dirigent_expire(ctx: XdpContext) -> u32 {
    step::each(&ctx, expire_one)
}
