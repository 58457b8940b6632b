//! Code that runs inside Xen, as an attacker with code execution would run it: to prove what notices tampering.
//!
//! Each payload is a live patch, which Xen itself loads when dom0 asks for it (`xen-livepatch load FILE`). It names the build
//! of Xen that it is for, and no other Xen takes it. What each does stands at the head of its source in `arsenal/` and
//! in `docs/arsenal.md`.
//!
//! ```text
//!     NAME.c  --cc-->  relocatable object  --ld -r-->  NAME.livepatch
//!                      notes .livepatch.depends and .livepatch.xen_depends: the build id of Xen
//!                      hooks .livepatch.hooks.*, functions .livepatch.funcs
//!                      .note.gnu.build-id: its own, from the linker
//! ```
//!
//! No header and no source of Xen is needed: Xen resolves undefined symbols in its own table. Local symbols are discarded, because Xen
//! takes a second payload with a symbol of the same name for a mistake.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{CommandError, find, run};

mod build_id;
mod payload;
#[cfg(test)]
mod tests;

pub use build_id::{BuildId, BuildIdError};
pub use payload::{ANSWERED, Options, Payload};

/// What the payloads share.
const HEADERS: [(&str, &str); 6] = [
    ("payload.h", include_str!("../arsenal/payload.h")),
    ("paging.h", include_str!("../arsenal/paging.h")),
    ("gates.h", include_str!("../arsenal/gates.h")),
    ("timing.h", include_str!("../arsenal/timing.h")),
    ("traces.h", include_str!("../arsenal/traces.h")),
    ("vmcb.h", include_str!("../arsenal/vmcb.h")),
];

/// For dom0: one that runs into a breakpoint, and one that times hypercalls.
const INT3: (&str, &str) = ("int3.S", include_str!("../arsenal/int3.S"));
const TIME_CALLS: (&str, &str) = ("time_calls.c", include_str!("../arsenal/time_calls.c"));

const SCRIPTS: [(&str, &str); 2] =
    [("try.sh", include_str!("../arsenal/try.sh")), ("look.sh", include_str!("../arsenal/look.sh"))];

/// As Xen's loader wants it (docs/misc/livepatch.pandoc): addresses relative to the instruction and nothing through a table. As Xen's code
/// has to be: no red zone, no floating point. Indirect branches land on ENDBR64, for a Xen that uses CET.
const COMPILER_FLAGS: [&str; 16] = [
    "-std=gnu11",
    "-m64",
    "-O2",
    "-ffreestanding",
    "-fpie",
    "-fvisibility=hidden",
    "-mno-red-zone",
    "-mgeneral-regs-only",
    "-fno-stack-protector",
    "-fno-jump-tables",
    "-fno-common",
    "-fcf-protection=branch",
    "-fno-asynchronous-unwind-tables",
    "-Wall",
    "-Wextra",
    "-Werror",
];

/// Relocatable, without local symbols, with a build id of its own.
const LINKER_FLAGS: [&str; 5] = ["-r", "-x", "--build-id=sha1", "-z", "noexecstack"];

/// The arsenal could not be built.
#[derive(Debug, thiserror::Error)]
pub enum ArsenalError {
    /// Compiler or linker is missing, or does not do its work.
    #[error(transparent)]
    Tool(#[from] CommandError),
    /// A file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The built payloads in their directory, to be given to a session as `Work::files`: dom0 sees them in `/lab/files`.
#[derive(Clone, Debug)]
pub struct Arsenal {
    dir: PathBuf,
}

impl Arsenal {
    /// Builds every payload for one build of Xen into a directory, with `int3`, `time_calls`, `try.sh` and `look.sh`. Files of the same names are replaced.
    ///
    /// # Errors
    ///
    /// When there is no C compiler (`cc`) or linker (`ld`), or one fails, which it does for `time_calls` without a static libc; when
    /// a file cannot be written.
    pub fn build(dir: &Path, xen: &BuildId, options: &Options) -> Result<Self, ArsenalError> {
        fs::create_dir_all(dir).map_err(write_error(dir))?;
        let dir = fs::canonicalize(dir).map_err(write_error(dir))?;
        let workshop = Workshop::open(xen)?;
        let arsenal = Self { dir };
        for payload in Payload::ALL {
            workshop.make(payload, options, &arsenal.payload(payload))?;
        }
        workshop.make_program(INT3, &["-nostdlib"], &arsenal.int3())?;
        workshop.make_program(TIME_CALLS, &["-O2"], &arsenal.time_calls())?;
        for (name, text) in SCRIPTS {
            write(&arsenal.dir.join(name), text)?;
        }
        Ok(arsenal)
    }

    /// The directory that holds all of it.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A payload's file, such as `lstar.livepatch`. Without the ending it is the name that Xen lists it under.
    pub fn payload(&self, payload: Payload) -> PathBuf {
        self.dir.join(format!("{}.livepatch", payload.name()))
    }

    /// The program for dom0 that runs into a breakpoint, and so into the gate that [`Payload::Idt`] swaps.
    pub fn int3(&self) -> PathBuf {
        self.dir.join("int3")
    }

    /// The program for dom0 that times hypercalls.
    pub fn time_calls(&self) -> PathBuf {
        self.dir.join("time_calls")
    }
}

/// Where things are compiled: tools, a directory with the sources, and what all payloads are told.
struct Workshop {
    compiler: PathBuf,
    linker: PathBuf,
    sources: tempfile::TempDir,
    build_id: String,
}

impl Workshop {
    fn open(xen: &BuildId) -> Result<Self, ArsenalError> {
        let sources = tempfile::tempdir().map_err(write_error(&std::env::temp_dir()))?;
        let payloads = Payload::ALL.map(Payload::source);
        for (name, text) in HEADERS.into_iter().chain(payloads).chain([INT3, TIME_CALLS]) {
            write(&sources.path().join(name), text)?;
        }
        Ok(Self {
            compiler: find("cc", "gcc")?,
            linker: find("ld", "binutils")?,
            sources,
            build_id: format!("-DXEN_BUILD_ID={}", xen.as_initializer()),
        })
    }

    fn make(&self, payload: Payload, options: &Options, to: &Path) -> Result<(), ArsenalError> {
        run(self
            .compiler()
            .args(COMPILER_FLAGS)
            .arg(format!("-DPAYLOAD=\"{}\"", payload.name()))
            .arg(&self.build_id)
            .args(payload.definitions(options).iter().map(|(name, value)| format!("-D{name}={value}")))
            .args(["-c", payload.source().0, "-o", "object.o"]))?;
        let mut linker = Command::new(&self.linker);
        run(linker.current_dir(self.sources.path()).args(LINKER_FLAGS).args(["object.o", "-o"]).arg(to))?;
        Ok(())
    }

    fn make_program(&self, (source, _): (&str, &str), flags: &[&str], to: &Path) -> Result<(), ArsenalError> {
        run(self.compiler().args(flags).args(["-static", source, "-o"]).arg(to))?;
        Ok(())
    }

    fn compiler(&self) -> Command {
        let mut command = Command::new(&self.compiler);
        command.current_dir(self.sources.path());
        command
    }
}

fn write(path: &Path, text: &str) -> Result<(), ArsenalError> {
    fs::write(path, text).map_err(write_error(path))
}

fn write_error(path: &Path) -> impl FnOnce(io::Error) -> ArsenalError + use<> {
    let path = path.to_owned();
    move |source| ArsenalError::Write { path, source }
}
