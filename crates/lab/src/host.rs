//! A Linux with KVM, to run lab machines under KVM where there is none: QEMU emulates the processor's virtualization, this
//! Linux uses it, and a QEMU in it has `-accel kvm`.
//!
//! The files of the machine that all this runs on are there at [`ROOT`], read-only but for the directories that are named.
//! So any of its programs can be run in there, at its own path.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::command::QemuCommand;
use crate::machine::{INITRD_LINK, KERNEL_LINK, escaped, joined};

/// Where the files are.
const ROOT: &str = "/host";
/// The kernel's options. `lab.host` is for the init script: it starts no toolstack.
const OPTIONS: &str = "console=ttyS0 loglevel=5 panic=1 mitigations=off lab.host";

/// The files that a KVM host has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KvmHost {
    /// Directories that can be written to.
    pub writable: Vec<PathBuf>,
    /// Let time in which nothing is to be done pass at once, so that clocks in it depend on nothing outside: for
    /// measurements. Without it such time passes as it does outside.
    pub skips_idle_time: bool,
}

impl KvmHost {
    /// A script that runs a program of the machine underneath in its own files, with these variables set.
    pub fn script(directory: &Path, variables: &[(&str, OsString)], command: &[OsString]) -> Vec<u8> {
        let mut script = b"#!/bin/sh\n".to_vec();
        script.extend(
            format!("exec chroot {ROOT} /bin/sh -c 'cd \"$1\" && shift && exec env \"$@\"' sh").bytes(),
        );
        let assignments = variables.iter().map(|(name, value)| {
            let mut word = OsString::from(format!("{name}="));
            word.push(value);
            word
        });
        let words = [directory.into()].into_iter().chain(assignments).chain(command.iter().cloned());
        for word in words {
            script.push(b' ');
            script.extend(quoted(&word));
        }
        script.push(b'\n');
        script
    }

    /// Boots the kernel itself, and offers the files.
    pub(crate) fn boot(&self, qemu: &mut QemuCommand, dir: &Path, options: &[String]) {
        qemu.args([OsString::from("-kernel"), dir.join(KERNEL_LINK).into()]);
        qemu.args([OsString::from("-initrd"), dir.join(INITRD_LINK).into()]);
        qemu.args(["-append".to_owned(), joined(&[OPTIONS], options)]);
        // An instruction is a nanosecond of its time: else dom0's timer ticks, which pass in real time, can take all of an
        // emulated processor that something else slows down.
        let sleep = if self.skips_idle_time { "off" } else { "on" };
        qemu.args(["-icount".to_owned(), format!("shift=0,sleep={sleep}")]);
        share(qemu, "root", Path::new("/"), true);
        for (index, path) in self.writable.iter().enumerate() {
            share(qemu, &tag(index), path, false);
        }
    }

    /// For the init script: a line for each writable directory, its tag and where it belongs.
    pub(crate) fn shares(&self) -> Vec<u8> {
        use std::os::unix::ffi::OsStrExt as _;
        let mut lines = Vec::new();
        for (index, path) in self.writable.iter().enumerate() {
            lines.extend(format!("{} {ROOT}", tag(index)).bytes());
            lines.extend(path.as_os_str().as_bytes());
            lines.push(b'\n');
        }
        lines
    }
}

fn tag(index: usize) -> String {
    format!("lab{index}")
}

fn share(qemu: &mut QemuCommand, tag: &str, path: &Path, read_only: bool) {
    let read_only = if read_only { "on" } else { "off" };
    let mut device = OsString::from(format!(
        "local,mount_tag={tag},security_model=none,readonly={read_only},multidevs=remap,path="
    ));
    device.push(escaped(path));
    qemu.args(["-virtfs".into(), device]);
}

/// A word that a shell takes as it is.
fn quoted(word: &std::ffi::OsStr) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt as _;
    let mut out = vec![b'\''];
    for byte in word.as_bytes() {
        match byte {
            b'\'' => out.extend(b"'\\''"),
            other => out.push(*other),
        }
    }
    out.push(b'\'');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_passes_every_word_on_as_it_is() {
        let words = ["it's", "$HOME", "a  b", "\\", ""];
        let command: Vec<OsString> =
            [["printf", "%s|"].as_slice(), &words].concat().iter().map(Into::into).collect();
        let script = KvmHost::script(Path::new("/"), &[("X", "1 2".into())], &command);
        // Without the chroot, which needs rights.
        let plain = String::from_utf8(script).unwrap().replace("chroot /host ", "");
        let output = std::process::Command::new("sh").arg("-c").arg(plain).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "it's|$HOME|a  b|\\||");
    }
}
