//! One mapping of a file into this process.
#![expect(unsafe_code, reason = "maps memory and copies in and out of it")]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::mm::{self, MapFlags, ProtFlags};

use crate::own;

/// Why memory could not be created or mapped.
#[derive(Debug, thiserror::Error)]
pub enum MappingError {
    /// The kernel refused.
    #[error("cannot {action} {len} bytes of shared memory: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// Size in bytes.
        len: usize,
        /// The kernel's answer.
        source: rustix::io::Errno,
    },
    /// The file is shorter than the mapping would be; touching its end would be a fault.
    #[error("shared memory has {actual} bytes where {wanted} are needed")]
    TooShort {
        /// Size of the file in bytes.
        actual: u64,
        /// End of the wanted mapping in bytes.
        wanted: u64,
    },
}

/// What a mapping may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Copying out only.
    ReadOnly,
    /// Copying out and in.
    ReadWrite,
}

impl Access {
    fn protection(self) -> ProtFlags {
        match self {
            Self::ReadOnly => ProtFlags::READ,
            Self::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
        }
    }
}

/// Creates an anonymous file of `len` zero bytes that can be passed to another process.
///
/// # Errors
/// [`MappingError::System`] when the kernel refuses.
pub fn create_memfd(name: &str, len: usize) -> Result<OwnedFd, MappingError> {
    let failed = |action| move |source| MappingError::System { action, len, source };
    let fd = memfd_create(name, MemfdFlags::CLOEXEC).map_err(failed("create"))?;
    rustix::fs::ftruncate(&fd, len as u64).map_err(failed("size"))?;
    Ok(fd)
}

/// Bytes of a file mapped into this process, shared with whoever else maps them.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    /// Bytes from `base` that may be touched.
    len: usize,
    access: Access,
    /// Whether the mapping is ours to take down.
    owned: bool,
}

