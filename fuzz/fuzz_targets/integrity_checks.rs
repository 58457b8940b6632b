//! Whatever an L1's memory holds, it can be looked at, and the findings are no more than anybody could read.
//!
//! `cargo +nightly fuzz run integrity_checks`; without nightly, `crates/integrity/src/tests.rs` replays the corpus.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = hypovisor_integrity::fuzzing::check_damaged(data);
});
