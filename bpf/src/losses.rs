//! Frames that the kernel lost after the verdict: counted, so that they are not
//! lost without a word. Tracepoints tell the interface, not whose program it
//! was; only links of this director count.

use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;
use dirigent_director::Reason;
use dirigent_director::tables::Tables;

use crate::maps::{KernelTables, count_reasons};

/// Adds `n` losses of frames that came in by `ifindex`.
#[inline(always)]
fn lost(ifindex: Result<i32, i32>, n: Result<i32, i32>) -> u32 {
    let (Ok(ifindex), Ok(n)) = (ifindex, n) else { return 0 };
    let tables = KernelTables { ctx: core::ptr::null_mut() };
    if n > 0 && tables.link(ifindex as u32).is_some() {
        count_reasons(Reason::TransmitFailed, n as u64);
    }
    0
}

// Offsets of fields as in events/xdp/*/format of tracefs (the same since 5.6).

/// XDP_TX or a verdict the driver cannot carry out.
#[tracepoint]
pub fn dirigent_lost_exception(ctx: TracePointContext) -> u32 {
    // SAFETY: the field is within the record.
    lost(unsafe { ctx.read_at(16) }, Ok(1))
}

/// bpf_redirect to an interface that cannot transmit.
#[tracepoint]
pub fn dirigent_lost_redirect(ctx: TracePointContext) -> u32 {
    // SAFETY: the field is within the record.
    lost(unsafe { ctx.read_at(16) }, Ok(1))
}

/// Frames the outgoing device did not take.
#[tracepoint]
pub fn dirigent_lost_transmit(ctx: TracePointContext) -> u32 {
    // SAFETY: the fields are within the record.
    unsafe { lost(ctx.read_at(8), ctx.read_at(20)) }
}

/// Frames the incoming device did not take back (XDP_TX in bulk).
#[tracepoint]
pub fn dirigent_lost_return(ctx: TracePointContext) -> u32 {
    // SAFETY: the fields are within the record.
    unsafe { lost(ctx.read_at(8), ctx.read_at(16)) }
}
