//! KVM's ioctls (Linux include/uapi/linux/kvm.h), and the C library's `ioctl` to make them with.
#![expect(unsafe_code, reason = "calls the C library")]

use core::ffi::{CStr, c_int, c_ulong, c_void};
use std::sync::OnceLock;

use kvm_bindings::kvm_guest_debug;

/// The type of all of KVM's ioctls, in bits 8 to 15 of a request.
const KVMIO: c_ulong = 0xae;

/// System: makes a virtual machine; gives its descriptor.
pub(crate) const CREATE_VM: c_ulong = 0xae01;
/// System or VM: whether there is a capability.
pub(crate) const CHECK_EXTENSION: c_ulong = 0xae03;
/// System: bytes of the mapping that a vCPU shares with KVM.
pub(crate) const GET_VCPU_MMAP_SIZE: c_ulong = 0xae04;
/// VM: makes a vCPU; gives its descriptor.
pub(crate) const CREATE_VCPU: c_ulong = 0xae41;
/// VM: a run of guest-physical addresses, and what stands behind it.
pub(crate) const SET_USER_MEMORY_REGION: c_ulong = 0x4020_ae46;
/// The same with more fields behind the old ones (Linux 6.8).
pub(crate) const SET_USER_MEMORY_REGION2: c_ulong = 0x40a0_ae49;
/// vCPU: lets it run.
pub(crate) const RUN: c_ulong = 0xae80;
/// vCPU: sets its general registers.
pub(crate) const SET_REGS: c_ulong = 0x4090_ae82;
/// vCPU: breakpoints and single steps.
pub(crate) const SET_GUEST_DEBUG: c_ulong = 0x4048_ae9b;

/// Whether a request is one of KVM's.
pub(crate) const fn is_kvm(request: c_ulong) -> bool {
    (request >> 8) & 0xff == KVMIO
}

type Ioctl = unsafe extern "C" fn(c_int, c_ulong, *mut c_void) -> c_int;

/// The next `ioctl` behind ours: the C library's, or that of another preloaded library.
fn next() -> Option<Ioctl> {
    static NEXT: OnceLock<Option<Ioctl>> = OnceLock::new();
    const NAME: &CStr = c"ioctl";
    *NEXT.get_or_init(|| {
        // SAFETY: looks a name up; RTLD_NEXT leaves out the library that asks.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, NAME.as_ptr()) };
        // SAFETY: a function pointer is as large as a data pointer on x86-64, null being `None`, and a symbol of this
        // name has this signature for three arguments.
        unsafe { std::mem::transmute::<*mut c_void, Option<Ioctl>>(found) }
    })
}

/// `ioctl(2)`, unwrapped: the result, with `errno` set if that is -1.
///
/// # Safety
/// As `ioctl(2)`.
pub(crate) unsafe fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    let Some(next) = next() else { return fail(libc::ENOSYS) };
    // SAFETY: passed on as the caller gave it.
    unsafe { next(fd, request, argument) }
}

/// A request whose argument is a number.
pub(crate) fn ioctl_number(fd: c_int, request: c_ulong, number: usize) -> c_int {
    // SAFETY: only requests that take a number, or nothing, are made so; the kernel looks at no memory.
    unsafe { ioctl(fd, request, std::ptr::without_provenance_mut(number)) }
}

/// Sets `errno`, and is what a failed ioctl returns.
pub(crate) fn fail(errno: c_int) -> c_int {
    // SAFETY: the C library gives the address of this thread's own.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    unsafe { *place = errno };
    -1
}

/// Sets a vCPU's breakpoints; 0, or -1 with `errno` set.
pub(crate) fn set_guest_debug(vcpu: c_int, wish: &mut kvm_guest_debug) -> c_int {
    // SAFETY: the request's argument is this structure.
    unsafe { ioctl(vcpu, SET_GUEST_DEBUG, std::ptr::from_mut(wish).cast()) }
}

/// Whether this process does something of its own at a signal, rather than die of it.
pub(crate) fn handles_signal(signal: c_int) -> bool {
    // SAFETY: all zeros is a valid value of this structure of plain data.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a null new action only asks; the old one goes into our structure.
    let asked = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) } == 0;
    asked && ![libc::SIG_DFL, libc::SIG_IGN].contains(&action.sa_sigaction)
}

/// Sends a signal to one thread of this process; nothing happens if it is gone.
pub(crate) fn signal_thread(thread: i32, signal: c_int) {
    // SAFETY: the kernel looks the thread up.
    unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), thread, signal) };
}
