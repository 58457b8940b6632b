//! Tells when L1 writes to pages that it should not write to, before it has.
//!
//! The pages are write-protected in QEMU's own mapping of L1's RAM (`userfaultfd` in write-protect mode, Linux
//! Documentation/admin-guide/mm/userfaultfd.rst; QEMU's background snapshots do the same). KVM so maps them read-only, and a vCPU that writes
//! to one waits inside KVM_RUN, by whatever mapping of its own it writes. A thread lets it go on at once, and tells. Until the page is named
//! again, it is not protected. Reading costs nothing; QEMU's own writes are seen like L1's.
#![expect(unsafe_code, reason = "calls userfaultfd's ioctls")]

use core::ffi::{c_int, c_ulong};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use hypovisor_machine::PAGE_SIZE;
use rustix::io::Errno;
use rustix::mm::UserfaultfdFlags;

use crate::kvm;

/// `UFFDIO_API` (Linux include/uapi/linux/userfaultfd.h, as all of this).
const API_REQUEST: c_ulong = 0xc018_aa3f;
const REGISTER: c_ulong = 0xc020_aa00;
const WRITE_PROTECT: c_ulong = 0xc018_aa06;
/// On `/dev/userfaultfd`: a descriptor for who may open that, without further privileges (Linux 6.1).
const NEW: c_ulong = 0xaa00;
/// `UFFD_API`.
const API: u64 = 0xaa;
/// `UFFD_FEATURE_PAGEFAULT_FLAG_WP`.
const PRIVATE_MEMORY: u64 = 1 << 0;
/// `UFFD_FEATURE_WP_HUGETLBFS_SHMEM`: files too (Linux 5.19).
const SHARED_MEMORY: u64 = 1 << 12;
/// `UFFDIO_REGISTER_MODE_WP`.
const REGISTER_WRITES: u64 = 1 << 1;
/// `UFFDIO_WRITEPROTECT_MODE_WP`; without it, protection ends and who waits goes on.
const PROTECT: u64 = 1 << 0;
/// `UFFD_EVENT_PAGEFAULT`.
const PAGE_FAULT: u8 = 0x12;

/// `struct uffdio_api`.
#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_register`.
#[repr(C)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

/// `struct uffdio_writeprotect`.
#[repr(C)]
struct WriteProtect {
    start: u64,
    len: u64,
    mode: u64,
}

/// Bytes of `struct uffd_msg`: the event in the first, a fault's address from the 16th on.
const MESSAGE_BYTES: usize = 32;

/// Write protection of this process's memory; without a descriptor from when it was given up.
#[derive(Debug)]
pub(crate) struct Writes(Mutex<Option<Arc<OwnedFd>>>);

impl Writes {
    /// For private and, where the kernel can, shared memory.
    ///
    /// # Errors
    /// The kernel's: it does not have it, or this process may not use it.
    pub(crate) fn open() -> rustix::io::Result<Self> {
        Self::with(PRIVATE_MEMORY | SHARED_MEMORY).or_else(|_| Self::with(PRIVATE_MEMORY))
    }

    fn with(features: u64) -> rustix::io::Result<Self> {
        let writes = Self(Mutex::new(Some(Arc::new(descriptor()?))));
        writes.request(API_REQUEST, &mut Api { api: API, features, ioctls: 0 })?;
        Ok(writes)
    }

    /// Protects a run of whole pages at an address of this process. May be done again.
    ///
    /// # Errors
    /// The kernel's, e.g. if the memory is of a kind that it does not protect.
    pub(crate) fn protect(&self, start: u64, len: u64) -> rustix::io::Result<()> {
        self.request(REGISTER, &mut Register { start, len, mode: REGISTER_WRITES, ioctls: 0 })?;
        self.request(WRITE_PROTECT, &mut WriteProtect { start, len, mode: PROTECT })
    }

