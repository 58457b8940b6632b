//! Any bytes are a policy that makes rules, or an error.
//!
//! `cargo +nightly fuzz run policy_file`; without nightly, `crates/engine/tests/corpus.rs` replays the corpus.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = hypovisor_engine::fuzzing::policy_file(data);
});
