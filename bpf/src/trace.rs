//! Tracing. It is off unless the daemon turns it on, and then costs a look: a word is read, and is 0. When it
//! is on, the first program of a packet path hands the packet to one that notes how it came, which hands it on to a first
//! program that, as all later ones do, hands it to one that tells of it. What is told, and of which packets, is decided in
//! dirigent-director, module `trace`.

use aya_ebpf::btf_maps::{Array, PerCpuArray, ProgramArray, RingBuf};
use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns};
use aya_ebpf::macros::btf_map;
use dirigent_director::Verdict;
use dirigent_director::packet::Packet;
use dirigent_director::shared::S64;
use dirigent_director::trace::{self, Head, KEPT, Life, Wanted, by};

use crate::maps::KernelTables;
use crate::window::{Load, bounded};

/// Whether it is on: not 0. Each load of the object has its own.
#[unsafe(no_mangle)]
static TRACING: S64 = S64::new(0);

/// Packets under way, by [`by`]: an egress program may run in the middle of an ingress program.
#[btf_map]
static LIVES: PerCpuArray<Life, 4> = PerCpuArray::new();
/// Which packets are told of.
#[btf_map]
static WANTED: Array<Wanted, 1> = Array::new();
/// How many more may be told of, and how many were not, for want of that or of room.
#[btf_map]
static BUDGET: Array<S64, 2> = Array::new();
/// What is told.
#[btf_map]
static TOLD: RingBuf<Life, { 1 << 20 }> = RingBuf::new();

/// The programs that a traced packet goes through, beside the stages.
pub type Around = ProgramArray<3>;
/// Notes how the packet came.
pub const BEFORE: u32 = 0;
/// The first program, which does not ask any more whether packets are traced.
pub const FIRST: u32 = 1;
/// Tells of the packet.
pub const AFTER: u32 = 2;

/// Whether packets are traced.
#[inline(always)]
pub fn on() -> bool {
    TRACING.load() != 0
}

/// Copies the first bytes of a packet of so many; returns that, and how many were copied.
#[inline(always)]
fn copy(len: u32, to: &mut [u8; KEPT], from: &impl Load) -> [u32; 2] {
    if len == 0 {
        return [0; 2];
    }
    let kept = bounded::<KEPT>(if len < KEPT as u32 { len } else { KEPT as u32 });
    [len, if from.load(0, to.as_mut_ptr(), kept) { kept } else { 0 }]
}

/// The element of this CPU for a program of this kind.
#[inline(always)]
fn life(who: u32) -> Option<&'static mut Life> {
    // SAFETY: a per-CPU element, and no other program of this kind runs on this CPU meanwhile. Zero at first, which is a
    // value of every field.
    LIVES.get_ptr_mut(who).map(|life| unsafe { &mut *life })
}

/// Notes how a packet came.
#[inline(always)]
pub fn began<P: Packet>(who: u32, packet: &P, from: &impl Load) {
    let (Some(wanted), Some(life)) = (WANTED.get(0), life(who)) else { return };
    zero(&mut life.head);
    life.head.came = copy(packet.len(), &mut life.incoming, from);
    life.head.interface = packet.ingress();
    // SAFETY: no arguments.
    (life.head.time, life.head.cpu) = unsafe { (bpf_ktime_get_ns(), bpf_get_smp_processor_id()) };
    let tables = KernelTables::aside();
    if trace::begin(packet, &tables, wanted, &mut life.head) {
        life.head.by = who;
    }
}

/// Word by word, lest it become a call of memset.
#[inline(always)]
fn zero(head: &mut Head) {
    let words = core::ptr::from_mut(head).cast::<u64>();
    let mut i = 0;
    while i < size_of::<Head>() / 8 {
        // SAFETY: within the head, which is 8-aligned; zero is a value of every field.
        unsafe { words.add(i).write_volatile(0) };
        i += 1;
    }
}

/// Notes what becomes of it.
#[inline(always)]
pub fn decided(who: u32, verdict: &Verdict, returned: u32) {
    if let Some(life) = life(who) {
        trace::decided(&mut life.head, verdict, returned);
    }
}

/// Tells of it, as it now is, if it is wanted; returns what the packet path returned.
#[inline(always)]
pub fn ended<P: Packet>(who: u32, packet: &P, from: &impl Load) -> Option<u32> {
    let life = life(who)?;
    let returned = life.head.returned;
    if life.head.by == who {
        tell(packet, life, from);
        life.head.by = by::NOBODY;
    }
    Some(returned)
}

#[inline(always)]
fn tell<P: Packet>(packet: &P, life: &mut Life, from: &impl Load) {
    let (Some(wanted), Some(budget), Some(withheld)) = (WANTED.get(0), BUDGET.get(0), BUDGET.get(1)) else { return };
    let tables = KernelTables::aside();
    if !trace::end(&tables, wanted, &mut life.head) {
        return;
    }
    let left = budget.load();
    // Another CPU may take it at once: then that one is told of.
    if left == 0 || !budget.swap_if(left, left - 1) {
        withheld.add(1);
        return;
    }
    life.head.left = copy(packet.len(), &mut life.outgoing, from);
    if TOLD.output_untyped::<Life>(&*life, 0).is_err() {
        withheld.add(1);
    }
}
