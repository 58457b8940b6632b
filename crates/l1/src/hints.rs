//! Structure offsets that Xen's own instructions give away, for a Xen without DWARF.
//!
//! Three short functions exist in every build and use just the fields of interest. Their first instructions are
//! followed with a few labels on the registers (where a value came from), no more; what does not fit the pattern
//! is left open, and [`crate::discover_layout`] verifies what fits against live memory.
//!
//! ```text
//!   arch_do_multicall_call   top = rsp | (stack size - 1); current = [top - c]; domain = [current + D];
//!                            test [domain + O], 1           -> vcpu.domain = D, domain.options = O
//!   pv_do_multicall_call     op = [rdi + M] (its first use) -> mc_state.call = M, as op is call's first field
//!   svm_asm_do_resume        rax = [current + P]; vmrun     -> vcpu.arch.hvm.svm.vmcb_pa = P
//! ```

use hypovisor_machine::Gva;
use iced_x86::{Decoder, DecoderOptions, Instruction, MemorySize, Mnemonic, OpKind, Register};
use serde::{Deserialize, Serialize};

use crate::code::{CodeMap, VmEntryKind};
use crate::{Image, SymbolTable};

/// No structure read here is larger than this (`struct vcpu` fills at most a page).
const MAX_OFFSET: u64 = 4096;
/// How many bytes of a function are followed.
const MAX_FOLLOWED_BYTES: u64 = 512;

/// What the code says about the layout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutHints {
    /// `vcpu.domain`.
    pub vcpu_domain: Option<u32>,
    /// `domain.options`.
    pub domain_options: Option<u32>,
    /// `mc_state.call`.
    pub multicall_call: Option<u32>,
    /// `vcpu.arch.hvm.svm.vmcb_pa`.
    pub vcpu_vmcb_pa: Option<u32>,
}

impl LayoutHints {
    /// Reads the hints out of the code.
    #[must_use]
    pub fn find(image: &Image, symbols: &SymbolTable, code: &CodeMap) -> Self {
        let domain =
            ["arch_do_multicall_call"].iter().find_map(|name| domain_path(image, symbols.address_of(name)?));
        let inner = ["pv_do_multicall_call", "arch_do_multicall_call"];
        Self {
            vcpu_domain: domain.map(|path| path.0),
            domain_options: domain.map(|path| path.1),
            multicall_call: inner.iter().find_map(|name| multicall_call(image, symbols.address_of(name)?)),
            vcpu_vmcb_pa: vmcb_pa(image, symbols, code),
        }
    }
}

/// Where a register's value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// The function's first argument.
    Argument,
    /// The stack pointer.
    Stack,
    /// The last byte of the stack, or a constant that can make it.
    StackTop,
    StackMask,
    /// Loaded from the stack's top: the current vCPU.
    Current,
    /// Loaded from the current vCPU at this offset.
    FromCurrent(u32),
    /// Loaded from such a pointer: its offset in the vCPU, and the offset behind it.
    Field(u32, u32),
}

/// Labels of the sixteen general registers.
#[derive(Default)]
struct Registers([Option<Origin>; 16]);

impl Registers {
    fn at_function_entry() -> Self {
        let mut registers = Self::default();
        registers.set(Register::RDI, Some(Origin::Argument));
        registers.set(Register::RSP, Some(Origin::Stack));
        registers
    }

    fn get(&self, register: Register) -> Option<Origin> {
        self.0.get(slot(register)?).copied().flatten()
    }

    fn set(&mut self, register: Register, origin: Option<Origin>) {
        if let Some(entry) = slot(register).and_then(|slot| self.0.get_mut(slot)) {
            *entry = origin;
        }
    }

    /// The effect of one instruction; instructions not known here forget what they write to.
    fn step(&mut self, instruction: &Instruction) {
        let target = instruction.op0_register();
        match instruction.mnemonic() {
            Mnemonic::Mov | Mnemonic::Movzx => self.set(target, self.source(instruction)),
            Mnemonic::Or => self.set(target, self.or(instruction)),
            Mnemonic::Cmp | Mnemonic::Test | Mnemonic::Bt | Mnemonic::Push => {}
            Mnemonic::Call => self.forget_scratch(),
            // Arithmetic on the stack pointer leaves it on the same stack.
            _ if target == Register::RSP => {}
            // A masked field is still that field to whoever tests it.
            Mnemonic::And if matches!(self.get(target), Some(Origin::Field(..))) => {}
            _ => self.set(target, None),
        }
    }

    fn source(&self, instruction: &Instruction) -> Option<Origin> {
        match instruction.op1_kind() {
            OpKind::Register => self.get(instruction.op1_register()),
            OpKind::Memory => self.load(instruction),
            _ => is_mask(instruction).then_some(Origin::StackMask),
        }
    }

    fn load(&self, instruction: &Instruction) -> Option<Origin> {
        let base = self.base(instruction)?;
        let is_pointer = instruction.memory_size() == MemorySize::UInt64;
        match base {
            Origin::StackTop if is_pointer => Some(Origin::Current),
            Origin::Current if is_pointer => Some(Origin::FromCurrent(offset(instruction)?)),
            Origin::FromCurrent(first) => Some(Origin::Field(first, offset(instruction)?)),
            _ => None,
        }
    }

    /// The origin of a memory operand's base, if the operand is nothing but base and displacement.
    fn base(&self, instruction: &Instruction) -> Option<Origin> {
        let plain =
            instruction.memory_index() == Register::None && instruction.memory_base() != Register::RIP;
        plain.then(|| self.get(instruction.memory_base())).flatten()
    }

