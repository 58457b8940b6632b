//! What the fuzz targets and the tests share.

use std::path::Path;

use hypovisor_abi::Width;

use crate::encode::{MAX_MEMORY_BYTES, Place, Plan};
use crate::file::{Campaign, Step};
use crate::value::Saved;

/// Repetitions of a step that are laid out.
const REPETITIONS: u64 = 4;

/// The form of a campaign file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Ours.
    Yaml,
    /// hInjector's.
    Xml,
}

/// Reads a campaign file that holds these bytes, and lays out what it asks for. `None`: it is no campaign; else how many
/// calls could be laid out.
///
/// # Panics
/// If an error does not name the file, or a bound is not kept.
#[must_use]
pub fn campaign(data: &[u8], form: Form) -> Option<usize> {
    let path = Path::new(if form == Form::Yaml { "fuzz.yaml" } else { "fuzz.xml" });
    let campaign = match Campaign::from_text(path, &String::from_utf8_lossy(data)) {
        Ok(campaign) => campaign,
        Err(error) => {
            assert!(error.to_string().starts_with("fuzz."), "an error without the file's name: {error}");
            return None;
        }
    };
    Some(campaign.steps.iter().map(|step| laid_out(step, campaign.seed)).sum())
}

fn laid_out(step: &Step, seed: u64) -> usize {
    let calls = (0..step.repeat.min(REPETITIONS))
        .flat_map(|repetition| [Width::Bits64, Width::Bits32].map(|width| (repetition, width)));
    let plans = calls.filter_map(|(repetition, width)| {
        Some((step.plan(width, seed, repetition, &Saved::new()).ok()?, width))
    });
    plans.inspect(|(plan, width)| check(plan, *width)).count()
}

/// All that a plan refers to is in it.
fn check(plan: &Plan, width: Width) {
    let bytes = plan.memory.len();
    assert!(bytes <= MAX_MEMORY_BYTES, "{bytes} bytes of memory");
    for relocation in &plan.relocations {
        assert!(relocation.target as usize <= bytes, "{relocation:?} leads out of {bytes} bytes");
        let fits = match relocation.place {
            Place::Register(register) => usize::from(register) < plan.registers.len(),
            Place::Memory(offset) => offset as usize + width.word_bytes() as usize <= bytes,
        };
        assert!(fits, "{relocation:?} is outside of {bytes} bytes");
    }
}
