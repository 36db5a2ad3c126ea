//! Bounds-checked access to a packet's first bytes, shared by XDP and tc.

use core::arch::asm;
use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::helpers::bpf_csum_diff;
use dirigent_director::packet::Words;
use dirigent_wire::{Addr4, Addr6, EthHeader, Header, Ipv4Header, Ipv6Header, Mac, checksum};

/// Offsets of `data` and `data_end` in a context.
pub trait Context {
    /// In `struct xdp_md` or `struct __sk_buff`.
    const DATA: i32;
    /// The same.
    const DATA_END: i32;
}

/// Mask of offsets: the verifier wants a bound even where one is known.
const MAX_OFFSET: usize = 0x7fff;

/// The address of `len` bytes at `off`, if they lie in the packet.
///
/// Both pointers are loaded in one opaque block: left to itself the compiler
/// hoists and rearranges the loads into arithmetic that the verifier refuses.
#[inline(always)]
pub fn window<C: Context>(ctx: *mut c_void, off: usize, len: usize) -> Option<usize> {
    let (at, end): (usize, usize);
    // SAFETY: reads two fields of a live context; an address in a packet is none of a null pointer.
    unsafe {
        asm!(
            "{d} = *(u32 *)({c} + {data})",
            "{e} = *(u32 *)({c} + {end})",
            "{d} += {off}",
            d = out(reg) at, e = out(reg) end, c = in(reg) ctx, off = in(reg) off & MAX_OFFSET,
            data = const C::DATA, end = const C::DATA_END,
            options(nostack, readonly),
        );
        // No packet lies at the address 0, or each of its headers would be compared with it.
        core::hint::assert_unchecked(at != 0);
    }
    if at + len > end { None } else { Some(at) }
}

/// The header at `off`, if it lies in the packet. Any bytes are a value of it, and it needs
/// no more alignment than packets have.
#[inline(always)]
pub fn header<C: Context, H: Header>(ctx: *mut c_void, off: usize) -> Option<*mut H> {
    window::<C>(ctx, off, H::LEN).map(|at| at as *mut H)
}

/// Headers by eight and four bytes: every machine that this is for reads them at any address (and the verifier of others
/// counts with two bytes in front of the packet, with which addresses are aligned).
pub struct Whole;

impl Words for Whole {
    #[inline(always)]
    fn recipient(eth: &EthHeader) -> Mac {
        // SAFETY: any bytes are words.
        let [a, b, c, _] = unsafe { core::mem::transmute::<u64, [u16; 4]>(eight::<0, _>(eth)) };
        Mac([a, b, c])
    }
    #[inline(always)]
    fn ends4(ip: &Ipv4Header) -> (Addr4, Addr4) {
        // SAFETY: any bytes are addresses.
        let [src, dst] = unsafe { core::mem::transmute::<u64, [Addr4; 2]>(eight::<12, _>(ip)) };
        (src, dst)
    }
    #[inline(always)]
    fn ends6(ip: &Ipv6Header) -> (Addr6, Addr6) {
        // SAFETY: as of IPv4.
        let address = |a, b| unsafe { core::mem::transmute::<[u64; 2], Addr6>([a, b]) };
        (address(eight::<8, _>(ip), eight::<16, _>(ip)), address(eight::<24, _>(ip), eight::<32, _>(ip)))
    }
    #[inline(always)]
    fn put6(to: &mut Addr6, addr: Addr6) {
        // SAFETY: an address is two times eight bytes.
        unsafe {
            let [a, b] = core::mem::transmute::<Addr6, [u64; 2]>(addr);
            asm!("*(u64 *)({t} + 0) = {a}", "*(u64 *)({t} + 8) = {b}", t = in(reg) to, a = in(reg) a, b = in(reg) b,
                options(nostack));
        }
    }
    #[inline(always)]
    fn sound4(ip: &Ipv4Header) -> bool {
        let sum = four::<0, _>(ip) + four::<4, _>(ip) + four::<8, _>(ip) + four::<12, _>(ip) + four::<16, _>(ip);
        let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
        // Folded once more, either were 0xffff.
        sum == 0xffff || sum == 2 * 0xffff
    }
}

/// Functions that load so many bytes of a header, `AT` from its start.
macro_rules! loads {
    ($($name:ident: $word:literal, $bytes:literal;)*) => { $(
        #[inline(always)]
        fn $name<const AT: i16, H: Header>(header: &H) -> u64 {
            const { assert!(AT >= 0 && AT as usize + $bytes <= H::LEN) };
            let word: u64;
            // SAFETY: within the header.
            unsafe {
                asm!(concat!("{w} = *(", $word, " *)({h} + {at})"), w = lateout(reg) word, h = in(reg) header,
                    at = const AT, options(pure, readonly, nostack));
            }
            word
        }
    )* };
}

