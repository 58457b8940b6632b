//! L1's RAM as QEMU itself has it, where it is not a file that could be mapped.
//!
//! Under KVM a user's RAM may be anonymous memory. The sensor tells where it stands in QEMU's address space and passes
//! QEMU's own `/proc/self/mem` along: rights to another process's memory are checked when that file is opened, not when
//! it is read, so the engine needs none.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use hypovisor_machine::{Gpa, MemoryError, PhysicalMemory, RamLayout, RamRange};

use super::{Session, SessionError};

/// RAM read through `/proc/self/mem`; the layout's offsets are addresses in QEMU.
struct OwnRam {
    memory: File,
    layout: RamLayout,
}

impl PhysicalMemory for OwnRam {
    fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), MemoryError> {
        let mut done = 0;
        while done < buf.len() {
            let at = gpa.offset(done as u64);
            let (address, left) = self.layout.locate(at).ok_or(MemoryError::NoRam(at))?;
            let end = buf.len().min(done.saturating_add(left as usize));
            let read = self.memory.read_exact_at(&mut buf[done..end], address);
            read.map_err(|_| MemoryError::NoRam(at))?;
            done = end;
        }
        Ok(())
    }
}

impl Session {
    /// The sensor tells where RAM is.
    pub(super) fn use_own_ram(&mut self, ranges: Vec<RamRange>) -> Result<(), SessionError> {
        let memory = self.candidates.first().ok_or(SessionError::NotASensor)?;
        let memory = File::from(memory.try_clone().map_err(|_| SessionError::NotASensor)?);
        self.ram = Some(Box::new(OwnRam { memory, layout: RamLayout::new(ranges) }));
        Ok(())
    }
}
