//! Any bytes are a rule file, or problems; what compiles survives the wire.
//!
//! `cargo +nightly fuzz run rule_file`; without nightly, `crates/rules/tests/properties.rs` replays the corpus.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = hypovisor_rules::fuzzing::rule_file(data);
});
