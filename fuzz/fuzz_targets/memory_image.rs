//! Any bytes are a memory image, or an error; what it describes can be read, and a search through it ends.
//!
//! `cargo +nightly fuzz run memory_image`; without nightly, `crates/dump/tests/images/corpus.rs` replays the corpus.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = hypovisor_dump::fuzzing::memory_image(data);
});
