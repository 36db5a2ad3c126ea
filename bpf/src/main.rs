//! The BPF object of Dirigent: every program and map of one director, in one file,
//! so that XDP and tc share the maps by construction. Thin shells: what happens to
//! a packet is decided in dirigent-director.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod expire;
mod losses;
mod maps;
mod skb;
mod tc;
mod window;
mod xdp;

/// GPL helpers may be called by programs whose licence the kernel counts as GPL.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Never linked: the build script refuses an object that refers to it.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
