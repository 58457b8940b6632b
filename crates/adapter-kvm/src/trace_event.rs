//! Trace events of the kernel's (Linux Documentation/trace/events.rst), counted or sampled for one thread by perf_event_open(2),
//! with a filter that the kernel applies.
#![expect(unsafe_code, reason = "opens perf events")]

use core::ffi::{CStr, c_int, c_ulong};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use crate::kvm;

/// Where events are described.
const DIRECTORIES: [&str; 2] = ["/sys/kernel/tracing/events/kvm", "/sys/kernel/debug/tracing/events/kvm"];
/// `PERF_TYPE_TRACEPOINT` (Linux include/uapi/linux/perf_event.h, as all of this).
const TRACEPOINT: u32 = 2;
/// `PERF_EVENT_IOC_SET_FILTER`.
const SET_FILTER: c_ulong = 0x4008_2406;
/// `PERF_FLAG_FD_CLOEXEC`.
const CLOEXEC: c_ulong = 1 << 3;
/// `PERF_SAMPLE_RAW`: a sample is the event's own record.
const RAW_SAMPLES: u64 = 1 << 10;

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

/// One of KVM's trace events.
#[derive(Clone, Debug)]
pub(crate) struct TraceEvent {
    id: u64,
    format: String,
}

impl TraceEvent {
    /// The first of these that the kernel has. `None` if there is none, or this process may not read what it is.
    pub(crate) fn find(names: &[&str]) -> Option<Self> {
        let paths = DIRECTORIES.iter().flat_map(|dir| names.iter().map(move |name| format!("{dir}/{name}")));
        paths.into_iter().find_map(|path| {
            let id = std::fs::read_to_string(format!("{path}/id")).ok()?.trim().parse().ok()?;
            Some(Self { id, format: std::fs::read_to_string(format!("{path}/format")).ok()? })
        })
    }

    /// Where a field of 64 bits stands in the event's record, in bytes.
    pub(crate) fn offset_of(&self, field: &str) -> Option<usize> {
        offset_of(&self.format, field)
    }

    /// Counts it in a thread (0: this one) from now on.
    pub(crate) fn count(&self, thread: i32, filter: &CStr) -> Option<OwnedFd> {
        self.open(Attributes::default(), thread, filter)
    }

    /// Samples each of it in a thread. The samples wait in a ring that is to be mapped.
    pub(crate) fn sample(&self, thread: i32, filter: &CStr) -> Option<OwnedFd> {
        let every = Attributes { sample_period: 1, sample_type: RAW_SAMPLES, ..Attributes::default() };
        self.open(every, thread, filter)
    }

    fn open(&self, attributes: Attributes, thread: i32, filter: &CStr) -> Option<OwnedFd> {
        let size = size_of::<Attributes>() as u32;
        let attributes = Attributes { kind: TRACEPOINT, size, config: self.id, ..attributes };
        let (any_cpu, no_group): (c_int, c_int) = (-1, -1);
        // SAFETY: the kernel reads the structure, as many bytes as it says it has.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attributes,
                thread,
                any_cpu,
                no_group,
                CLOEXEC,
            )
        };
        let fd = c_int::try_from(fd).ok().filter(|fd| *fd >= 0)?;
        // SAFETY: the kernel has just made it, for nobody else.
        let event = unsafe { OwnedFd::from_raw_fd(fd) };
        set_filter(&event, filter).then_some(event)
    }
}

/// Has the kernel apply another filter to an event.
pub(crate) fn set_filter(event: &OwnedFd, filter: &CStr) -> bool {
    // SAFETY: the request's argument is a string, which the kernel reads.
    unsafe { kvm::ioctl(event.as_raw_fd(), SET_FILTER, filter.as_ptr().cast_mut().cast()) == 0 }
}

/// From a description with a line for each, such as `field:__u64 rip; offset:8; size:8; signed:0;`.
fn offset_of(format: &str, field: &str) -> Option<usize> {
    let parts = format.lines().map(|line| line.trim().split(';').map(str::trim).collect::<Vec<_>>());
    parts.into_iter().find_map(|parts| match parts[..] {
        [declaration, offset, "size:8", ..] if declaration.split(' ').next_back() == Some(field) => {
            offset.strip_prefix("offset:")?.parse().ok()
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name_and_size() {
        let format = "name: kvm_nested_vmenter\nID: 1\nformat:\n\
            \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\
            \tfield:__u64 nested_rip;\toffset:24;\tsize:8;\tsigned:0;\n\
            \tfield:__u64 rip;\toffset:8;\tsize:8;\tsigned:0;\n\
            \tfield:__u32 isa;\toffset:60;\tsize:4;\tsigned:0;\n\nprint fmt: \"rip: 0x%016llx\", REC->rip\n";
        assert_eq!(offset_of(format, "rip"), Some(8));
        assert_eq!(offset_of(format, "isa"), None, "not of 64 bits");
        assert_eq!(offset_of(format, "vmcb"), None);
        assert_eq!(offset_of("field:__u64 rip;\toffset:x;\tsize:8;", "rip"), None);
    }
}
