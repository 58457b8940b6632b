//! What to think of code that the sensor saw L1 execute.

use hypovisor_machine::{Gva, PhysicalMemory};

use crate::baseline::Baseline;
use crate::disassembly;
use crate::finding::{Finding, Item, Judgement};
use crate::livepatch::LivePatches;
use crate::target::Target;

/// So many bytes are told of an instruction.
pub type FirstBytes = [u8; 8];

/// An instruction at `rip` that was executed with other first bytes than the genuine ones, and is as it was.
pub fn changed_code<M: PhysicalMemory>(
    target: &Target<'_, M>,
    rip: Gva,
    genuine: &FirstBytes,
    executed: &FirstBytes,
) -> Finding {
    let place = target.name(rip);
    let message = format!("changed code was executed at {place}, which holds again what it held");
    let changed = genuine.iter().zip(executed).filter(|(genuine, executed)| genuine != executed).count();
    Finding::tampering(Item::Text, place, message)
        .at(rip, changed as u64)
        .compared(first_line(rip, genuine), first_line(rip, executed))
}

/// Whether memory still holds at `rip` what was executed there instead of the genuine bytes.
pub fn holds<M: PhysicalMemory>(
    target: &Target<'_, M>,
    rip: Gva,
    genuine: &FirstBytes,
    executed: &FirstBytes,
) -> bool {
    let Some(now) = target.bytes(rip, executed.len()) else { return false };
    // What was changed behind these bytes is not known, and so is not taken for something that still stands there.
    let is_as_executed = |at: usize| genuine[at] == executed[at] || now[at] == executed[at];
    genuine != executed && (0..executed.len()).all(is_as_executed)
}

/// Code in L1's part of the address space that is not in the pages of its image's code. `None` if it is L1's all the same, or that of a
/// live patch.
pub fn foreign_code<M: PhysicalMemory>(
    target: &Target<'_, M>,
    baseline: &Baseline,
    patches: &LivePatches,
    rip: Gva,
    executed: &FirstBytes,
) -> Option<Finding> {
    let is_own = baseline.is_own_unwatched_code(target, rip) || baseline.is_stub(target, rip);
    let judgement = patches.judge_code(rip);
    if is_own || matches!(judgement, Judgement::LivePatch { .. }) {
        return None;
    }
    let place = target.name(rip);
    let message = format!("code was executed at {place} that is not L1's");
    let finding = Finding::new(Item::Text, judgement, place, message).at(rip, 0);
    Some(finding.compared(Vec::new(), first_line(rip, executed)))
}

/// The instruction: what the sensor tells of a shorter one is filled up with zeros.
fn first_line(rip: Gva, bytes: &FirstBytes) -> Vec<String> {
    disassembly::lines(rip, bytes).into_iter().take(1).collect()
}
