//! Runs `ebb_tests::fuzz::frames`, which says what must hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ebb_tests::fuzz::frames(bytes));
