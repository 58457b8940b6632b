//! Hypercalls of L1's hardware-virtualised guests, counted by the kernel where it sees them: each ends a nested guest's run.
//!
//! The trace event `kvm:kvm_nested_vmexit` (Linux arch/x86/kvm/trace.h), counted for one vCPU's thread by
//! perf_event_open(2), with a filter. Nothing is traced, and nobody is interrupted. SYSCALLs of PV guests end nobody's run.
#![expect(unsafe_code, reason = "opens a perf event")]

use core::ffi::{CStr, c_int, c_ulong};
use std::os::fd::{FromRawFd as _, OwnedFd};

use crate::kvm;

/// The event's number.
const ID: [&str; 2] = [
    "/sys/kernel/tracing/events/kvm/kvm_nested_vmexit/id",
    "/sys/kernel/debug/tracing/events/kvm/kvm_nested_vmexit/id",
];
/// VMMCALL under AMD (APM vol. 2, appendix C), VMCALL under Intel (SDM vol. 3, appendix C).
const FILTER: &CStr = c"(isa == 2 && exit_reason == 0x81) || (isa == 1 && exit_reason == 18)";
/// `PERF_TYPE_TRACEPOINT` (Linux include/uapi/linux/perf_event.h, as all of this).
const TRACEPOINT: u32 = 2;
/// `PERF_EVENT_IOC_SET_FILTER`.
const SET_FILTER: c_ulong = 0x4008_2406;
/// `PERF_FLAG_FD_CLOEXEC`.
const CLOEXEC: c_ulong = 1 << 3;

/// `struct perf_event_attr` as of its first version.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_type: u32,
    breakpoint_address: u64,
}

/// A count of one thread.
#[derive(Debug)]
pub(crate) struct CallExits(OwnedFd);

impl CallExits {
    /// Counts those of the calling thread from now on. `None` if there is no such event, or this process may not count it.
    pub(crate) fn of_this_thread() -> Option<Self> {
        let id = ID.iter().find_map(|path| std::fs::read_to_string(path).ok())?;
        let size = size_of::<Attributes>() as u32;
        let attributes =
            Attributes { kind: TRACEPOINT, size, config: id.trim().parse().ok()?, ..Attributes::default() };
        let (this_thread, any_cpu, no_group): (c_int, c_int, c_int) = (0, -1, -1);
        // SAFETY: the kernel reads the structure, as many bytes as it says it has.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attributes,
                this_thread,
                any_cpu,
                no_group,
                CLOEXEC,
            )
        };
        let fd = c_int::try_from(fd).ok().filter(|fd| *fd >= 0)?;
        // SAFETY: the kernel has just made it, for nobody else.
        let count = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        // SAFETY: the request's argument is a string, which the kernel reads.
        let filtered = unsafe { kvm::ioctl(fd, SET_FILTER, FILTER.as_ptr().cast_mut().cast()) };
        (filtered == 0).then_some(count)
    }

    /// How many so far.
    pub(crate) fn count(&self) -> u64 {
        let mut bytes = [0; 8];
        // The kernel gives the count whole or not at all.
        let _ = rustix::io::read(&self.0, &mut bytes);
        u64::from_le_bytes(bytes)
    }
}
