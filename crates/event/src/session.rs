//! The memfd that holds all rings of one QEMU process.
//!
//! ```text
//!   0                    4 KiB                       (1 + n) × 4 KiB
//!   ├── header page ─────┼── control page × n ───────┼── data × n, ring_bytes each ──
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hypovisor_machine::PAGE_SIZE;
use hypovisor_mapping::{Access, Mapping, MappingError, create_memfd};

use crate::ring::{Consumer, Producer};

/// How many rings there are, and how large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingGeometry {
    /// One per vCPU of L1.
    pub rings: u32,
    /// Bytes of each: a power of two, at least one page.
    pub ring_bytes: u64,
}

impl RingGeometry {
    /// The most vCPUs that are supported; QEMU's own limit for x86 is 4,096.
    pub const MAX_RINGS: u32 = 4096;

    /// Rounds what was asked for to what a ring can be.
    #[must_use]
    pub fn new(rings: u32, ring_bytes: u64) -> Self {
        let ring_bytes = ring_bytes.clamp(PAGE_SIZE, 1 << 32).next_power_of_two();
        Self { rings: rings.clamp(1, Self::MAX_RINGS), ring_bytes }
    }

    const fn control_at(self, ring: u32) -> u64 {
        (1 + ring as u64) * PAGE_SIZE
    }

    const fn data_at(self, ring: u32) -> u64 {
        (1 + self.rings as u64) * PAGE_SIZE + ring as u64 * self.ring_bytes
    }

    const fn total_bytes(self) -> u64 {
        self.data_at(self.rings)
    }
}

/// All rings of one QEMU process.
#[derive(Debug)]
pub struct Rings {
    fd: OwnedFd,
    geometry: RingGeometry,
}

impl Rings {
    /// Creates the memory. Its pages come when a [`Producer`] is made.
    ///
    /// # Errors
    /// When the kernel refuses the memory.
    pub fn create(geometry: RingGeometry) -> Result<Self, MappingError> {
        let fd = create_memfd("hypovisor-rings", geometry.total_bytes() as usize)?;
        Ok(Self { fd, geometry })
    }

    /// Takes over the memory another process created.
    ///
    /// # Errors
    /// [`MappingError::TooShort`] if it is smaller than the geometry says.
    pub fn open(fd: OwnedFd, geometry: RingGeometry) -> Result<Self, MappingError> {
        let geometry = RingGeometry::new(geometry.rings, geometry.ring_bytes);
        Mapping::new(&fd, geometry.total_bytes() - PAGE_SIZE, PAGE_SIZE as usize, Access::ReadOnly)?;
        Ok(Self { fd, geometry })
    }

    /// The memory, to pass to the other side.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Their number and size.
    #[must_use]
    pub const fn geometry(&self) -> RingGeometry {
        self.geometry
    }

    /// The writing end of ring `ring`. Only one may be in use.
    ///
    /// # Errors
    /// When it cannot be mapped.
    pub fn producer(&self, ring: u32) -> Result<Producer, MappingError> {
        let (control, data) = self.map(ring, Access::ReadWrite)?;
        data.populate();
        Ok(Producer::new(control, data))
    }

    /// The reading end of ring `ring`. Only one may be in use.
    ///
    /// # Errors
    /// When it cannot be mapped.
    pub fn consumer(&self, ring: u32) -> Result<Consumer, MappingError> {
        let (control, data) = self.map(ring, Access::ReadOnly)?;
        Ok(Consumer::new(control, data))
    }

    fn map(&self, ring: u32, data: Access) -> Result<(Mapping, Mapping), MappingError> {
        let geometry = self.geometry;
        let control =
            Mapping::new(&self.fd, geometry.control_at(ring), PAGE_SIZE as usize, Access::ReadWrite)?;
        let data = Mapping::mirrored(&self.fd, geometry.data_at(ring), geometry.ring_bytes as usize, data)?;
        Ok((control, data))
    }
}
