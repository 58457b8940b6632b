//! The L1 that is looked at.

use hypovisor_machine::{Gva, PAGE_SIZE, PhysicalMemory, SystemRegisters, VirtualMemory};

use crate::reference::{Range, Reference};

/// Of so many pages of code, taken from all over it, half have to be as in the file: L1 changes a few of them at boot.
const SAMPLED_PAGES: u64 = 32;

/// Whether the file's code stands where these page tables lead.
fn has_code(physical: &impl PhysicalMemory, reference: &Reference<'_>, cr3: u64) -> bool {
    let memory = VirtualMemory::new(physical, cr3);
    let text = reference.parts().text;
    let step = (text.bytes() / SAMPLED_PAGES).max(1);
    let same = (0..SAMPLED_PAGES).filter(|sample| {
        let at = text.start.offset(sample * step);
        let mut found = [0; 256];
        memory.read(at, &mut found).is_ok() && reference.bytes(at, found.len()) == Some(&found)
    });
    same.count() as u64 >= SAMPLED_PAGES / 2
}

/// The most that is read at once: no Xen's code or constants are larger.
const MAX_RANGE_BYTES: u64 = 32 << 20;

/// A processor that runs L1 or one of its PV guests. (While it runs another guest, its registers are that guest's.)
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cpu {
    pub(crate) index: usize,
    pub(crate) registers: SystemRegisters,
}

/// Memory and processors of an L1, and what its file says of it.
pub struct Target<'a, M> {
    pub(crate) physical: M,
    pub(crate) cr3: u64,
    pub(crate) reference: &'a Reference<'a>,
    pub(crate) cpus: Vec<Cpu>,
    /// Processors that run something else.
    pub(crate) elsewhere: usize,
}

impl<'a, M: PhysicalMemory> Target<'a, M> {
    /// Looks for L1 in this memory: by the page tables of its processors (`cpus`, as far as the source tells), else by those
    /// of `candidates`, values of CR3.
    ///
    /// `None` if none of them leads to the code of the file.
    pub fn find(
        physical: M,
        reference: &'a Reference<'a>,
        cpus: &[SystemRegisters],
        candidates: impl IntoIterator<Item = u64>,
    ) -> Option<Self> {
        let known = cpus.iter().map(|cpu| cpu.cr3);
        let cr3 = known.chain(candidates).find(|cr3| has_code(&physical, reference, *cr3))?;
        let text = reference.parts().text.start;
        let code = VirtualMemory::new(&physical, cr3).translate(text);
        let runs_l1 = |cpu: &SystemRegisters| VirtualMemory::new(&physical, cpu.cr3).translate(text) == code;
        let numbered = cpus.iter().enumerate().filter(|(_, cpu)| runs_l1(cpu));
        let found: Vec<Cpu> =
            numbered.map(|(index, registers)| Cpu { index, registers: *registers }).collect();
        let elsewhere = cpus.len() - found.len();
        let own = reference.symbols().address_of("idle_pg_table");
        let own = own.and_then(|table| VirtualMemory::new(&physical, cr3).translate(table).ok());
        Some(Self { cr3: own.map_or(cr3, |own| own.0), physical, reference, cpus: found, elsewhere })
    }

    /// Whether L1 has finished its boot: what is needed only for that is thrown away.
    #[must_use]
    pub fn is_booted(&self) -> bool {
        let symbols = self.reference.symbols();
        let boot = symbols.address_of("__init_begin").or_else(|| symbols.address_of("_sinittext"));
        boot.is_some_and(|boot| self.memory().translate(boot).is_err())
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
