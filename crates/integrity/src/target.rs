//! The L1 that is looked at.

use hypovisor_machine::{Gva, PAGE_SIZE, PhysicalMemory, SystemRegisters, VirtualMemory};

use crate::reference::{Range, Reference};

/// The most that is read at once: no Xen's code or constants are larger.
const MAX_RANGE_BYTES: u64 = 32 << 20;

/// Memory and processors of an L1, and what its file says of it.
pub struct Target<'a, M> {
    pub(crate) physical: M,
    pub(crate) cr3: u64,
    pub(crate) reference: &'a Reference<'a>,
    pub(crate) cpus: &'a [SystemRegisters],
}

impl<'a, M: PhysicalMemory> Target<'a, M> {
    /// An L1 whose own address space is that of `cr3`; `cpus` as far as the source tells.
    pub const fn new(
        physical: M,
        cr3: u64,
        reference: &'a Reference<'a>,
        cpus: &'a [SystemRegisters],
    ) -> Self {
        Self { physical, cr3, reference, cpus }
    }

    pub(crate) const fn memory(&self) -> VirtualMemory<&M> {
        VirtualMemory::new(&self.physical, self.cr3)
    }

    /// The bytes of a range page by page, without those that are not mapped: where each piece begins, and the piece.
    pub(crate) fn pages(&self, range: Range) -> impl Iterator<Item = (Gva, Option<Vec<u8>>)> {
        let len = range.bytes().min(MAX_RANGE_BYTES);
        let memory = self.memory();
        let mut done = 0;
        std::iter::from_fn(move || {
            let at = range.start.offset(done);
            let piece = (PAGE_SIZE - at.page_offset()).min(len.checked_sub(done)?);
            if piece == 0 {
                return None;
            }
            done += piece;
            let mut bytes = vec![0; piece as usize];
            let read = memory.read(at, &mut bytes).is_ok();
            Some((at, read.then_some(bytes)))
        })
    }

    /// So many bytes, at most a page of them.
    pub(crate) fn bytes(&self, gva: Gva, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len.min(PAGE_SIZE as usize)];
        self.memory().read(gva, &mut bytes).ok()?;
        Some(bytes)
    }

    pub(crate) fn word(&self, gva: Gva) -> Option<u64> {
        self.memory().read_u64(gva).ok()
    }

    pub(crate) fn variable(&self, name: &str) -> Option<u64> {
        self.word(self.reference.symbols().address_of(name)?)
    }

    pub(crate) fn name(&self, gva: Gva) -> String {
        self.reference.name(gva)
    }
}
