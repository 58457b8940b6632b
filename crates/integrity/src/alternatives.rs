//! What Xen changes in its own code while it boots, so that it is not taken for tampering.
//!
//! Xen is built for all processors. Where one of them needs other instructions, the build leaves a record (`struct
//! alt_instr`, between `__alt_instructions` and `__alt_instructions_end`) of a place in the code and of what may stand there
//! instead; at boot Xen picks. A second kind of record turns indirect calls through variables that are set once into direct
//! ones. Both are done before the first guest runs, and the records are in the file.
//!
//! ```text
//!   struct alt_instr (xen/arch/x86/include/asm/alternative.h)
//!     i32  place, relative to this field
//!     i32  what may stand there instead, relative to this field
//!     u16  the processor feature that decides
//!     u8   bytes of the code that stands there at first
//!     u8   bytes of the other
//!     u8   no-operations behind the first, so that the second fits
//!     u8   flags
//! ```

use std::collections::BTreeMap;

use hypovisor_machine::Gva;

use crate::reference::{Range, Reference};

const RECORD_BYTES: usize = 14;
/// CALL and JMP with a distance of 32 bits (AMD APM vol. 3): their target is counted from their own end.
const CALL: u8 = 0xe8;
const JUMP: u8 = 0xe9;
const NEAR_BYTES: usize = 5;
/// CALL through a pointer whose place is counted from the instruction's end.
const CALL_THROUGH: [u8; 2] = [0xff, 0x15];
const CALL_THROUGH_BYTES: usize = 6;
/// UD2, with an UD0 to fill up: a call through a pointer that stayed empty.
const NO_CALL: [u8; 6] = [0x0f, 0x0b, 0x0f, 0xff, 0xff, 0x90];
/// ENDBR64: a direct call goes to the instruction behind it.
const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
const NOP: u8 = 0x90;

/// A place whose code Xen may have replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Where it begins.
    pub(crate) start: Gva,
    /// Bytes of it, with those that fill up.
    pub(crate) len: usize,
    /// Bytes of the first code, without those that fill up.
    original_len: usize,
    /// What may stand there instead: where it stands in the file, and how long it is.
    replacements: Vec<(Gva, usize)>,
}

/// All places of an image, by address.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places(BTreeMap<u64, Place>);

impl Places {
    /// Reads the records in the file; `None` if it has none.
    pub(crate) fn read(reference: &Reference<'_>) -> Option<Self> {
        let range = reference.between("__alt_instructions", "__alt_instructions_end")?;
        let records = reference.range(range)?;
        let mut places = BTreeMap::new();
        for (index, record) in records.as_chunks::<RECORD_BYTES>().0.iter().enumerate() {
            add(&mut places, range.start.offset((index * RECORD_BYTES) as u64), record);
        }
        (!places.is_empty()).then_some(Self(places))
    }

