//! Words that several CPUs (and user space, through a memory-mapped map) touch
//! at once. The only `unsafe` of this crate: on the BPF target rustc has no
//! atomics narrower than its `singlethread` lowering allows, so the kernel's
//! atomic instructions are written out; elsewhere they are `core`'s atomics.

#[cfg(target_arch = "bpf")]
#[expect(unsafe_code, reason = "the kernel's atomic instructions on BPF")]
mod imp {
    use core::arch::asm;
    use core::cell::UnsafeCell;

    /// A 64-bit word.
    #[repr(transparent)]
    pub struct S64(UnsafeCell<u64>);

    impl S64 {
        /// A word that holds `v`.
        #[inline(always)]
        pub const fn new(v: u64) -> Self {
            Self(UnsafeCell::new(v))
        }
        /// Reads the word.
        #[inline(always)]
        pub fn load(&self) -> u64 {
            // SAFETY: `self` is valid; 8 aligned bytes are read in one instruction.
            unsafe { core::ptr::read_volatile(self.0.get()) }
        }
        /// Writes the word.
        #[inline(always)]
        pub fn store(&self, v: u64) {
            // SAFETY: as `load`; written in one instruction.
            unsafe { core::ptr::write_volatile(self.0.get(), v) }
        }
        /// Adds, wrapping.
        #[inline(always)]
        pub fn add(&self, v: u64) {
            // SAFETY: `self` is valid and 8-aligned, which `lock add` needs.
            unsafe {
                asm!("lock *(u64 *)({p} + 0) += {v}", p = in(reg) self.0.get(), v = in(reg) v, options(nostack));
            }
        }
        /// Writes `new` if the word is `old`; says whether it was.
        #[inline(always)]
        pub fn swap_if(&self, old: u64, new: u64) -> bool {
            let seen: u64;
            // SAFETY: as `add`; r0 holds the expected value and gets the one seen.
            unsafe {
                asm!("r0 = cmpxchg_64({p} + 0, r0, {n})", p = in(reg) self.0.get(), n = in(reg) new,
                    inlateout("r0") old => seen, options(nostack));
            }
            seen == old
        }
    }

    /// A 32-bit word that is only read and written whole.
    #[repr(transparent)]
    pub struct S32(UnsafeCell<u32>);

    impl S32 {
        /// A word that holds `v`.
        #[inline(always)]
        pub const fn new(v: u32) -> Self {
            Self(UnsafeCell::new(v))
        }
        /// Reads the word.
        #[inline(always)]
        pub fn load(&self) -> u32 {
            // SAFETY: `self` is valid; 4 aligned bytes are read in one instruction.
            unsafe { core::ptr::read_volatile(self.0.get()) }
        }
        /// Writes the word.
        #[inline(always)]
        pub fn store(&self, v: u32) {
            // SAFETY: as `load`; written in one instruction.
            unsafe { core::ptr::write_volatile(self.0.get(), v) }
        }
    }

    // SAFETY: every access above is one instruction of the kernel's machine.
    unsafe impl Sync for S64 {}
    // SAFETY: as for `S64`.
    unsafe impl Sync for S32 {}
}

#[cfg(not(target_arch = "bpf"))]
mod imp {
    use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

    /// A 64-bit word.
    #[repr(transparent)]
    pub struct S64(AtomicU64);

    impl S64 {
        /// A word that holds `v`.
        pub const fn new(v: u64) -> Self {
            Self(AtomicU64::new(v))
        }
        /// Reads the word.
        pub fn load(&self) -> u64 {
            super::point();
            self.0.load(Ordering::Relaxed)
        }
        /// Writes the word.
        pub fn store(&self, v: u64) {
            super::point();
            self.0.store(v, Ordering::Relaxed);
        }
        /// Adds, wrapping.
        pub fn add(&self, v: u64) {
            super::point();
            self.0.fetch_add(v, Ordering::AcqRel);
        }
        /// Writes `new` if the word is `old`; says whether it was.
        pub fn swap_if(&self, old: u64, new: u64) -> bool {
            super::point();
            self.0.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        }
    }

    /// A 32-bit word that is only read and written whole.
    #[repr(transparent)]
    pub struct S32(AtomicU32);

    impl S32 {
        /// A word that holds `v`.
        pub const fn new(v: u32) -> Self {
            Self(AtomicU32::new(v))
        }
        /// Reads the word.
        pub fn load(&self) -> u32 {
            super::point();
            self.0.load(Ordering::Relaxed)
        }
        /// Writes the word.
        pub fn store(&self, v: u32) {
            super::point();
            self.0.store(v, Ordering::Relaxed);
        }
    }
}

/// Where another CPU may come in between.
#[cfg(not(target_arch = "bpf"))]
#[inline(always)]
fn point() {
    #[cfg(feature = "model")]
    model::point();
}

/// For tests: what is called before each access to a shared word, so that all that happens
/// between CPUs can be made to happen.
#[cfg(feature = "model")]
pub mod model {
    extern crate std;
    use core::cell::Cell;

    std::thread_local! {
        static POINT: Cell<Option<fn()>> = const { Cell::new(None) };
    }

    /// From now on this thread calls it.
    pub fn at_each_access(call: Option<fn()>) {
        POINT.set(call);
    }
    pub(super) fn point() {
        if let Some(call) = POINT.get() {
            call();
        }
    }
}

pub use imp::{S32, S64};

impl Clone for S64 {
    #[inline(always)]
    fn clone(&self) -> Self {
        Self::new(self.load())
    }
}

impl Clone for S32 {
    #[inline(always)]
    fn clone(&self) -> Self {
        Self::new(self.load())
    }
}

impl Default for S64 {
    #[inline(always)]
    fn default() -> Self {
        Self::new(0)
    }
}

impl Default for S32 {
    #[inline(always)]
    fn default() -> Self {
        Self::new(0)
    }
}

impl core::fmt::Debug for S64 {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#x}", self.load())
    }
}

impl core::fmt::Debug for S32 {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#x}", self.load())
    }
}