loads! {
    eight: "u64", 8;
    four: "u32", 4;
}

/// Calls `step` for 0 to `n` − 1 until it returns other than 0.
///
/// The kernel inlines `bpf_loop` and compares the whole register that holds `n`;
/// the compiler leaves in its upper half whatever was there. So it is cleared here.
///
/// # Safety
/// `step` must take `context` for what it is, and outlive nothing.
#[inline(always)]
pub unsafe fn repeat(mut n: u32, step: extern "C" fn(u32, *mut c_void) -> i64, context: *mut c_void) {
    // SAFETY: arithmetic on one register, which clears its upper half; then as the caller promises.
    unsafe {
        asm!("{n} += 0", n = inout(wreg) n, options(nostack));
        aya_ebpf::helpers::bpf_loop(n, step as *mut c_void, context, 0);
    }
}

/// The same number, of which the verifier knows nothing any more: a global function, as its BTF says, is verified by
/// itself, and of what it returns only the type is known.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn dirigent_forget(mut value: u64) -> u64 {
    // SAFETY: arithmetic on one register, lest the compiler see that it is the same.
    unsafe { asm!("{v} += 0", v = inout(reg) value, options(nostack)) };
    value
}

/// What one step of a sum reads. Small, as it lies on the stack below the largest program's:
/// 512 bytes for all, of which kernel 6.1 gives each function a multiple of 32.
pub type Chunk = [u64; 2];

/// Its bytes.
const CHUNK: usize = size_of::<Chunk>();

/// A helper that copies packet bytes: `bpf_xdp_load_bytes` or `bpf_skb_load_bytes`.
pub trait Load {
    /// Copies `len` bytes at `off` to where there is room for them.
    fn load(&self, off: u32, to: *mut u8, len: u32) -> bool;
}

struct Sum<L> {
    from: L,
    off: u32,
    left: u32,
    sum: u32,
    failed: bool,
}

/// One step: the next chunk, or the fewer that are left.
extern "C" fn add_chunk<L: Load>(_: u32, sum: *mut c_void) -> i64 {
    // SAFETY: `sum` passes its own value.
    let sum = unsafe { &mut *sum.cast::<Sum<L>>() };
    let mut room = MaybeUninit::<Chunk>::uninit();
    let words = room.as_mut_ptr().cast::<u64>();
    let mut i = 0;
    while i < CHUNK / 8 {
        // SAFETY: within the array; volatile, lest it become a memset call.
        unsafe { words.add(i).write_volatile(0) };
        i += 1;
    }
    // SAFETY: all of it is set.
    let buffer = unsafe { &mut *room.as_mut_ptr() };
    let len = bounded::<CHUNK>(if sum.left > CHUNK as u32 { CHUNK as u32 } else { sum.left });
    let loaded = sum.from.load(sum.off, buffer.as_mut_ptr().cast(), len);
    if !loaded {
        sum.failed = true;
        return 1;
    }
    // SAFETY: the buffer's bytes are a multiple of 4; bytes not loaded are 0.
    let added = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, buffer.as_mut_ptr().cast(), CHUNK as u32, sum.sum) };
    sum.sum = added as u32;
    sum.off += CHUNK as u32;
    sum.left = sum.left.saturating_sub(CHUNK as u32);
    i64::from(sum.left == 0)
}

/// The folded sum of `len` bytes at `off`.
#[inline(never)]
pub fn sum<L: Load>(from: L, off: u32, len: u32) -> Option<u16> {
    let mut sum = Sum { from, off, left: len, sum: 0, failed: false };
    // SAFETY: `add_chunk::<L>` casts the pointer back to what it is.
    unsafe { repeat(len.div_ceil(CHUNK as u32), add_chunk::<L>, core::ptr::from_mut(&mut sum).cast()) };
    if sum.failed { None } else { Some(checksum::fold(sum.sum)) }
}

/// The same number, of 1 to `MOST` (a power of two), in a way that every kernel's verifier follows (that of 6.1 learns
/// nothing from `!= 0`).
#[inline(always)]
pub fn bounded<const MOST: usize>(mut len: u32) -> u32 {
    const { assert!(MOST.is_power_of_two()) };
    // SAFETY: arithmetic on one register.
    unsafe {
        asm!("{l} += -1", "{l} &= {mask}", "{l} += 1", l = inout(wreg) len, mask = const MOST - 1, options(nostack));
    }
    len
}