    /// The place that an address lies in.
    pub(crate) fn at(&self, gva: Gva) -> Option<&Place> {
        let (_, place) = self.0.range(..=gva.0).next_back()?;
        (gva.0 - place.start.0 < place.len as u64).then_some(place)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

fn add(places: &mut BTreeMap<u64, Place>, at: Gva, record: &[u8; RECORD_BYTES]) {
    let distance = |from: usize| {
        let bytes = [record[from], record[from + 1], record[from + 2], record[from + 3]];
        i64::from(i32::from_le_bytes(bytes))
    };
    let start = Gva(at.0.wrapping_add_signed(distance(0)));
    let other = Gva(at.0.wrapping_add(4).wrapping_add_signed(distance(4)));
    let [original_len, other_len, filler] = [record[10], record[11], record[12]].map(usize::from);
    let fresh = Place { start, len: original_len + filler, original_len, replacements: Vec::new() };
    places.entry(start.0).or_insert(fresh).replacements.push((other, other_len));
}

impl Place {
    /// Where it is.
    pub(crate) const fn range(&self) -> Range {
        Range { start: self.start, end: Gva(self.start.0 + self.len as u64) }
    }

    /// Whether Xen itself may have put these bytes here; `pointer` reads a variable of 8 bytes.
    pub(crate) fn may_be(
        &self,
        found: &[u8],
        reference: &Reference<'_>,
        pointer: impl Fn(Gva) -> Option<u64>,
    ) -> bool {
        let Some(original) = reference.bytes(self.start, self.len).filter(|_| found.len() == self.len) else {
            return false;
        };
        let (code, filler) = found.split_at(self.original_len.min(found.len()));
        if Some(code) == original.get(..self.original_len) && is_filler(filler) {
            return true;
        }
        if original.len() == CALL_THROUGH_BYTES && original.starts_with(&CALL_THROUGH) {
            return self.is_direct_call(found, original, reference, pointer);
        }
        self.replacements.iter().any(|(other, len)| self.is_replacement(found, *other, *len, reference))
    }

    fn is_replacement(&self, found: &[u8], other: Gva, len: usize, reference: &Reference<'_>) -> bool {
        let Some((code, filler)) = found.split_at_checked(len) else { return false };
        let Some(other_code) = reference.bytes(other, len) else { return len == 0 && is_filler(filler) };
        let mut wanted = other_code.to_vec();
        if let [CALL | JUMP, a, b, c, d, ..] = *wanted {
            let distance = i32::from_le_bytes([a, b, c, d]);
            let moved = distance.wrapping_add(other.0.wrapping_sub(self.start.0) as i32);
            wanted[1..NEAR_BYTES].copy_from_slice(&moved.to_le_bytes());
        }
        code == wanted && is_filler(filler)
    }

    /// The pointer that the call goes through was read at boot, and is never written again.
    fn is_direct_call(
        &self,
        found: &[u8],
        original: &[u8],
        reference: &Reference<'_>,
        pointer: impl Fn(Gva) -> Option<u64>,
    ) -> bool {
        let distance =
            |bytes: &[u8]| bytes.first_chunk().map_or(0, |distance| i64::from(i32::from_le_bytes(*distance)));
        let end = |len: usize| self.start.0.wrapping_add(len as u64);
        let variable = Gva(end(CALL_THROUGH_BYTES).wrapping_add_signed(distance(&original[2..])));
        let value = pointer(variable);
        if found == NO_CALL {
            return value.is_none_or(|value| value == 0);
        }
        if found[0] != CALL || found[NEAR_BYTES] != NOP {
            return false;
        }
        let target = Gva(end(NEAR_BYTES).wrapping_add_signed(distance(&found[1..])));
        let entries = [target, Gva(target.0.wrapping_sub(ENDBR64.len() as u64))];
        let behind_mark = reference.bytes(entries[1], ENDBR64.len()) == Some(&ENDBR64);
        match value {
            Some(value) => value == entries[0].0 || (behind_mark && value == entries[1].0),
            // The variable was freed with what is only needed at boot.
            None => reference.is_function(entries[0]) || (behind_mark && reference.is_function(entries[1])),
        }
    }
}

/// Nothing but instructions that do nothing: 0x90, or 0F 1F with any operand, with operand-size prefixes (AMD APM vol. 3,
/// NOP).
fn is_filler(mut bytes: &[u8]) -> bool {
    while let Some(len) = filler_len(bytes) {
        bytes = bytes.get(len..).unwrap_or_default();
    }
    bytes.is_empty()
}

fn filler_len(bytes: &[u8]) -> Option<usize> {
    let prefixes = bytes.iter().take_while(|byte| **byte == 0x66).count();
    match bytes.get(prefixes..)? {
        [NOP, ..] => Some(prefixes + 1),
        [0x0f, 0x1f, operand, ..] => {
            let by_index = usize::from(operand & 7 == 4 && operand >> 6 != 3);
            let displacement = [0, 1, 4, 0][usize::from(operand >> 6)];
            Some(prefixes + 3 + by_index + displacement)
        }
        _ => None,
    }
    .filter(|len| *len <= bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypovisor_l1::{Symbol, SymbolKind, SymbolTable};

    const TEXT: u64 = 0xffff_82d0_4020_0000;
    const OTHER: u64 = TEXT + 0x1000;

    fn symbols() -> SymbolTable {
        let named = |(name, at): (&str, u64)| Symbol {
            address: Gva(at),
            kind: SymbolKind::Text,
            global: true,
            size: 0,
            name: name.into(),
        };
        let borders = [
            ("_stext", TEXT),
            ("function", TEXT + 0x80),
            ("_etext", TEXT + 0x100),
            ("_srodata", TEXT + 0x200),
            ("__ro_after_init_start", TEXT + 0x200),
            ("__ro_after_init_end", TEXT + 0x300),
            ("_erodata", TEXT + 0x400),
            ("_end", TEXT + 0x4000),
        ];
        SymbolTable::new(borders.map(named))
    }

    fn place(len: usize, original_len: usize, other_len: usize) -> Place {
        Place { start: Gva(TEXT), len, original_len, replacements: vec![(Gva(OTHER), other_len)] }
    }

    #[test]
    fn the_other_code_is_allowed_at_its_place_and_nothing_else() {
        let (symbols, other) = (symbols(), [CALL, 0x10, 0, 0, 0]);
        let text = [0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90];
        let reference =
            Reference::of_pieces(vec![(Gva(TEXT), &text), (Gva(OTHER), &other)], &symbols).unwrap();
        let place = place(8, 1, 5);
        let none = |_| None;
        assert!(place.may_be(&[0x90, 0x0f, 0x1f, 0x80, 0, 0, 0, 0], &reference, none), "other fillers");
        assert!(
            place.may_be(&[CALL, 0x10, 0x10, 0, 0, 0x0f, 0x1f, 0], &reference, none),
            "the distance moves"
        );
        assert!(!place.may_be(&[CALL, 0x11, 0x10, 0, 0, 0x0f, 0x1f, 0], &reference, none));
        assert!(!place.may_be(&[CALL, 0x10, 0x10, 0, 0, 0xcc, 0x1f, 0], &reference, none));
        assert!(!place.may_be(&[0x90], &reference, none));
    }

    #[test]
    fn a_direct_call_goes_where_the_pointer_does() {
        let symbols = symbols();
        let mut text = vec![0; 0x100];
        text[..6].copy_from_slice(&[0xff, 0x15, 0xfa, 1, 0, 0]);
        text[0x80..0x84].copy_from_slice(&ENDBR64);
        let reference = Reference::of_pieces(vec![(Gva(TEXT), &text)], &symbols).unwrap();
        let place = place(6, 6, 5);
        let points_to = |value| move |at| (at == Gva(TEXT + 0x200)).then_some(value);
        let to = |target: u8| [CALL, target - 5, 0, 0, 0, NOP];
        assert!(place.may_be(&to(0x80), &reference, points_to(TEXT + 0x80)));
        assert!(place.may_be(&to(0x84), &reference, points_to(TEXT + 0x80)), "behind the mark");
        assert!(!place.may_be(&to(0x88), &reference, points_to(TEXT + 0x80)));
        assert!(place.may_be(&to(0x84), &reference, |_| None), "the pointer was freed");
        assert!(!place.may_be(&to(0x85), &reference, |_| None));
        assert!(place.may_be(&NO_CALL, &reference, points_to(0)));
        assert!(!place.may_be(&NO_CALL, &reference, points_to(1)));
    }

    #[test]
    fn fillers_are_told_from_code() {
        assert!(is_filler(&[]));
        assert!(is_filler(&[0x66, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0, 0x90, 0x66, 0x90]));
        assert!(!is_filler(&[0x0f, 0x1f]));
        assert!(!is_filler(&[0x90, 0xc3]));
    }
}
