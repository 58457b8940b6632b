//! Any bytes in a ring: reading ends, what was read can be written again, and every call that entered comes out of
//! the pairing, with a line and an object.
//!
//! `cargo +nightly fuzz run read_records`; without nightly, `crates/engine/tests/corpus.rs` replays the corpus.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    hypovisor_event::fuzzing::read_records(data);
    hypovisor_engine::fuzzing::pair_records(data);
});
