//! Health checks' judges: any bytes, in any pieces.
#![no_main]

#[path = "../../crates/health/tests/support/exercise.rs"]
#[allow(dead_code)]
mod exercise;

libfuzzer_sys::fuzz_target!(|data: &[u8]| exercise::checks(data));
