//! Any image holds a symbol table or none.
//!
//! `cargo +nightly fuzz run symbol_table`; without nightly, `crates/l1/tests/corpus.rs` replays the corpus.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = hypovisor_l1::fuzzing::symbol_table(data);
});
