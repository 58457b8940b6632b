//! Who calls whom: one disassembly of all of an image's code.
//!
//! Every text symbol is decoded linearly up to the next symbol. That finds each direct call at a true instruction
//! boundary, where a search for the byte E8 would also find it inside other instructions. It serves three ends:
//! return addresses of calls become hooks, VMRUN and its kin are found, and the share of calls that land exactly
//! on a symbol tells whether these symbols belong to these bytes at all.

use std::ops::Range;

use hypovisor_machine::Gva;
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind};
use serde::{Deserialize, Serialize};

use crate::{Image, SymbolKind, SymbolTable};

/// The most that is decoded for one symbol: the last one has no successor that ends it.
const MAX_FUNCTION_BYTES: u64 = 1 << 20;
/// Bounds memory on a hostile image; Xen has about 30,000.
const MAX_REFERENCES: usize = 1 << 20;

/// How one place in the code refers to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReferenceKind {
    /// A direct call.
    Call,
    /// A direct jump, conditional or not, to the start of another function: a tail call.
    TailJump,
    /// The address is computed: a pointer to the function may be called later.
    AddressTaken,
}

/// One reference to the start of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// What is referred to.
    pub target: Gva,
    /// The referring instruction.
    pub at: Gva,
    /// The instruction after it: for a call, where the call returns to.
    pub next: Gva,
    /// How.
    pub kind: ReferenceKind,
}

/// The instructions that start a nested guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VmEntryKind {
    /// AMD: RAX holds the VMCB's physical address; the guest's exit continues behind the instruction.
    Vmrun,
    /// Intel, first entry of a VMCS; exits continue at the VMCS's host RIP.
    Vmlaunch,
    /// Intel, later entries.
    Vmresume,
}

/// References between functions, and VM entries.
#[derive(Clone, Debug, Default)]
pub struct CodeMap {
    /// Starts of functions and labels, ascending.
    starts: Vec<Gva>,
    /// Sorted by target.
    references: Vec<Reference>,
    vm_entries: Vec<(Range<u64>, VmEntryKind)>,
    calls: usize,
    calls_on_symbols: usize,
}

impl CodeMap {
    /// Decodes all text symbols that lie in the image.
    #[must_use]
    pub fn build(image: &Image, symbols: &SymbolTable) -> Self {
        let mut map = Self { starts: text_starts(image, symbols), ..Self::default() };
        let all = symbols.symbols();
        for start in map.starts.clone() {
            let next = all.partition_point(|symbol| symbol.address <= start);
            let limit = start.offset(MAX_FUNCTION_BYTES);
            let end = all.get(next).map_or(limit, |symbol| symbol.address.min(limit));
            map.decode(image, start, end);
        }
        map.references.sort_unstable();
        map
    }

    /// Direct calls that land on the start of a symbol, and all direct calls.
    ///
    /// The two are nearly equal for the right symbols, and far apart for any others.
    #[must_use]
    pub const fn agreement(&self) -> (usize, usize) {
        (self.calls_on_symbols, self.calls)
    }

    /// Whether the symbols belong to the bytes: at least a hundred calls, nineteen of twenty on a symbol.
    #[must_use]
    pub const fn symbols_fit(&self) -> bool {
        self.calls >= 100 && self.calls_on_symbols >= self.calls - self.calls / 20
    }

    /// All references to the function that starts at `target`, by address.
    pub fn references_to(&self, target: Gva) -> impl Iterator<Item = &Reference> {
        let start = self.references.partition_point(|reference| reference.target < target);
        let rest = self.references.get(start..).unwrap_or_default();
        rest.iter().take_while(move |reference| reference.target == target)
    }

    /// Instructions that start a nested guest: address, address behind it, kind.
    pub fn vm_entries(&self) -> impl Iterator<Item = (Gva, Gva, VmEntryKind)> {
        self.vm_entries.iter().map(|(range, kind)| (Gva(range.start), Gva(range.end), *kind))
    }

    fn decode(&mut self, image: &Image, start: Gva, end: Gva) {
        let bytes = image.slice(start, end);
        let mut decoder = Decoder::with_ip(64, bytes, start.0, DecoderOptions::NONE);
        let mut instruction = Instruction::default();
        while decoder.can_decode() {
            decoder.decode_out(&mut instruction);
            if !instruction.is_invalid() {
                self.note(image, start..end, &instruction);
            }
        }
    }

