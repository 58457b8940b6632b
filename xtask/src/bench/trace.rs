//! The kernel's own count of what KVM and its user do, from its trace events (Linux Documentation/trace/histogram.rst).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

/// Where the trace events stand.
const TRACEFS: &str = "/sys/kernel/tracing";
/// KVM_RUN returns to its caller.
const EXITS: (&str, &str) = ("kvm/kvm_userspace_exit", "hist:keys=reason");
/// A system call `ioctl` begins.
const IOCTLS: (&str, &str) = ("syscalls/sys_enter_ioctl", "hist:keys=cmd");
/// KVM_EXIT_DEBUG (Linux include/uapi/linux/kvm.h).
const EXIT_DEBUG: u64 = 4;
/// KVM_SET_GUEST_DEBUG (as above).
const SET_GUEST_DEBUG: u64 = 0x4048_ae9b;

/// What was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KvmCounts {
    /// Returns of KVM_RUN for debugging.
    pub(super) debug_exits: u64,
    /// Calls of KVM_SET_GUEST_DEBUG.
    pub(super) set_guest_debug: u64,
}

/// Counts from its start on.
pub(super) struct KvmTrace;

impl KvmTrace {
    pub(super) fn start() -> anyhow::Result<Self> {
        if !Path::new(TRACEFS).join("events").exists() {
            crate::build::run(Command::new("mount").args(["-t", "tracefs", "tracefs", TRACEFS]))?;
        }
        for (event, histogram) in [EXITS, IOCTLS] {
            let path = file(event, "trigger");
            fs::write(&path, histogram).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(Self)
    }

    /// Ends the counting.
    pub(super) fn stop(self) -> anyhow::Result<KvmCounts> {
        let counts = KvmCounts {
            debug_exits: hits(EXITS, EXIT_DEBUG)?,
            set_guest_debug: hits(IOCTLS, SET_GUEST_DEBUG)?,
        };
        for (event, histogram) in [EXITS, IOCTLS] {
            fs::write(file(event, "trigger"), format!("!{histogram}"))?;
        }
        Ok(counts)
    }
}

fn file(event: &str, name: &str) -> PathBuf {
    Path::new(TRACEFS).join("events").join(event).join(name)
}

/// How often the event came with this key.
fn hits((event, _): (&str, &str), key: u64) -> anyhow::Result<u64> {
    let path = file(event, "hist");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(hits_in(&text, key))
}

/// A line reads `{ reason:          4 } hitcount:     123456`.
fn hits_in(histogram: &str, key: u64) -> u64 {
    let entries = histogram.lines().filter_map(|line| {
        let (entry, count) = line.strip_prefix('{')?.split_once('}')?;
        let found: u64 = entry.rsplit(':').next()?.trim().parse().ok()?;
        let count: u64 = count.trim().strip_prefix("hitcount:")?.trim().parse().ok()?;
        (found == key).then_some(count)
    });
    entries.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_is_read() {
        let text = "# event histogram\n#\n# trigger info: hist:keys=reason [active]\n#\n\n\
            { reason:          2 } hitcount:         77\n{ reason:          4 } hitcount:     123456\n\n\
            Totals:\n    Hits: 123533\n";
        assert_eq!((hits_in(text, 4), hits_in(text, 2), hits_in(text, 9)), (123_456, 77, 0));
    }
}
