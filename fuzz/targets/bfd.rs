//! BFD: a session whose neighbour, clock and operator do anything.
#![no_main]

#[path = "../../crates/health/tests/support/exercise.rs"]
#[allow(dead_code)]
mod exercise;

libfuzzer_sys::fuzz_target!(|data: &[u8]| exercise::session(data));