    fn note(&mut self, image: &Image, function: Range<Gva>, instruction: &Instruction) {
        if let Some(kind) = vm_entry_kind(instruction.mnemonic()) {
            self.vm_entries.push((instruction.ip()..instruction.next_ip(), kind));
        }
        let Some((target, kind)) = reference(instruction) else { return };
        if !image.contains(target) {
            return;
        }
        let on_symbol = self.starts.binary_search(&target).is_ok();
        if kind == ReferenceKind::Call {
            self.calls += 1;
            self.calls_on_symbols += usize::from(on_symbol);
        }
        let within = kind == ReferenceKind::TailJump && function.contains(&target);
        if on_symbol && !within && self.references.len() < MAX_REFERENCES {
            let (at, next) = (Gva(instruction.ip()), Gva(instruction.next_ip()));
            self.references.push(Reference { target, at, next, kind });
        }
    }
}

fn text_starts(image: &Image, symbols: &SymbolTable) -> Vec<Gva> {
    let text = symbols.symbols().iter().filter(|symbol| symbol.kind == SymbolKind::Text);
    let mut starts: Vec<Gva> = text.map(|symbol| symbol.address).filter(|at| image.contains(*at)).collect();
    starts.dedup();
    starts
}

fn reference(instruction: &Instruction) -> Option<(Gva, ReferenceKind)> {
    if instruction.op0_kind() == OpKind::NearBranch64 {
        let is_call = instruction.mnemonic() == Mnemonic::Call;
        let kind = if is_call { ReferenceKind::Call } else { ReferenceKind::TailJump };
        return Some((Gva(instruction.near_branch64()), kind));
    }
    let target = match instruction.mnemonic() {
        Mnemonic::Lea if instruction.is_ip_rel_memory_operand() => instruction.ip_rel_memory_address(),
        Mnemonic::Mov => wide_immediate(instruction, 1)?,
        Mnemonic::Push => wide_immediate(instruction, 0)?,
        _ => return None,
    };
    Some((Gva(target), ReferenceKind::AddressTaken))
}

fn wide_immediate(instruction: &Instruction, operand: u32) -> Option<u64> {
    let kind = instruction.try_op_kind(operand).ok()?;
    let is_wide = matches!(kind, OpKind::Immediate64 | OpKind::Immediate32to64);
    is_wide.then(|| instruction.try_immediate(operand).ok()).flatten()
}

const fn vm_entry_kind(mnemonic: Mnemonic) -> Option<VmEntryKind> {
    match mnemonic {
        Mnemonic::Vmrun => Some(VmEntryKind::Vmrun),
        Mnemonic::Vmlaunch => Some(VmEntryKind::Vmlaunch),
        Mnemonic::Vmresume => Some(VmEntryKind::Vmresume),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Symbol;
    use proptest::prelude::*;

    const BASE: u64 = 0xffff_8a00_0000_0000;

    fn symbols(at: &[(u64, &str)]) -> SymbolTable {
        SymbolTable::new(at.iter().map(|(at, name)| Symbol {
            address: Gva(BASE + at),
            kind: SymbolKind::Text,
            global: true,
            size: 0,
            name: (*name).to_owned(),
        }))
    }

    #[test]
    fn calls_jumps_pointers_and_vmrun_are_told_apart() {
        let mut code = vec![0xe8, 0x1b, 0, 0, 0]; // 0x00: call 0x20
        code.extend([0xe9, 0x16, 0, 0, 0]); // 0x05: jmp 0x20
        code.extend([0x48, 0x8d, 0x05, 0x0f, 0, 0, 0]); // 0x0a: lea rax, [0x20]
        code.extend([0x0f, 0x01, 0xd8]); // 0x11: vmrun
        code.extend([0xeb, 0xea]); // 0x14: jmp 0x00, a loop within the function
        code.resize(0x40, 0x90);
        let image = Image::new(Gva(BASE), code, Vec::new());
        let map = CodeMap::build(&image, &symbols(&[(0, "caller"), (0x20, "callee")]));
        let found: Vec<_> =
            map.references_to(Gva(BASE + 0x20)).map(|r| (r.at.0 - BASE, r.next.0 - BASE, r.kind)).collect();
        let (call, jump, taken) = (ReferenceKind::Call, ReferenceKind::TailJump, ReferenceKind::AddressTaken);
        assert_eq!(found, [(0, 5, call), (5, 10, jump), (10, 17, taken)]);
        assert_eq!(map.references_to(Gva(BASE)).count(), 0);
        assert_eq!(map.vm_entries().next(), Some((Gva(BASE + 0x11), Gva(BASE + 0x14), VmEntryKind::Vmrun)));
        assert_eq!(map.agreement(), (1, 1));
    }

    proptest! {
        #[test]
        fn random_code_never_panics(code in proptest::collection::vec(any::<u8>(), 0..512), at in 0u64..600) {
            let image = Image::new(Gva(BASE), code, Vec::new());
            let _ = CodeMap::build(&image, &symbols(&[(0, "a"), (at, "b")])).symbols_fit();
        }
    }
}
