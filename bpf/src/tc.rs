//! The tc shells: ingress, egress.

use aya_ebpf::{bindings::TC_ACT_UNSPEC, macros::classifier, programs::TcContext};

#[classifier]
pub fn dirigent_ingress(_ctx: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

#[classifier]
pub fn dirigent_egress(_ctx: TcContext) -> i32 {
    TC_ACT_UNSPEC
}
