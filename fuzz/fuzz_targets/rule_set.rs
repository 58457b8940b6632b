//! Any bytes are a compiled rule set, or malformed; any set judges any call within its bounds.
//!
//! `cargo +nightly fuzz run rule_set`; without nightly, `crates/rules/tests/properties.rs` replays the corpus.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = hypovisor_rules::fuzzing::rule_set_input(data);
});
