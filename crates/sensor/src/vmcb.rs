//! What a sensor reads from a VMCB: the state of an HVM or PVH guest at its last exit (AMD APM vol. 2, appendix B).

use hypovisor_event::record::CallerMode;
use hypovisor_machine::nested::GuestPaging;
use hypovisor_machine::{Gpa, MemoryError, PhysicalMemory};
use hypovisor_mapping::Ram;

/// Offset of the 16-bit vector of intercepted control register reads.
pub const CR_READ_INTERCEPTS: u64 = 0;

mod offset {
    pub(super) const NESTED_CR3: u64 = 0xb0;
    pub(super) const CS_ATTRIBUTES: u64 = 0x412;
    pub(super) const CPL: u64 = 0x4cb;
    pub(super) const EFER: u64 = 0x4d0;
    pub(super) const CR4: u64 = 0x548;
    pub(super) const CR3: u64 = 0x550;
    pub(super) const CR0: u64 = 0x558;
}

const EFER_LMA: u64 = 1 << 10;
/// The long-mode bit among the packed segment attributes.
const CS_ATTRIBUTE_L: u16 = 1 << 9;

/// A VMCB in L1's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vmcb(pub Gpa);

impl Vmcb {
    fn bytes<const N: usize>(self, ram: &Ram, offset: u64) -> Result<[u8; N], MemoryError> {
        let mut bytes = [0; N];
        ram.read(self.0.offset(offset), &mut bytes)?;
        Ok(bytes)
    }

    fn word(self, ram: &Ram, offset: u64) -> Result<u64, MemoryError> {
        ram.read_u64(self.0.offset(offset))
    }

    /// The bits that decide how the guest's virtual addresses translate.
    pub(crate) fn paging(self, ram: &Ram) -> Result<GuestPaging, MemoryError> {
        Ok(GuestPaging {
            cr0: self.word(ram, offset::CR0)?,
            cr3: self.word(ram, offset::CR3)?,
            cr4: self.word(ram, offset::CR4)?,
            efer: self.word(ram, offset::EFER)?,
            nested_cr3: self.word(ram, offset::NESTED_CR3)?,
        })
    }

    /// Mode and privilege level of the caller.
    pub(crate) fn mode(self, ram: &Ram) -> Result<(CallerMode, u8), MemoryError> {
        let long = self.word(ram, offset::EFER)? & EFER_LMA != 0;
        let attributes = u16::from_le_bytes(self.bytes(ram, offset::CS_ATTRIBUTES)?);
        let [cpl] = self.bytes(ram, offset::CPL)?;
        let wide = long && attributes & CS_ATTRIBUTE_L != 0;
        Ok((if wide { CallerMode::Hvm64 } else { CallerMode::Hvm32 }, cpl & 3))
    }

    /// The vector of intercepted control register reads: bit n stands for CRn.
    ///
    /// # Errors
    /// When the VMCB does not lie in RAM.
    pub fn cr_read_intercepts(self, ram: &Ram) -> Result<u16, MemoryError> {
        Ok(u16::from_le_bytes(self.bytes(ram, CR_READ_INTERCEPTS)?))
    }
}
