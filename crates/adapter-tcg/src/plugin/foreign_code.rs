//! Code that L1 executes in its own part of the address space, and that is not in the pages of its image's code.
//!
//! L1 has little of that: live patches, and a stub for each processor that SYSCALL enters by. The first execution is told, if it is
//! L1's and not a guest's that has code at the same addresses; and every one by which a guest leaves.

use core::ffi::{c_uint, c_void};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Range;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use hypovisor_event::control::{SystemChange, SystemRegister};
use hypovisor_machine::Gva;
use hypovisor_sensor::{Register, Vcpu as _};

use super::changed_code::word;
use super::{Plugin, guarded};
use crate::sys::{Block, Flags, Instruction};
use crate::system::MAX_BYTES;

/// Xen's slots 256 to 271 of the top-level table (xen/arch/x86/include/asm/config.h).
pub(super) const OWN_PART: Range<u64> = 0xffff_8000_0000_0000..0xffff_8800_0000_0000;
/// The most blocks that are told apart: far more than live patches have. (A guest can have any number at the same addresses.)
const MAX_BLOCKS: usize = 4096;
/// The number of all that are more.
const REST: usize = MAX_BLOCKS;
/// Between two reports of those.
const REST_PERIOD: Duration = Duration::from_secs(1);
/// The part of a page that a stub of Xen's has, its place for emulated instructions included (`STUB_BUF_SIZE`, xen/arch/x86/include/asm/config.h).
const STUB_BYTES: u64 = 128;

/// A block that was translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ForeignBlock {
    rip: u64,
    /// Its first bytes.
    word: u64,
}

/// Blocks by their number. There are never fewer.
pub(super) struct ForeignCode {
    /// By where they stand, and what they are.
    numbers: Mutex<HashMap<(u64, u64), usize>>,
    blocks: Box<[OnceLock<ForeignBlock>]>,
    /// Those that L1 was seen to execute.
    told: Flags,
    rest_told: Mutex<Option<Instant>>,
}

impl ForeignCode {
    pub(super) fn new() -> Self {
        let blocks = (0..MAX_BLOCKS).map(|_| OnceLock::new()).collect();
        Self {
            numbers: Mutex::default(),
            blocks,
            told: Flags::new(MAX_BLOCKS + 1),
            rest_told: Mutex::default(),
        }
    }

    /// The machine was reset: what is executed from now on was not told yet.
    pub(super) fn forget(&self) {
        let used = self.numbers.lock().unwrap_or_else(PoisonError::into_inner).len();
        (0..used).filter_map(|number| self.told.get(number)).for_each(|told| told.set_for_all(false));
    }
}

/// The number of a block with this content among those that are known.
fn number(
    numbers: &mut HashMap<(u64, u64), usize>,
    blocks: &[OnceLock<ForeignBlock>],
    block: ForeignBlock,
    content: u64,
) -> usize {
    let next = numbers.len();
    if let Some(number) = numbers.get(&(block.rip, content)) {
        return *number;
    }
    if blocks.get(next).is_none_or(|free| free.set(block).is_err()) {
        return REST;
    }
    numbers.insert((block.rip, content), next);
    next
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

extern "C" fn on_foreign_amid_guest(vcpu: c_uint, userdata: *mut c_void) {
    guarded(|plugin| plugin.leaves_to_foreign(vcpu, userdata.addr()));
}

impl Plugin {
    /// Such a block, with its first instruction.
    pub(super) fn watch_foreign(&self, block: Block, first: Instruction) {
        let rip = first.address();
        let is_stub = |entry: u64| (entry..entry.saturating_add(STUB_BYTES)).contains(&rip).then_some(());
        if self.control.find_set(SystemRegister::Lstar, is_stub).is_some() {
            return;
        }
        let found = ForeignBlock { rip, word: word(first.bytes(&mut [0; MAX_BYTES])) };
        let ForeignCode { numbers, blocks, told, .. } = &self.foreign_code;
        let mut numbers = numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let number = number(&mut numbers, blocks, found, content(block));
        drop(numbers);
        if let (Some(told), Some(guest_runs)) = (told.get(number), self.guests.flag()) {
            first.on_execute_if(told, false, on_foreign, number);
            first.on_execute_if(guest_runs, true, on_foreign_amid_guest, number);
        }
    }

    /// A vCPU is about to execute such a block, for the first time since it was translated, or one of those that are not told apart.
    fn executes_foreign(&self, index: c_uint, number: usize) {
        if !self.is_l1_kernel(index) {
            return;
        }
        if number == REST {
            // No vCPU waits for another; that one tells of them at this moment.
            let Ok(mut told) = self.foreign_code.rest_told.try_lock() else { return };
            if told.is_some_and(|told| told.elapsed() < REST_PERIOD) {
                return;
            }
            *told = Some(Instant::now());
        } else if let Some(told) = self.foreign_code.told.get(number) {
            told.set_for_all(true);
        }
        let ForeignBlock { rip, word } = self.foreign_block(index, number);
        let register = SystemRegister::ForeignCode;
        self.control.l1_does(SystemChange { register, before: 0, now: word, rip: Gva(rip) });
    }

    /// The same while guests run, perhaps on this vCPU.
    fn leaves_to_foreign(&self, index: c_uint, number: usize) {
        if self.is_l1_kernel(index) {
            self.note_exit_to(index, self.foreign_block(index, number).rip);
        }
    }

    /// What is known of a block that the vCPU is about to execute.
    fn foreign_block(&self, index: c_uint, number: usize) -> ForeignBlock {
        let known = self.foreign_code.blocks.get(number).and_then(OnceLock::get).copied();
        let rip = || self.any_vcpu(index)?.registers.read_register(Register::Rip);
        known.unwrap_or_else(|| ForeignBlock { rip: rip().unwrap_or(0), word: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_keeps_its_number() {
        let mut numbers = HashMap::new();
        let blocks: Box<[OnceLock<ForeignBlock>]> = (0..3).map(|_| OnceLock::new()).collect();
        let mut of = |rip, content| number(&mut numbers, &blocks, ForeignBlock { rip, word: 7 }, content);
        assert_eq!(of(0x1000, 1), 0);
        assert_eq!(of(0x1000, 2), 1, "other code at the same place");
        assert_eq!(of(0x1000, 1), 0);
        assert_eq!((of(0x2000, 1), of(0x3000, 1), of(0x4000, 1)), (2, REST, REST), "there is no room");
        assert_eq!(of(0x2000, 1), 2);
    }
}
