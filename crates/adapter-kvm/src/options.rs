//! What the engine tells this library, in an environment variable.
#![expect(unsafe_code, reason = "takes itself out of the environment")]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// Holds the options: `ring-bytes=N,vcpus=N,only-hooks=on,socket=PATH`. The path comes last and may contain anything.
const VARIABLE: &str = "HYPOVISOR_KVM";
/// The dynamic linker's list of libraries, ours first.
const PRELOAD: &str = "LD_PRELOAD";

/// Ring size unless the engine says otherwise, in bytes.
const DEFAULT_RING_BYTES: u64 = 32 << 20;

/// What the engine wants.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// Where to listen.
    pub(crate) socket: PathBuf,
    /// Bytes of each vCPU's ring.
    pub(crate) ring_bytes: u64,
    /// The most vCPUs that the machine can have.
    pub(crate) vcpus: u32,
    /// Do nothing at a hook: the floor of what a hook costs, for the benchmark.
    pub(crate) only_hooks: bool,
}

impl Options {
    /// Takes the options, and this library, out of the environment. `None` if there are none.
    pub(crate) fn take() -> Option<Result<Self, String>> {
        let text = std::env::var_os(VARIABLE)?;
        let preload = std::env::var_os(PRELOAD).unwrap_or_default();
        // SAFETY: called when QEMU makes its virtual machine: it has read what it wants of the environment by then, and no
        // thread of its own looks at it meanwhile. What the C library does itself is under the same lock.
        unsafe { std::env::remove_var(VARIABLE) };
        match without_first(&preload) {
            // SAFETY: as above.
            Some(rest) => unsafe { std::env::set_var(PRELOAD, rest) },
            // SAFETY: as above.
            None => unsafe { std::env::remove_var(PRELOAD) },
        }
        Some(parse(&text))
    }
}

/// The list without its first entry; `None` if nothing is left.
fn without_first(preload: &OsStr) -> Option<OsString> {
    let bytes = preload.as_bytes();
    let at = bytes.iter().position(|byte| b": ".contains(byte))?;
    let rest = bytes.get(at + 1..).filter(|rest| !rest.is_empty())?;
    Some(OsStr::from_bytes(rest).to_owned())
}

fn parse(text: &OsStr) -> Result<Options, String> {
    let mut options =
        Options { socket: PathBuf::new(), ring_bytes: DEFAULT_RING_BYTES, vcpus: 1, only_hooks: false };
    let mut rest = text.as_bytes();
    loop {
        if let Some(path) = rest.strip_prefix(b"socket=") {
            options.socket = OsStr::from_bytes(path).into();
            return Ok(options);
        }
        let end = rest.iter().position(|byte| *byte == b',').ok_or("socket=PATH is missing")?;
        let (option, behind) = rest.split_at(end);
        rest = &behind[1..];
        let option = String::from_utf8_lossy(option);
        let (name, value) = option.split_once('=').unwrap_or((&option, ""));
        let wrong = || format!("{option} is not an option of this library");
        match name {
            "ring-bytes" => options.ring_bytes = value.parse().map_err(|_| wrong())?,
            "vcpus" => options.vcpus = value.parse().map_err(|_| wrong())?,
            "only-hooks" => options.only_hooks = value == "on",
            _ => return Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_a_path_may_contain_anything() {
        let options = parse("vcpus=4,ring-bytes=4096,socket=/run/a,b=c/control".as_ref()).unwrap();
        assert_eq!((options.vcpus, options.ring_bytes, options.only_hooks), (4, 4096, false));
        assert_eq!(options.socket, PathBuf::from("/run/a,b=c/control"));
        assert!(parse("vcpus=4".as_ref()).is_err());
        assert!(parse("vcpus=many,socket=/s".as_ref()).unwrap_err().contains("vcpus=many"));
    }

    #[test]
    fn other_preloaded_libraries_stay() {
        let rest = |list: &str| without_first(list.as_ref()).map(|rest| rest.into_string().unwrap());
        assert_eq!(rest("/ours.so"), None);
        assert_eq!(rest("/ours.so:/a.so:/b.so").as_deref(), Some("/a.so:/b.so"));
        assert_eq!(rest("/ours.so "), None);
        assert_eq!(rest(""), None);
    }
}
