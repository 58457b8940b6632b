//! Code that L1 executes in its own part of the address space, and that is not in the pages of its image's code.
//!
//! L1 has little of that: live patches, and a stub for each processor that SYSCALL enters by. The first execution is told, if it is
//! L1's and not a guest's that has code at the same addresses; and every one by which a guest leaves.

use core::ffi::{c_uint, c_void};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use hypovisor_event::control::{SystemChange, SystemRegister};
use hypovisor_machine::Gva;

use super::changed_code::word;
use super::{Plugin, guarded};
use crate::sys::{Block, Instruction, log};
use crate::system::MAX_BYTES;

/// Xen's slots 256 to 271 of the top-level table (xen/arch/x86/include/asm/config.h).
pub(super) const OWN_PART: Range<u64> = 0xffff_8000_0000_0000..0xffff_8800_0000_0000;
/// The most blocks that are waited for: far more than live patches have.
const MAX_BLOCKS: usize = 4096;

/// A block that was translated.
#[derive(Debug)]
struct ForeignBlock {
    rip: u64,
    /// Its first bytes.
    word: u64,
    told: AtomicBool,
}

/// Blocks by their number. There are never fewer.
#[derive(Debug)]
pub(super) struct ForeignCode {
    /// By where they stand, and what they are.
    numbers: Mutex<HashMap<(u64, u64), usize>>,
    blocks: Box<[OnceLock<ForeignBlock>]>,
}

impl ForeignCode {
    pub(super) fn new() -> Self {
        let blocks = (0..MAX_BLOCKS).map(|_| OnceLock::new()).collect();
        Self { numbers: Mutex::default(), blocks }
    }

    /// The number of a block with this content; `None` if there are too many.
    fn number(&self, rip: u64, word: u64, content: u64) -> Option<usize> {
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = numbers.get(&(rip, content)) {
            return Some(*number);
        }
        let number = numbers.len();
        let block = ForeignBlock { rip, word, told: AtomicBool::new(false) };
        self.blocks.get(number)?.set(block).ok()?;
        numbers.insert((rip, content), number);
        if number + 1 == MAX_BLOCKS {
            log("too much code outside L1's image: more of it is not told at once");
        }
        Some(number)
    }
}

/// A number for what a block consists of.
fn content(block: Block) -> u64 {
    let mut hasher = DefaultHasher::new();
    for instruction in block.instructions() {
        instruction.bytes(&mut [0; MAX_BYTES]).hash(&mut hasher);
    }
    hasher.finish()
}

extern "C" fn on_foreign(vcpu: c_uint, userdata: *mut c_void) {
    guarded(|plugin| plugin.executes_foreign(vcpu, userdata.addr()));
}

impl Plugin {
    /// Such a block, with its first instruction.
    pub(super) fn watch_foreign(&self, block: Block, first: Instruction) {
        let rip = Gva(first.address());
        let is_stub = |entry: u64| (Gva(entry).page() == rip.page()).then_some(());
        if self.control.find_set(SystemRegister::Lstar, is_stub).is_some() {
            return;
        }
        let word = word(first.bytes(&mut [0; MAX_BYTES]));
        let number = self.foreign_code.number(rip.0, word, content(block));
        number.into_iter().for_each(|number| first.on_execute(on_foreign, number));
    }

    /// A vCPU is about to execute such a block.
    fn executes_foreign(&self, index: c_uint, number: usize) {
        let Some(block) = self.foreign_code.blocks.get(number).and_then(OnceLock::get) else { return };
        let Some(any) = self.any_vcpu(index) else { return };
        if any.registers.privilege_level() != Some(0) || !self.is_l1(&mut any.registers) {
            return;
        }
        if !block.told.swap(true, Ordering::Relaxed) {
            let register = SystemRegister::ForeignCode;
            self.control.l1_does(SystemChange { register, before: 0, now: block.word, rip: Gva(block.rip) });
        }
        if let Some(vcpu) = self.true_vcpu(index).filter(|vcpu| vcpu.runs_guest) {
            self.guest_left_to(vcpu, block.rip);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_keeps_its_number() {
        let code = ForeignCode::new();
        assert_eq!(code.number(0x1000, 1, 1), Some(0));
        assert_eq!(code.number(0x1000, 1, 2), Some(1), "other code at the same place");
        assert_eq!(code.number(0x1000, 1, 1), Some(0));
        let numbers: Vec<_> = (0..MAX_BLOCKS as u64).map(|at| code.number(at, 0, 0)).collect();
        assert_eq!(numbers.iter().flatten().max(), Some(&(MAX_BLOCKS - 1)));
        assert_eq!(numbers.last(), Some(&None));
    }
}