    /// Ends all protection: the kernel lets everybody go on who waits.
    pub(crate) fn give_up(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn fd(&self) -> rustix::io::Result<Arc<OwnedFd>> {
        // A descriptor is there or not.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(Errno::BADF)
    }

    /// Waits until somebody writes to a protected page, and lets it. The page's address; `None` if it was something else, or the memory
    /// is no longer there.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn next(&self) -> rustix::io::Result<Option<u64>> {
        let mut message = [0; MESSAGE_BYTES];
        let read = rustix::io::read(&*self.fd()?, &mut message)?;
        if read < MESSAGE_BYTES || message[0] != PAGE_FAULT {
            return Ok(None);
        }
        let mut address = [0; 8];
        address.copy_from_slice(&message[16..24]);
        let page = u64::from_le_bytes(address) & !(PAGE_SIZE - 1);
        loop {
            match self.request(WRITE_PROTECT, &mut WriteProtect { start: page, len: PAGE_SIZE, mode: 0 }) {
                Ok(()) => return Ok(Some(page)),
                Err(Errno::NOENT) => return Ok(None),
                // This process's memory is just being changed.
                Err(Errno::AGAIN | Errno::INTR) => std::thread::yield_now(),
                Err(error) => return Err(error),
            }
        }
    }

    fn request<T>(&self, request: c_ulong, argument: &mut T) -> rustix::io::Result<()> {
        let fd = self.fd()?;
        // SAFETY: each request here is made with the structure that is its argument.
        let result = unsafe { kvm::ioctl(fd.as_raw_fd(), request, std::ptr::from_mut(argument).cast()) };
        checked(result).map(|_| ())
    }
}

fn descriptor() -> rustix::io::Result<OwnedFd> {
    // SAFETY: the descriptor only ever protects memory that L1 has, and whoever waits for a page is let go on.
    let own = unsafe { rustix::mm::userfaultfd(UserfaultfdFlags::CLOEXEC) };
    own.or_else(|error| from_device().ok_or(error))
}

fn from_device() -> Option<OwnedFd> {
    let device = std::fs::File::options().read(true).write(true).open("/dev/userfaultfd").ok()?;
    let flags = UserfaultfdFlags::CLOEXEC.bits() as usize;
    let fd = checked(kvm::ioctl_number(device.as_raw_fd(), NEW, flags)).ok()?;
    // SAFETY: the kernel has just made it, for nobody else.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn checked(result: c_int) -> rustix::io::Result<c_int> {
    if result >= 0 {
        return Ok(result);
    }
    let error = std::io::Error::last_os_error();
    Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::mm::{MapFlags, ProtFlags};
    use std::sync::mpsc::channel;

    #[test]
    fn a_write_is_told_and_done_and_told_again_only_if_asked_for() {
        let len = 4 * PAGE_SIZE as usize;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a null hint lets the kernel choose free addresses.
        let memory = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, protection, MapFlags::PRIVATE).unwrap()
        };
        let write = |page: usize, value: u8| {
            // SAFETY: within the mapping.
            let place = unsafe { memory.cast::<u8>().add(page * PAGE_SIZE as usize + 5) };
            // SAFETY: as above, and nobody else uses it.
            unsafe { place.write_volatile(value) };
        };
        (0..4).for_each(|page| write(page, 1));
        let Ok(writes) = Writes::open() else {
            eprintln!("userfaultfd is not to be had here: nothing was tested");
            return;
        };
        let (start, len) = (memory as u64, len as u64);
        writes.protect(start, len).unwrap();
        let (sender, told) = channel();
        std::thread::spawn(move || {
            while let Ok(page) = writes.next() {
                if page == Some(start + PAGE_SIZE) {
                    writes.protect(start + PAGE_SIZE, PAGE_SIZE).unwrap();
                }
                let _ = sender.send(page);
            }
        });
        write(2, 2);
        assert_eq!(told.recv().unwrap(), Some(start + 2 * PAGE_SIZE));
        write(2, 3);
        write(0, 4);
        assert_eq!(told.recv().unwrap(), Some(start), "the second write to page 2 is free");
    }

    #[test]
    fn who_gives_up_protects_nothing() {
        let Ok(writes) = Writes::open() else {
            eprintln!("userfaultfd is not to be had here: nothing was tested");
            return;
        };
        writes.give_up();
        assert_eq!(writes.protect(0x1000, PAGE_SIZE), Err(Errno::BADF));
        assert_eq!(writes.next(), Err(Errno::BADF));
    }
}
