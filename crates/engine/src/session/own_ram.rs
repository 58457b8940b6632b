//! L1's RAM as QEMU itself has it, where it is not a file that could be mapped.
//!
//! Under KVM a user's RAM may be anonymous memory. The sensor tells where it stands in QEMU's address space and passes
//! QEMU's own `/proc/self/mem` along: rights to another process's memory are checked when that file is opened, not when
//! it is read, so the engine needs none.

use std::fs::File;

use hypovisor_machine::{RamLayout, RamRange};

use super::{Session, SessionError};
use crate::inspect::ProcessMemory;

impl Session {
    /// The sensor tells where RAM is.
    pub(super) fn use_own_ram(&mut self, ranges: Vec<RamRange>) -> Result<(), SessionError> {
        let memory = self.candidates.first().ok_or(SessionError::NotASensor)?;
        let file = File::from(memory.try_clone().map_err(|_| SessionError::NotASensor)?);
        self.ram = Some(Box::new(ProcessMemory { file, layout: RamLayout::new(ranges) }));
        Ok(())
    }
}
