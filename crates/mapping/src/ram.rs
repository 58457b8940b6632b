//! L1's RAM: the file QEMU backs it with, mapped, and where each guest-physical address stands in it.

use std::os::fd::AsFd;

use hypovisor_machine::{Gpa, MemoryError, PhysicalMemory, RamLayout};

use crate::mapping::{Access, Mapping, MappingError};

/// L1's guest-physical memory, mapped into this process.
#[derive(Debug)]
pub struct Ram {
    mapping: Mapping,
    layout: RamLayout,
}

impl Ram {
    /// Maps the backend `fd`, whose bytes stand at the addresses that `layout` tells.
    ///
    /// # Errors
    /// [`MappingError`] when the backend is shorter than the layout says or cannot be mapped.
    pub fn map(fd: impl AsFd, layout: RamLayout, access: Access) -> Result<Self, MappingError> {
        let mapping = Mapping::new(fd, 0, Self::backend_bytes(&layout), access)?;
        Ok(Self { mapping, layout })
    }

    /// As [`Ram::map`], with a mapping of the backend from its first byte on that exists already.
    ///
    /// # Errors
    /// [`MappingError::TooShort`] if the mapping ends before the RAM does.
    pub fn over(mapping: Mapping, layout: RamLayout) -> Result<Self, MappingError> {
        let (actual, wanted) = (mapping.len() as u64, Self::backend_bytes(&layout) as u64);
        if wanted > actual {
            Err(MappingError::TooShort { actual, wanted })
        } else {
            Ok(Self { mapping, layout })
        }
    }

    /// How much of its backend a layout needs, in bytes.
    #[must_use]
    pub fn backend_bytes(layout: &RamLayout) -> usize {
        layout.ranges().map(|range| range.file_offset.saturating_add(range.len)).max().unwrap_or(0) as usize
    }

    /// Where each guest-physical address stands.
    #[must_use]
    pub const fn layout(&self) -> &RamLayout {
        &self.layout
    }

    /// The mapping itself, for offsets found with [`Ram::offset_of`].
    #[must_use]
    pub const fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// Offset in the mapping of `len` consecutive bytes at `gpa`.
    ///
    /// # Errors
    /// [`MemoryError::NoRam`] if they are not all backed by one run of RAM.
    pub fn offset_of(&self, gpa: Gpa, len: usize) -> Result<usize, MemoryError> {
        match self.layout.locate(gpa) {
            Some((offset, left)) if len as u64 <= left => Ok(offset as usize),
            _ => Err(MemoryError::NoRam(gpa)),
        }
    }

    /// What stands at an address of this process, if it is within this mapping and RAM of L1.
    #[must_use]
    pub fn gpa_at(&self, address: u64) -> Option<Gpa> {
        self.layout.gpa_of(address.checked_sub(self.mapping.address() as u64)?)
    }

    /// Writes to L1's memory. Only for what Hypovisor must change to do its work; each use says why.
    ///
    /// # Errors
    /// [`MemoryError::NoRam`] if the bytes are not all backed by RAM, or the mapping is read-only.
    pub fn write(&self, gpa: Gpa, bytes: &[u8]) -> Result<(), MemoryError> {
        let offset = self.offset_of(gpa, bytes.len())?;
        self.mapping.copy_in(offset, bytes).then_some(()).ok_or(MemoryError::NoRam(gpa))
    }
}

impl PhysicalMemory for Ram {
    fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), MemoryError> {
        let mut done = 0;
        while done < buf.len() {
            let at = gpa.offset(done as u64);
            let (offset, left) = self.layout.locate(at).ok_or(MemoryError::NoRam(at))?;
            let end = buf.len().min(done.saturating_add(left as usize));
            if !self.mapping.copy_out(offset as usize, &mut buf[done..end]) {
                return Err(MemoryError::NoRam(at));
            }
            done = end;
        }
        Ok(())
    }

    fn read_u64(&self, gpa: Gpa) -> Result<u64, MemoryError> {
        let word = self.offset_of(gpa, 8).ok().and_then(|offset| self.mapping.word(offset));
        if let Some(word) = word {
            return Ok(u64::from_le(word));
        }
        let mut bytes = [0; 8];
        self.read(gpa, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::create_memfd;
    use hypovisor_machine::RamRange;

    #[test]
    fn reads_cross_from_one_run_of_ram_to_the_next() {
        let fd = create_memfd("test", 8192).unwrap();
        let layout = RamLayout::new([
            RamRange { gpa: Gpa(0), len: 4096, file_offset: 4096 },
            RamRange { gpa: Gpa(4096), len: 4096, file_offset: 0 },
        ]);
        let ram = Ram::map(&fd, layout, Access::ReadWrite).unwrap();
        ram.write(Gpa(4088), &[1; 8]).unwrap();
        ram.write(Gpa(4096), &[2; 8]).unwrap();
        let mut bytes = [0; 4];
        ram.read(Gpa(4094), &mut bytes).unwrap();
        assert_eq!(bytes, [1, 1, 2, 2]);
        assert_eq!(ram.read_u64(Gpa(4092)), Ok(0x0202_0202_0101_0101));
        assert_eq!(ram.read(Gpa(8190), &mut bytes), Err(MemoryError::NoRam(Gpa(8192))));
        assert!(ram.write(Gpa(4094), &[0; 4]).is_err(), "a write never straddles two runs");
    }
}
