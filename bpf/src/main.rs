//! The BPF object of Dirigent: every program and map of one director, in one file,
//! so that XDP and tc share the maps by construction. Thin shells: what happens to
//! a packet is decided in dirigent-director.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod expire;
mod learn;
mod losses;
mod maps;
mod object;
mod skb;
mod step;
mod tc;
mod trace;
mod window;
mod xdp;