    fn or(&self, instruction: &Instruction) -> Option<Origin> {
        let other = match instruction.op1_kind() {
            OpKind::Register => self.get(instruction.op1_register()),
            _ => is_mask(instruction).then_some(Origin::StackMask),
        };
        match (self.get(instruction.op0_register()), other) {
            (Some(Origin::Stack), Some(Origin::StackMask))
            | (Some(Origin::StackMask), Some(Origin::Stack)) => Some(Origin::StackTop),
            _ => None,
        }
    }

    /// System V calling convention: a call may change all but rbx, rsp, rbp and r12 to r15.
    fn forget_scratch(&mut self) {
        use Register::{R8, R9, R10, R11, RAX, RCX, RDI, RDX, RSI};
        for register in [RAX, RCX, RDX, RSI, RDI, R8, R9, R10, R11] {
            self.set(register, None);
        }
    }
}

fn slot(register: Register) -> Option<usize> {
    register.is_gpr().then(|| register.full_register().number())
}

/// All ones, at least a page of them: the mask of a stack's size.
fn is_mask(instruction: &Instruction) -> bool {
    let value = instruction.try_immediate(1).unwrap_or(0);
    (0xfff..1 << 20).contains(&value) && (value + 1).is_power_of_two()
}

fn offset(instruction: &Instruction) -> Option<u32> {
    let displacement = instruction.memory_displacement64();
    (displacement < MAX_OFFSET).then_some(displacement as u32)
}

/// The first instructions of a function, up to `end`.
fn instructions(image: &Image, start: Gva, end: Gva) -> impl Iterator<Item = Instruction> {
    let mut decoder = Decoder::with_ip(64, image.slice(start, end), start.0, DecoderOptions::NONE);
    std::iter::from_fn(move || decoder.can_decode().then(|| decoder.decode()))
}

/// `vcpu.domain` and `domain.options`: what is tested for bit 0 on the way from the current vCPU.
fn domain_path(image: &Image, function: Gva) -> Option<(u32, u32)> {
    let mut registers = Registers::at_function_entry();
    for instruction in instructions(image, function, function.offset(MAX_FOLLOWED_BYTES)) {
        let tests = matches!(instruction.mnemonic(), Mnemonic::Test | Mnemonic::And);
        if tests && instruction.try_immediate(1).is_ok_and(|mask| mask == 1) {
            let tested = match instruction.op0_kind() {
                OpKind::Memory => registers.load(&instruction),
                _ => registers.get(instruction.op0_register()),
            };
            if let Some(Origin::Field(domain, options)) = tested {
                return Some((domain, options));
            }
        }
        registers.step(&instruction);
    }
    None
}

/// `mc_state.call`: the offset of the first 8 bytes that the function reads from its argument.
fn multicall_call(image: &Image, function: Gva) -> Option<u32> {
    let mut registers = Registers::at_function_entry();
    for instruction in instructions(image, function, function.offset(MAX_FOLLOWED_BYTES)) {
        let reads = instruction.mnemonic() == Mnemonic::Mov && instruction.op1_kind() == OpKind::Memory;
        if reads && registers.base(&instruction) == Some(Origin::Argument) {
            return offset(&instruction).filter(|_| instruction.memory_size() == MemorySize::UInt64);
        }
        registers.step(&instruction);
    }
    None
}

/// `vcpu.arch.hvm.svm.vmcb_pa`: what RAX was last loaded with before VMRUN.
fn vmcb_pa(image: &Image, symbols: &SymbolTable, code: &CodeMap) -> Option<u32> {
    let (vmrun, ..) = code.vm_entries().find(|(_, _, kind)| *kind == VmEntryKind::Vmrun)?;
    let (_, into) = symbols.lookup(vmrun)?;
    let mut registers = Registers::at_function_entry();
    for instruction in instructions(image, Gva(vmrun.0 - into), vmrun) {
        registers.step(&instruction);
    }
    match registers.get(Register::RAX) {
        Some(Origin::FromCurrent(offset)) => Some(offset),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BASE: Gva = Gva(0xffff_8a00_0000_0000);

    fn image(code: &[u8]) -> Image {
        Image::new(BASE, code.to_vec(), Vec::new())
    }

    #[test]
    fn the_way_from_the_stack_to_the_domain_is_read() {
        let code = [
            0x48, 0x89, 0xe0, // mov rax, rsp
            0x48, 0x0d, 0xff, 0x7f, 0, 0, // or rax, 0x7fff
            0x48, 0x8b, 0x40, 0xc9, // mov rax, [rax - 0x37]
            0x48, 0x8b, 0x50, 0x28, // mov rdx, [rax + 0x28]
            0x8b, 0x42, 0x44, // mov eax, [rdx + 0x44]
            0x83, 0xe0, 0x01, // and eax, 1
        ];
        assert_eq!(domain_path(&image(&code), BASE), Some((0x28, 0x44)));
        assert_eq!(domain_path(&image(&code[..16]), BASE), None);
    }

    #[test]
    fn the_first_use_of_the_argument_is_read() {
        let code = [
            0x48, 0x89, 0xfb, // mov rbx, rdi
            0x31, 0xff, // xor edi, edi
            0x48, 0x8b, 0x6b, 0x10, // mov rbp, [rbx + 0x10]
        ];
        assert_eq!(multicall_call(&image(&code), BASE), Some(0x10));
        assert_eq!(multicall_call(&image(&code[3..]), BASE), None);
    }

    proptest! {
        #[test]
        fn random_code_never_panics(code in proptest::collection::vec(any::<u8>(), 0..256)) {
            let image = image(&code);
            let _ = (domain_path(&image, BASE), multicall_call(&image, BASE));
        }
    }
}
