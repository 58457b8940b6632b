//! The processor time of a lab machine's QEMU: what a boot costs wherever the engine runs, without what it only waits for.

use std::fs;

use anyhow::Context as _;

/// In the command line of QEMU's process. (Its name may be the dynamic loader's, which the lab starts it by.)
const QEMU: &str = "qemu-system-x86_64";

/// Nanoseconds that the threads of the QEMU that this process started have run so far.
pub(super) fn of_qemu_below(parent: u32) -> anyhow::Result<u64> {
    let qemu = qemu_below(parent)?.context("the lab machine's QEMU is not there")?;
    let threads = fs::read_dir(format!("/proc/{qemu}/task"))?;
    threads.map(|thread| ran(&fs::read_to_string(thread?.path().join("schedstat"))?)).sum()
}

/// The kernel lists the children of each thread apart.
fn qemu_below(parent: u32) -> anyhow::Result<Option<String>> {
    let is_qemu = |child: &str| {
        let line = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(QEMU)
    };
    for thread in fs::read_dir(format!("/proc/{parent}/task"))? {
        let children = fs::read_to_string(thread?.path().join("children"))?;
        if let Some(child) = children.split_whitespace().find(|child| is_qemu(child)) {
            return Ok(Some(child.to_owned()));
        }
    }
    Ok(None)
}

/// The first of three numbers (Linux Documentation/scheduler/sched-stats.rst).
fn ran(schedstat: &str) -> anyhow::Result<u64> {
    schedstat
        .split_whitespace()
        .next()
        .and_then(|time| time.parse().ok())
        .context("no time of a thread in schedstat")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_first_number_is_the_time() {
        assert_eq!(super::ran("5151515 77 12\n").unwrap(), 5_151_515);
        assert!(super::ran("").is_err());
    }
}
