//! Code and constants against the file that L1 was made with.

use hypovisor_machine::{Gva, PhysicalMemory};

use crate::alternatives::Places;
use crate::disassembly;
use crate::finding::{Finding, Item, Report};
use crate::livepatch::LivePatches;
use crate::reference::Range;
use crate::target::Target;

/// Differences that lie no further apart are one.
pub(crate) const GAP_BYTES: u64 = 8;
/// The most findings of one kind: who overwrites everything need not fill the report.
const MAX_FINDINGS: usize = 64;
/// The most bytes shown as bytes.
const MAX_SHOWN: usize = 32;
/// A near jump with a distance of 32 bits.
const JUMP_BYTES: usize = 5;
/// How much is disassembled in front of and behind a difference.
const SHOWN_BYTES: u64 = 16;

/// Compares the code.
pub(crate) fn check_text<M: PhysicalMemory>(
    target: &Target<'_, M>,
    patches: &LivePatches,
    report: &mut Report,
) {
    let text = target.reference.parts().text;
    let Some(places) = Places::read(target.reference) else {
        return report
            .skipped(Item::Text, "the symbols file does not say what L1 changes in its code at boot");
    };
    let compared = compare(target, text, Item::Text, |run| explained(target, &places, run));
    let explained = compared.findings.into_iter().map(|finding| {
        let jump = finding.address.and_then(|at| jump_at(target, at));
        patches.explain(finding, jump)
    });
    report.add(explained);
    report.verified(
        Item::Text,
        format!(
            "{} bytes of code against the symbols file, {} places that L1 may change at boot",
            compared.bytes,
            places.len()
        ),
    );
}

/// Compares the constants, without those that are set at boot.
pub(crate) fn check_constants<M: PhysicalMemory>(target: &Target<'_, M>, report: &mut Report) {
    let parts = target.reference.parts();
    let constants = Range { start: parts.set_at_boot.end, end: parts.constants.end };
    let compared = compare(target, constants, Item::Constants, |_| false);
    report
        .verified(Item::Constants, format!("{} bytes of constants against the symbols file", compared.bytes));
    report.add(compared.findings);
}

struct Compared {
    bytes: u64,
    findings: Vec<Finding>,
}

fn compare<M: PhysicalMemory>(
    target: &Target<'_, M>,
    range: Range,
    item: Item,
    is_explained: impl Fn(Range) -> bool,
) -> Compared {
    let (mut bytes, mut runs, mut missing) = (0, Vec::new(), Vec::new());
    for (at, page) in target.pages(range) {
        let Some(page) = page else {
            missing.push(at);
            continue;
        };
        let Some(wanted) = target.reference.bytes(at, page.len()) else { continue };
        bytes += page.len() as u64;
        for into in differences(&page, wanted) {
            extend(&mut runs, at.offset(into as u64));
        }
    }
    let unexplained = runs.into_iter().filter(|run| !is_explained(*run));
    let mut findings: Vec<Finding> =
        unexplained.take(MAX_FINDINGS).map(|run| changed(target, item, run)).collect();
    if let Some(first) = missing.first() {
        findings.push(absent(target, item, *first, missing.len()));
    }
    Compared { bytes, findings }
}

fn differences<'a>(found: &'a [u8], wanted: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let all = if found == wanted { 0 } else { found.len() };
    (0..all).filter(|at| found[*at] != wanted[*at])
}

fn extend(runs: &mut Vec<Range>, at: Gva) {
    match runs.last_mut() {
        Some(last) if at.0 - last.end.0 < GAP_BYTES => last.end = at.offset(1),
        _ => runs.push(Range { start: at, end: at.offset(1) }),
    }
}

/// Whether every byte of a difference lies in a place where L1 may have put what is found there.
fn explained<M: PhysicalMemory>(target: &Target<'_, M>, places: &Places, run: Range) -> bool {
    let mut at = run.start;
    while at.0 < run.end.0 {
        let Some(place) = places.at(at) else {
            // Neighbouring places may have equal bytes between them.
            if target.bytes(at, 1).as_deref() != target.reference.bytes(at, 1) {
                return false;
            }
            at = at.offset(1);
            continue;
        };
        let range = place.range();
        let found = target.bytes(range.start, place.len);
        if !found.is_some_and(|found| place.may_be(&found, target.reference, |at| target.word(at))) {
            return false;
        }
        at = range.end;
    }
    true
}

