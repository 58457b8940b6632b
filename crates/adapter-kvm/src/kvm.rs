//! KVM's ioctls (Linux include/uapi/linux/kvm.h), and the C library's `ioctl` to make them with.
#![expect(unsafe_code, reason = "calls the C library")]

use core::ffi::{CStr, c_int, c_ulong, c_void};
use std::sync::OnceLock;

use kvm_bindings::{kvm_enable_cap, kvm_guest_debug, kvm_msr_entry, kvm_msr_filter};

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
/// VM: turns on what is off unless asked for.
pub(crate) const ENABLE_CAP: c_ulong = 0x4068_aea3;
/// VM: which model-specific registers L1 may use without userspace (Linux 5.10).
pub(crate) const SET_MSR_FILTER: c_ulong = 0x4188_aec6;
/// vCPU: sets model-specific registers.
const SET_MSRS: c_ulong = 0x4008_ae89;
/// vCPU: lets it run.
pub(crate) const RUN: c_ulong = 0xae80;
/// vCPU: sets its general registers.
pub(crate) const SET_REGS: c_ulong = 0x4090_ae82;
/// vCPU: sets its system registers.
pub(crate) const SET_SREGS: c_ulong = 0x4138_ae84;
/// The same with other fields behind the interrupts' base (Linux 5.14).
pub(crate) const SET_SREGS2: c_ulong = 0x4140_aecd;
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

/// Turns something on; 0, or -1 with `errno` set.
pub(crate) fn enable_cap(vm: c_int, wish: &mut kvm_enable_cap) -> c_int {
    // SAFETY: the request's argument is this structure.
    unsafe { ioctl(vm, ENABLE_CAP, std::ptr::from_mut(wish).cast()) }
}

/// Sets the filter; 0, or -1 with `errno` set. Its bitmaps have a bit for each register.
pub(crate) fn set_msr_filter(vm: c_int, filter: &mut kvm_msr_filter) -> c_int {
    // SAFETY: the request's argument is this structure.
    unsafe { ioctl(vm, SET_MSR_FILTER, std::ptr::from_mut(filter).cast()) }
}

/// `struct kvm_msrs` with one entry behind it.
#[repr(C)]
struct OneMsr {
    count: u32,
    padding: u32,
    entry: kvm_msr_entry,
}

/// Sets a model-specific register of a vCPU; whether KVM took the value.
pub(crate) fn set_msr(vcpu: c_int, number: u32, value: u64) -> bool {
    let entry = kvm_msr_entry { index: number, data: value, ..kvm_msr_entry::default() };
    let mut one = OneMsr { count: 1, padding: 0, entry };
    // SAFETY: the request's argument is this structure, and says that it has one entry.
    (unsafe { ioctl(vcpu, SET_MSRS, (&raw mut one).cast()) }) == 1
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
