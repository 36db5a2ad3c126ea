//! The XDP shell.

use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::Array,
    macros::{btf_map, xdp},
    programs::XdpContext,
};

/// The layout version of the pinned maps, written by whoever loads first.
#[btf_map]
static LAYOUT: Array<u32, 1> = Array::new();

#[xdp]
pub fn dirigent_xdp(_ctx: XdpContext) -> u32 {
    if LAYOUT.get(0).is_none() {
        return xdp_action::XDP_ABORTED;
    }
    xdp_action::XDP_PASS
}
