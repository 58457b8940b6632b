//! Any bytes are an ELF file with symbols and DWARF, or an error.
//!
//! `cargo +nightly fuzz run symbol_file`; without nightly, `crates/l1/tests/corpus.rs` replays the corpus.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = hypovisor_l1::fuzzing::symbol_file(data);
});
