//! Is L1 still itself? Its code, its tables, its registers and its list of guests, looked at from outside.
//!
//! ```text
//!   memory (running, or an image of it) --+
//!   registers of its processors ----------+--> Target --> check --> Report: verified, findings, skipped
//!   symbols file --> Reference, Structures +
//! ```
//!
//! Nothing that L1 holds is believed when the file can say it. Where only L1 can, such as which live patches it applied, what
//! it says is shown. What is not understood is reported as unknown, with what would settle it, never as tampering.
//!
//! Everything read is hostile: work is bounded, and nothing panics.

#![forbid(unsafe_code)]

mod alternatives;
mod baseline;
mod disassembly;
pub mod domains;
mod executed;
mod finding;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod gates;
mod livepatch;
#[cfg(any(test, feature = "fuzzing"))]
mod made_up;
mod mappings;
mod pointers;
mod reference;
mod registers;
mod structures;
mod target;
mod tasks;
#[cfg(test)]
mod tests;
mod text;

use hypovisor_machine::{Gpa, PhysicalMemory};

pub use baseline::{Baseline, Changes};
pub use executed::{FirstBytes, changed_code, foreign_code, holds};
pub use finding::{Finding, Item, Judgement, Report, Verified};
pub use livepatch::{LivePatch, LivePatches};
pub use reference::{NoBorder, Reference};
pub use structures::Structures;
pub use target::Target;

/// Looks at everything once. `ram` are the runs of L1's memory.
pub fn check<M: PhysicalMemory>(
    target: &Target<'_, M>,
    structures: &Structures,
    ram: &[(Gpa, u64)],
) -> Report {
    let mut report = Report::default();
    let patches = LivePatches::read(target, structures);
    if structures.is_empty() {
        report.skipped(Item::Text, "live patches, because the symbols file has no debug information");
    }
    text::check_text(target, &patches, &mut report);
    text::check_constants(target, &mut report);
    pointers::check_pointers(target, &mut report);
    pointers::check_exception_table(target, &mut report);
    check_state(target, structures, &patches, &mut report);
    check_domains(target, structures, ram, &mut report);
    report
}

/// Looks at what L1 changes as it runs: page tables, registers, gates and task segments.
pub fn check_state<M: PhysicalMemory>(
    target: &Target<'_, M>,
    structures: &Structures,
    patches: &LivePatches,
    report: &mut Report,
) {
    mappings::check(target, patches, report);
    gates::check(target, report);
    tasks::check(target, structures, report);
    registers::check(target, report);
}

/// Compares L1's lists of domains with each other, and with what lies in the runs `ram` of its memory.
pub fn check_domains<M: PhysicalMemory>(
    target: &Target<'_, M>,
    structures: &Structures,
    ram: &[(Gpa, u64)],
    report: &mut Report,
) {
    match domains::find(target, structures, ram) {
        Ok(domains) => domains::check(&domains, report),
        Err(error) => report.skipped(Item::Domains, error.to_string()),
    }
}
