//! The directory in which the sockets of one watched QEMU stand.
//!
//! ```text
//!   $XDG_RUNTIME_DIR (or the directory for temporary files)
//!     hypovisor-XXXXXX/
//!       control          the sensor listens
//!       qmp              QEMU's monitor listens
//!       engine           the engine listens ([`crate::remote`])
//! ```
//!
//! The engine that made it removes it. If that engine was killed, whoever attaches and sees QEMU end does. If nobody
//! attached, it is left behind, and the next engine that starts sweeps it away ([`sweep`]).

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tempfile::TempDir;

const PREFIX: &str = "hypovisor-";
const CONTROL: &str = "control";
const QMP: &str = "qmp";
const ENGINE: &str = "engine";

/// Makes a directory for a new QEMU, and sweeps away those that are left behind.
///
/// # Errors
/// When it cannot be made.
pub fn create() -> io::Result<TempDir> {
    sweep();
    tempfile::Builder::new().prefix(PREFIX).tempdir_in(place())
}

/// Where the sensor listens in a runtime directory.
#[must_use]
pub fn control_socket(runtime: &Path) -> PathBuf {
    runtime.join(CONTROL)
}

/// Where QEMU's monitor listens in a runtime directory.
pub(crate) fn qmp_socket(runtime: &Path) -> PathBuf {
    runtime.join(QMP)
}

/// Where the engine listens in a runtime directory.
pub(crate) fn engine_socket(runtime: &Path) -> PathBuf {
    runtime.join(ENGINE)
}

/// Where the engine listens whose sensor listens at `control_socket`.
#[must_use]
pub fn engine_beside(control_socket: &Path) -> PathBuf {
    control_socket.with_file_name(ENGINE)
}

/// Where the monitor listens of the QEMU whose sensor listens at `control_socket`.
#[must_use]
pub fn qmp_beside(control_socket: &Path) -> PathBuf {
    control_socket.with_file_name(QMP)
}

/// Where engines of this user listen that run now.
#[must_use]
pub fn engines() -> Vec<PathBuf> {
    let entries = fs::read_dir(place()).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    let sockets = named.map(|entry| engine_socket(&entry.path()));
    sockets.filter(|path| fs::symlink_metadata(path).is_ok() && !is_dead(path)).collect()
}

/// Removes the directories of QEMUs that are gone and whose engines were killed. What cannot be removed stays.
pub fn sweep() {
    sweep_in(&place());
}

/// Removes the runtime directory that this control socket stands in. Anything else in there stays, and so does the
/// directory then.
pub fn remove(control_socket: &Path) {
    let _ = fs::remove_file(control_socket);
    if let Some(runtime) = control_socket.parent() {
        let _ = fs::remove_file(qmp_socket(runtime));
        let _ = fs::remove_file(engine_socket(runtime));
        let _ = fs::remove_dir(runtime);
    }
}

fn place() -> PathBuf {
    let place = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_dir());
    place.unwrap_or_else(std::env::temp_dir)
}

fn sweep_in(place: &Path) {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    let named = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(PREFIX);
    for entry in entries.filter(named) {
        if is_left_behind(&entry.path()) {
            remove(&control_socket(&entry.path()));
        }
    }
}

/// Whether it is a directory of ours with a control socket and perhaps a monitor's, and nobody listens at either.
/// Without a control socket it may be one whose QEMU is just starting.
fn is_left_behind(runtime: &Path) -> bool {
    let ours =
        |metadata: &fs::Metadata| metadata.is_dir() && metadata.uid() == rustix::process::geteuid().as_raw();
    if !fs::symlink_metadata(runtime).is_ok_and(|metadata| ours(&metadata)) {
        return false;
    }
    let Ok(entries) = fs::read_dir(runtime) else { return false };
    let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    names.iter().any(|name| name == CONTROL)
        && names.iter().all(|name| [CONTROL, QMP, ENGINE].map(OsStr::new).contains(&name.as_os_str()))
        && names.iter().all(|name| is_dead(&runtime.join(name)))
}

/// Whether it is a socket that no process has open any more.
///
/// Asked with a datagram socket: a listener of another type answers that it is of another type (unix(7), `EPROTOTYPE`),
/// and never sees the question.
fn is_dead(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    let ask = || {
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)
    };
    is_socket && ask() == Err(Errno::CONNREFUSED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;

    fn listen(path: &Path, kind: SocketType) -> OwnedFd {
        let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
        rustix::net::bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
        rustix::net::listen(&socket, 1).unwrap();
        socket
    }

    /// A runtime directory as a QEMU makes it; it lives as long as its sockets are kept.
    fn qemu(place: &Path, name: &str) -> (PathBuf, OwnedFd, OwnedFd) {
        let runtime = place.join(name);
        fs::create_dir(&runtime).unwrap();
        let control = listen(&control_socket(&runtime), SocketType::SEQPACKET);
        let qmp = listen(&qmp_socket(&runtime), SocketType::STREAM);
        (runtime, control, qmp)
    }

    #[test]
    fn what_a_dead_qemu_left_is_removed() {
        let place = tempfile::tempdir().unwrap();
        let killed = qemu(place.path(), "hypovisor-killed").0;
        let (ended, ..) = qemu(place.path(), "hypovisor-ended");
        // A QEMU that ends in order removes its monitor's socket, but does not know of the sensor's.
        fs::remove_file(qmp_socket(&ended)).unwrap();
        sweep_in(place.path());
        assert!(!killed.exists() && !ended.exists());
    }

    #[test]
    fn a_living_qemu_is_left_alone_and_does_not_notice() {
        let place = tempfile::tempdir().unwrap();
        let (runtime, control, qmp) = qemu(place.path(), "hypovisor-alive");
        sweep_in(place.path());
        assert!(control_socket(&runtime).exists() && qmp_socket(&runtime).exists());
        for listener in [&control, &qmp] {
            rustix::io::ioctl_fionbio(listener, true).unwrap();
            assert_eq!(rustix::net::accept(listener).err(), Some(Errno::AGAIN), "nobody has connected");
        }
        // Nor is one of whose sockets only one is left.
        drop(control);
        sweep_in(place.path());
        assert!(runtime.exists());
    }

    #[test]
    fn what_may_be_something_else_is_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let starting = place.path().join("hypovisor-starting");
        fs::create_dir(&starting).unwrap();
        let full = qemu(place.path(), "hypovisor-full").0;
        fs::write(full.join("file"), b"somebody's").unwrap();
        let plain = place.path().join("hypovisor-plain");
        fs::create_dir(&plain).unwrap();
        fs::write(plain.join(CONTROL), b"no socket").unwrap();
        let other = qemu(place.path(), "other-qemu").0;
        let link = place.path().join("hypovisor-link");
        std::os::unix::fs::symlink(&other, &link).unwrap();
        sweep_in(place.path());
        for (path, entries) in [(&starting, 0), (&full, 3), (&plain, 1), (&other, 2), (&link, 2)] {
            assert_eq!(fs::read_dir(path).unwrap().count(), entries, "{}", path.display());
        }
        sweep_in(&place.path().join("nothing"));
    }
}
