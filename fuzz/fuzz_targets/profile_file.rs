//! Any bytes are a profile that calls are compared with, or an error. The calls' records follow behind a NUL.
//!
//! `cargo +nightly fuzz run profile_file`; without nightly, `crates/engine/tests/corpus.rs` replays the corpus.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (profile, records) = data.split_at(data.iter().position(|byte| *byte == 0).unwrap_or(data.len()));
    let _ = hypovisor_engine::fuzzing::profile_file(profile, records);
});
