//! What L1 sets at boot and never again: function pointers, and the table of instructions that may fault.

use std::collections::BTreeMap;

use hypovisor_machine::{Gva, PhysicalMemory};

use crate::finding::{Finding, Item, Report};
use crate::reference::Range;
use crate::target::Target;

/// The tables of instructions that may fault: their borders in Xen's linker script.
const TABLES: [(&str, &str); 2] =
    [("__start___ex_table", "__stop___ex_table"), ("__start___pre_ex_table", "__stop___pre_ex_table")];
/// Two distances of 32 bits (`struct exception_table_entry`, xen/arch/x86/include/asm/uaccess.h).
const ENTRY_BYTES: usize = 8;
/// The most findings.
const MAX_FINDINGS: usize = 32;

/// Every pointer to code must lead to a function's begin.
pub(crate) fn check_pointers<M: PhysicalMemory>(target: &Target<'_, M>, report: &mut Report) {
    let tables = tables(target);
    let mut count = 0_u64;
    let mut findings = Vec::new();
    for (at, page) in target.pages(target.reference.parts().set_at_boot) {
        for (index, word) in page.unwrap_or_default().as_chunks::<8>().0.iter().enumerate() {
            let (at, value) = (at.offset(8 * index as u64), Gva(u64::from_le_bytes(*word)));
            if tables.iter().any(|table| table.contains(at)) || !target.reference.parts().text.contains(value)
            {
                continue;
            }
            count += 1;
            if !target.reference.is_function(value) && findings.len() < MAX_FINDINGS {
                findings.push(wrong_pointer(target, at, value));
            }
        }
    }
    report.add(findings);
    report.verified(Item::Pointers, format!("{count} pointers to code that are set at boot"));
}

fn wrong_pointer<M: PhysicalMemory>(target: &Target<'_, M>, at: Gva, value: Gva) -> Finding {
    let (place, value) = (target.name(at), target.name(value));
    Finding::tampering(
        Item::Pointers,
        place.clone(),
        format!("{place} points to {value}, where no function begins"),
    )
    .at(at, 8)
}

fn tables<M: PhysicalMemory>(target: &Target<'_, M>) -> Vec<Range> {
    TABLES.iter().filter_map(|(start, end)| target.reference.between(start, end)).collect()
}

/// L1 sorts the tables at boot: the same entries, in another order.
pub(crate) fn check_exception_table<M: PhysicalMemory>(target: &Target<'_, M>, report: &mut Report) {
    let mut count = 0;
    for table in tables(target) {
        let Some(wanted) = target.reference.range(table) else { continue };
        let found: Option<Vec<u8>> =
            target.pages(table).map(|(_, page)| page).collect::<Option<Vec<_>>>().map(|pages| pages.concat());
        let Some(found) = found else {
            report.skipped(Item::ExceptionTable, "it cannot be read");
            continue;
        };
        let (wanted, found) = (entries(table.start, wanted), entries(table.start, &found));
        count += wanted.len();
        report.add(differing(target, &wanted, &found));
    }
    report.verified(Item::ExceptionTable, format!("{count} entries against the symbols file"));
}

/// From the instruction that may fault to where it goes on.
fn entries(start: Gva, bytes: &[u8]) -> BTreeMap<u64, u64> {
    let entry = |(index, bytes): (usize, &[u8; ENTRY_BYTES])| {
        let at = start.0.wrapping_add((index * ENTRY_BYTES) as u64);
        let [a, b, c, d, e, f, g, h] = *bytes;
        let to = |at: u64, distance: [u8; 4]| at.wrapping_add_signed(i32::from_le_bytes(distance).into());
        (to(at, [a, b, c, d]), to(at + 4, [e, f, g, h]))
    };
    bytes.as_chunks().0.iter().enumerate().map(entry).collect()
}

fn differing<M: PhysicalMemory>(
    target: &Target<'_, M>,
    wanted: &BTreeMap<u64, u64>,
    found: &BTreeMap<u64, u64>,
) -> Vec<Finding> {
    let wrong = found.iter().filter(|(at, to)| wanted.get(at) != Some(to)).take(MAX_FINDINGS);
    let finding = |(at, to): (&u64, &u64)| {
        let (place, to) = (target.name(Gva(*at)), target.name(Gva(*to)));
        let before = wanted.get(at).map_or_else(|| "nowhere".to_owned(), |to| target.name(Gva(*to)));
        let message = format!("a fault at {place} goes on at {to}; by the file at {before}");
        Finding::tampering(Item::ExceptionTable, place, message).at(Gva(*at), 0)
    };
    wrong.map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_the_same_in_any_order() {
        let start = Gva(0x1000);
        let entry = |at: u64, from: u64, to: u64| {
            let distance = |at: u64, to: u64| (to.wrapping_sub(at) as u32).to_le_bytes();
            [distance(at, from), distance(at + 4, to)].concat()
        };
        let one = [entry(0x1000, 0x500, 0x600), entry(0x1008, 0x510, 0x700)].concat();
        let other = [entry(0x1000, 0x510, 0x700), entry(0x1008, 0x500, 0x600)].concat();
        assert_eq!(entries(start, &one), entries(start, &other));
        assert_eq!(entries(start, &one), BTreeMap::from([(0x500, 0x600), (0x510, 0x700)]));
    }
}