// SAFETY: the mapping belongs to the process, not to a thread, and every access goes through copies or atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above; `private_part` asks for `&mut self`.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of `fd` from `offset` on (a multiple of the page size).
    ///
    /// # Errors
    /// [`MappingError::TooShort`] if the file ends before, [`MappingError::System`] when the kernel refuses.
    pub fn new(fd: impl AsFd, offset: u64, len: usize, access: Access) -> Result<Self, MappingError> {
        check_length(fd.as_fd(), offset, len)?;
        Self::map(fd.as_fd(), offset, len, access)
    }

    /// Maps `len` bytes of something whose kernel driver says itself what may be mapped, and which has no length: a perf event.
    ///
    /// # Errors
    /// [`MappingError::System`] when the kernel refuses.
    pub fn of_device(fd: impl AsFd, len: usize, access: Access) -> Result<Self, MappingError> {
        Self::map(fd.as_fd(), 0, len, access)
    }

    fn map(fd: BorrowedFd<'_>, offset: u64, len: usize, access: Access) -> Result<Self, MappingError> {
        // SAFETY: a null hint lets the kernel choose free addresses, so no existing mapping is replaced.
        let base =
            unsafe { mm::mmap(std::ptr::null_mut(), len, access.protection(), MapFlags::SHARED, fd, offset) }
                .map_err(|source| MappingError::System { action: "map", len, source })?;
        Self::from_parts(base, len, access)
    }

    /// Maps the same `len` bytes (a multiple of the page size) twice, one copy right behind the other, so
    /// that a record that wraps around the end of a ring is still one run of bytes. [`Mapping::len`] is `2 * len`.
    ///
    /// # Errors
    /// As [`Mapping::new`].
    pub fn mirrored(fd: impl AsFd, offset: u64, len: usize, access: Access) -> Result<Self, MappingError> {
        check_length(fd.as_fd(), offset, len)?;
        let failed = |source| MappingError::System { action: "map twice", len, source };
        // SAFETY: a null hint lets the kernel choose free addresses.
        let reserved = unsafe {
            mm::mmap_anonymous(std::ptr::null_mut(), 2 * len, ProtFlags::empty(), MapFlags::PRIVATE)
        }
        .map_err(failed)?;
        let mapping = Self::from_parts(reserved, 2 * len, access)?;
        for copy in 0..2 {
            let at = mapping.base.as_ptr().wrapping_add(copy * len).cast();
            let flags = MapFlags::SHARED | MapFlags::FIXED;
            // SAFETY: `at..at + len` lies in the range reserved just above, which nothing else uses.
            unsafe { mm::mmap(at, len, access.protection(), flags, &fd, offset) }.map_err(failed)?;
        }
        Ok(mapping)
    }

    fn from_parts(base: *mut core::ffi::c_void, len: usize, access: Access) -> Result<Self, MappingError> {
        let base = NonNull::new(base.cast()).ok_or(MappingError::System {
            action: "map",
            len,
            source: rustix::io::Errno::NOMEM,
        })?;
        Ok(Self { base, len, access, owned: true })
    }

    /// The first `len` bytes of `fd` where somebody else in this process has mapped them already, shared and writable.
    /// `None` if nobody has.
    ///
    /// Two addresses of the same memory compete for one place in an AMD processor's first-level data cache, whose way
    /// predictor goes by virtual address ("Software Optimization Guide for AMD Family 17h Processors", on microtags),
    /// and need two entries in the TLB. Who reads what another has just written had better use the other's address.
    ///
    /// # Safety
    /// That mapping must stay where it is for as long as the result lives.
    #[must_use]
    pub unsafe fn of_this_process(fd: impl AsFd, len: usize) -> Option<Self> {
        let address = own::find(fd.as_fd(), len)?;
        let base = NonNull::new(std::ptr::with_exposed_provenance_mut(address))?;
        Some(Self { base, len, access: Access::ReadWrite, owned: false })
    }

    /// `len` bytes from `address` on that somebody else has mapped into this process, or `None` if they do not start on a
    /// page.
    ///
    /// # Safety
    /// Whatever is reached for through the result must stay mapped, readable and writable, for as long as the result
    /// lives. What nobody reaches for may be anything.
    #[must_use]
    pub unsafe fn of_addresses(address: usize, len: usize) -> Option<Self> {
        let base = NonNull::new(std::ptr::with_exposed_provenance_mut(address))?;
        let on_page = address.is_multiple_of(hypovisor_machine::PAGE_SIZE as usize);
        on_page.then_some(Self { base, len, access: Access::ReadWrite, owned: false })
    }

    /// Has every page of the mapping there before it is used, so that the first use is as fast as any. Where the kernel
    /// cannot (before Linux 5.14), pages come as they are used.
    pub fn populate(&self) {
        // SAFETY: populating changes no contents, and the range is the whole mapping.
        let _ = unsafe { mm::madvise(self.base.as_ptr().cast(), self.len, mm::Advice::LinuxPopulateWrite) };
    }

    /// Bytes that can be reached.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether the mapping has no bytes; the kernel refuses such a mapping, so never.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the mapping starts in this process: a number to compare with other addresses.
    #[must_use]
    pub fn address(&self) -> usize {
        self.base.as_ptr() as usize
    }

    fn contains(&self, offset: usize, len: usize) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.len)
    }

    /// Copies bytes out; false if they lie outside the mapping.
    #[must_use]
    pub fn copy_out(&self, offset: usize, buf: &mut [u8]) -> bool {
        if !self.contains(offset, buf.len()) {
            return false;
        }
        let from = self.base.as_ptr().wrapping_add(offset);
        // SAFETY: the range was checked against the mapping, which lives as long as `self`; `buf` is ours, so the
        // two cannot overlap. Another party may write meanwhile: the bytes are plain data, copied once.
        unsafe { std::ptr::copy_nonoverlapping(from, buf.as_mut_ptr(), buf.len()) };
        true
    }

    /// Copies bytes in; false if they would lie outside the mapping or it is read-only.
    #[must_use]
    pub fn copy_in(&self, offset: usize, bytes: &[u8]) -> bool {
        if self.access == Access::ReadOnly || !self.contains(offset, bytes.len()) {
            return false;
        }
        let to = self.base.as_ptr().wrapping_add(offset);
        // SAFETY: the range was checked against the mapping, which is writable and lives as long as `self`; `bytes`
        // is ours, so the two cannot overlap.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        true
    }

    /// The aligned 64-bit word at `offset`, read at once; `None` outside the mapping or not on an 8-byte boundary.
    #[must_use]
    pub fn word(&self, offset: usize) -> Option<u64> {
        if !offset.is_multiple_of(8) || !self.contains(offset, 8) {
            return None;
        }
        let from = self.base.as_ptr().wrapping_add(offset).cast::<u64>();
        // SAFETY: checked to lie inside the mapping, and aligned because mappings start on a page.
        Some(unsafe { from.read_volatile() })
    }

    /// As [`Mapping::word`], 16 bits.
    #[must_use]
    pub fn half_word(&self, offset: usize) -> Option<u16> {
        if !offset.is_multiple_of(2) || !self.contains(offset, 2) {
            return None;
        }
        let from = self.base.as_ptr().wrapping_add(offset).cast::<u16>();
        // SAFETY: checked to lie inside the mapping, and aligned because mappings start on a page.
        Some(unsafe { from.read_volatile() })
    }

    /// A counter shared with the other side; `None` outside the mapping, unaligned, or if it is read-only.
    #[must_use]
    pub fn counter(&self, offset: usize) -> Option<&AtomicU64> {
        let at = self.atomic_at(offset, 8)?;
        // SAFETY: inside a writable mapping that lives as long as `self`, and aligned; every access to the word is atomic.
        Some(unsafe { AtomicU64::from_ptr(at.cast()) })
    }

    /// As [`Mapping::counter`], 32 bits.
    #[must_use]
    pub fn flag(&self, offset: usize) -> Option<&AtomicU32> {
        let at = self.atomic_at(offset, 4)?;
        // SAFETY: inside a writable mapping that lives as long as `self`, and aligned; every access to the word is atomic.
        Some(unsafe { AtomicU32::from_ptr(at.cast()) })
    }

    /// `N` words from `offset` on, to load one by one without further checks; `None` as for [`Mapping::counter`].
    #[must_use]
    #[inline]
    pub fn counters<const N: usize>(&self, offset: usize) -> Option<&[AtomicU64; N]> {
        let fits = offset.is_multiple_of(8) && self.contains(offset, 8 * N);
        let at =
            (fits && self.access == Access::ReadWrite).then(|| self.base.as_ptr().wrapping_add(offset))?;
        // SAFETY: inside a writable mapping that lives as long as `self`, and aligned; every access to a word is atomic.
        Some(unsafe { &*at.cast::<[AtomicU64; N]>() })
    }

    fn atomic_at(&self, offset: usize, bytes: usize) -> Option<*mut u8> {
        let fits = offset.is_multiple_of(bytes) && self.contains(offset, bytes);
        (fits && self.access == Access::ReadWrite).then(|| self.base.as_ptr().wrapping_add(offset))
    }

    /// Bytes that by agreement no other party touches now: the unpublished part of a ring, seen by its one
    /// producer. `None` outside the mapping or if it is read-only.
    pub fn private_part(&mut self, offset: usize, len: usize) -> Option<&mut [u8]> {
        if self.access == Access::ReadOnly || !self.contains(offset, len) {
            return None;
        }
        let at = self.base.as_ptr().wrapping_add(offset);
        // SAFETY: the range was checked, the mapping is writable and `&mut self` makes this the only reference from
        // this process. A peer that reads too early sees torn bytes, which it has to expect.
        Some(unsafe { std::slice::from_raw_parts_mut(at, len) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if !self.owned {
            return;
        }
        // SAFETY: `base` and `len` came from mmap, and no reference into the mapping outlives `self`.
        let _ = unsafe { mm::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

fn check_length(fd: BorrowedFd<'_>, offset: u64, len: usize) -> Result<(), MappingError> {
    let stat =
        rustix::fs::fstat(fd).map_err(|source| MappingError::System { action: "inspect", len, source })?;
    let (actual, wanted) = (stat.st_size as u64, offset.saturating_add(len as u64));
    if wanted > actual { Err(MappingError::TooShort { actual, wanted }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn bytes_and_counters_are_shared_between_two_mappings() {
        let fd = create_memfd("test", 8192).unwrap();
        let writer = Mapping::new(&fd, 0, 8192, Access::ReadWrite).unwrap();
        let reader = Mapping::new(&fd, 4096, 4096, Access::ReadOnly).unwrap();
        assert!(writer.copy_in(4096, b"hello"));
        writer.counter(4104).unwrap().store(7, Ordering::Release);
        let mut seen = [0; 5];
        assert!(reader.copy_out(0, &mut seen));
        assert_eq!((&seen, reader.word(8)), (b"hello", Some(7)));
        assert!(reader.counter(8).is_none(), "a read-only mapping has no counters");
        assert!(reader.counters::<1>(8).is_none());
        assert_eq!(writer.counters::<2>(4104).unwrap()[0].load(Ordering::Acquire), 7);
        assert!(writer.counters::<2>(8184).is_none() && writer.counters::<1>(4).is_none());
        assert!(!reader.copy_in(0, b"x"));
    }

    #[test]
    fn a_mirrored_mapping_continues_at_its_start() {
        let fd = create_memfd("test", 4096).unwrap();
        let mut ring = Mapping::mirrored(&fd, 0, 4096, Access::ReadWrite).unwrap();
        ring.private_part(4092, 8).unwrap().copy_from_slice(b"abcdefgh");
        let mut start = [0; 4];
        assert!(ring.copy_out(0, &mut start));
        assert_eq!(&start, b"efgh");
    }

    #[test]
    fn a_mapping_of_this_process_is_found_and_left_in_place() {
        let fd = create_memfd("test", 8192).unwrap();
        // SAFETY: there is none to go away.
        assert!(unsafe { Mapping::of_this_process(&fd, 8192) }.is_none());
        let read_only = Mapping::new(&fd, 0, 8192, Access::ReadOnly).unwrap();
        let writable = Mapping::new(&fd, 0, 8192, Access::ReadWrite).unwrap();
        // SAFETY: `writable` outlives it.
        let found = unsafe { Mapping::of_this_process(&fd, 8192) }.unwrap();
        assert_eq!(found.address(), writable.address());
        assert_ne!(found.address(), read_only.address());
        // SAFETY: as above.
        assert!(unsafe { Mapping::of_this_process(&fd, 8193) }.is_none());
        drop(found);
        assert!(writable.copy_in(0, b"still there"));
    }

    #[test]
    fn nothing_outside_is_reached() {
        let fd = create_memfd("test", 4096).unwrap();
        let mut mapping = Mapping::new(&fd, 0, 4096, Access::ReadWrite).unwrap();
        assert!(!mapping.copy_out(4090, &mut [0; 7]));
        assert!(!mapping.copy_out(usize::MAX, &mut [0; 2]));
        assert!(mapping.word(4092).is_none() && mapping.word(3).is_none());
        assert!(mapping.half_word(4096).is_none() && mapping.half_word(3).is_none());
        assert!(mapping.private_part(1, 4096).is_none());
        let short = Mapping::new(&fd, 0, 8192, Access::ReadOnly);
        assert!(matches!(short, Err(MappingError::TooShort { actual: 4096, wanted: 8192 })));
    }
}
