//! The one symbol that this library puts in front of the C library's.
#![expect(unsafe_code, reason = "replaces a function of the C library")]

use core::ffi::{c_int, c_ulong, c_void};

use crate::{kvm, qemu};

/// `ioctl(2)`. What is not KVM's goes straight on.
///
/// In C the function takes a variable number of arguments. On x86-64 the first three stand in the same registers either
/// way (System V AMD64 ABI, §3.5.7).
///
/// # Safety
/// As `ioctl(2)`: `argument` is what the request asks for.
// SAFETY: the library is made to be preloaded, so that this is the `ioctl` that QEMU calls. A test program keeps its own.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    if kvm::is_kvm(request) {
        // SAFETY: passed on as the caller gave it.
        return unsafe { qemu::on_ioctl(fd, request, argument) };
    }
    // SAFETY: as above.
    unsafe { kvm::ioctl(fd, request, argument) }
}