/// Where a near jump that begins here, or one byte before, leads: a difference begins where the first byte differs.
fn jump_at<M: PhysicalMemory>(target: &Target<'_, M>, at: Gva) -> Option<Gva> {
    let start = [at, Gva(at.0.wrapping_sub(1))];
    start.into_iter().find_map(|at| disassembly::jump_target(at, &target.bytes(at, JUMP_BYTES)?))
}

fn changed<M: PhysicalMemory>(target: &Target<'_, M>, item: Item, run: Range) -> Finding {
    let place = target.name(run.start);
    let message = format!("{} at {place}: not as in the file", counted(run.bytes()));
    let finding = Finding::tampering(item, place, message).at(run.start, run.bytes());
    if item == Item::Text { with_code(target, finding, run) } else { with_bytes(target, finding, run) }
}

/// Bytes that are no longer what they were: `run` of those at `gva`.
pub(crate) fn changed_since<M: PhysicalMemory>(
    target: &Target<'_, M>,
    patches: &LivePatches,
    item: Item,
    gva: Gva,
    before: &[u8],
    now: &[u8],
    run: (usize, usize),
) -> Finding {
    let (at, len) = (gva.offset(run.0 as u64), run.1 - run.0);
    let place = target.name(at);
    let finding =
        Finding::tampering(item, place.clone(), format!("{} at {place} changed", counted(len as u64)));
    let finding = finding.at(at, len as u64);
    if item != Item::Text {
        return finding.compared(hex(&before[run.0..run.1]), hex(&now[run.0..run.1]));
    }
    let start = instruction_before(target, at).0.max(gva.0) - gva.0;
    let shown = start as usize..(run.1 + SHOWN_BYTES as usize).min(before.len());
    let lines = |bytes: &[u8]| disassembly::lines(gva.offset(start), &bytes[shown.clone()]);
    patches.explain(finding.compared(lines(before), lines(now)), jump_at(target, at))
}

fn counted(bytes: u64) -> String {
    if bytes == 1 { "1 byte".to_owned() } else { format!("{bytes} bytes") }
}

/// Bytes on one line.
fn hex(bytes: &[u8]) -> Vec<String> {
    vec![bytes.iter().take(MAX_SHOWN).map(|byte| format!("{byte:02x}")).collect::<String>()]
}

/// Disassembles from the function's last instruction border that the file has before the change.
fn with_code<M: PhysicalMemory>(target: &Target<'_, M>, finding: Finding, run: Range) -> Finding {
    let start = instruction_before(target, run.start);
    let len = (run.end.0 - start.0 + SHOWN_BYTES).min(256) as usize;
    let expected = target.reference.bytes(start, len).map(|bytes| disassembly::lines(start, bytes));
    let found = target.bytes(start, len).map(|bytes| disassembly::lines(start, &bytes));
    finding.compared(expected.unwrap_or_default(), found.unwrap_or_default())
}

fn instruction_before<M: PhysicalMemory>(target: &Target<'_, M>, at: Gva) -> Gva {
    let Some((symbol, _)) = target.reference.symbols().lookup(at) else { return at };
    let start = symbol.address;
    let len = usize::try_from(at.0 - start.0 + 16).unwrap_or(0);
    let Some(code) = target.reference.bytes(start, len) else { return at };
    disassembly::border_before(start, code, at)
}

fn with_bytes<M: PhysicalMemory>(target: &Target<'_, M>, finding: Finding, run: Range) -> Finding {
    let len = run.bytes().min(MAX_SHOWN as u64) as usize;
    let expected = target.reference.bytes(run.start, len).map(hex);
    let found = target.bytes(run.start, len).map(|bytes| hex(&bytes));
    finding.compared(expected.unwrap_or_default(), found.unwrap_or_default())
}

fn absent<M: PhysicalMemory>(target: &Target<'_, M>, item: Item, first: Gva, pages: usize) -> Finding {
    let place = target.name(first);
    let message = format!("{pages} pages cannot be read, the first at {place}");
    let settle = "a memory image that holds all of the machine's memory";
    Finding::unknown(item, place, message, settle).at(first, 0)
}
