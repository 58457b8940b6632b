//! Small guests whose hypercalls are known exactly, and a program that makes hypercalls from dom0.
//!
//! ```text
//!     known    makes the calls of guests/known.calls between two marks, and checks every answer
//!     null     times xen_version, the call that does least
//!     intact   makes one call again and again, and looks whether anything else of it changes
//!     hold     stays up until it is destroyed; may wake now and then
//!     hcall    a Linux program for dom0: any hypercall, marks, loops
//!     window   a script for dom0: runs a command while Xen's own trace is taken (see `xentrace`)
//! ```
//!
//! The guests are C without a library, a dozen kilobytes each; one image is both a PV and a PVH kernel, and a second, without
//! notes and 32-bit in name, stands in for the firmware of an HVM domain. They are compiled when they are needed, with the machine's C compiler: nothing binary is kept in the repository. Events stay masked in
//! them and there is no timer, so that they make no call which their source does not show.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{CommandError, find, run};

mod known;

pub use known::{
    Expected, KnownArgument, KnownCall, KnownError, TableError, known_calls, known_sequence, match_known,
};

/// The number of `sched_op`, which carries the marks.
pub const MARK_NUMBER: u64 = 29;

/// The command of a mark: this, with the mark's number in the lower half. Xen answers -ENOSYS.
pub const MARK_COMMAND: u32 = 0x4859_0000;

/// The marks around the calls of `known` and `null`.
pub const GUEST_MARKS: (u16, u16) = (1, 2);

/// The marks that `window` makes on every pCPU.
pub const WINDOW_MARKS: (u16, u16) = (3, 4);

/// The number of the mark that a `sched_op` with this command is, if it is one.
pub fn mark_number(command: u32) -> Option<u16> {
    (command & 0xffff_0000 == MARK_COMMAND).then_some((command & 0xffff) as u16)
}

/// The guests' sources.
const SOURCES: [(&str, &str); 11] = [
    ("xen.h", include_str!("../guests/xen.h")),
    ("runtime.h", include_str!("../guests/runtime.h")),
    ("runtime.c", include_str!("../guests/runtime.c")),
    ("entry.S", include_str!("../guests/entry.S")),
    ("guest.lds", include_str!("../guests/guest.lds")),
    ("known.calls", known::TABLE),
    ("known.c", include_str!("../guests/known.c")),
    ("null.c", include_str!("../guests/null.c")),
    ("intact.c", include_str!("../guests/intact.c")),
    ("hold.c", include_str!("../guests/hold.c")),
    ("hcall.c", include_str!("../guests/hcall.c")),
];

/// The script of a traced window, [`Guests::window`].
pub const WINDOW_SCRIPT: &str = include_str!("../guests/window.sh");

/// For every guest: no library, no floating point (whose state belongs to nobody), fixed addresses.
const GUEST_FLAGS: [&str; 20] = [
    "-std=gnu11",
    "-m64",
    "-O2",
    "-ffreestanding",
    "-nostdlib",
    "-static",
    "-mno-red-zone",
    "-mgeneral-regs-only",
    "-mcmodel=small",
    "-fno-stack-protector",
    "-fno-pic",
    "-fno-pie",
    "-no-pie",
    "-fcf-protection=none",
    "-fno-asynchronous-unwind-tables",
    "-Wno-main",
    "-Wl,--build-id=none",
    "-Wl,-z,noexecstack",
    "-T",
    "guest.lds",
];

/// A guest's program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Program {
    /// Makes exactly known calls.
    Known,
    /// Times the call that does least.
    Null,
    /// Looks whether anything of it changes.
    Intact,
    /// Stays up.
    Hold,
}

impl Program {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Known, Self::Null, Self::Intact, Self::Hold];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Null => "null",
            Self::Intact => "intact",
            Self::Hold => "hold",
        }
    }
}

/// What a guest runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GuestKind {
    /// Paravirtualised.
    Pv,
    /// A hardware container without a device model.
    Pvh,
    /// Fully virtualised, with a device model; the program runs in the firmware's place.
    Hvm,
}

impl GuestKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pv, Self::Pvh, Self::Hvm];

    /// The name that xl knows it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pv => "pv",
            Self::Pvh => "pvh",
            Self::Hvm => "hvm",
        }
    }
}

/// The guests could not be made.
#[derive(Debug, thiserror::Error)]
pub enum GuestsError {
    /// The compiler is missing or does not compile.
    #[error(transparent)]
    Compiler(#[from] CommandError),
    /// A file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The compiled guests in their directory, to be given to a session as `Work::files`: dom0 sees them in `/lab/files`.
#[derive(Clone, Debug)]
pub struct Guests {
    dir: PathBuf,
}

/// Compiles the guests and `hcall` into a directory, and writes a configuration file for each guest and kind
/// (`known-pv.cfg`, ...) and `window.sh` beside them. Files of the same names are replaced.
///
/// # Errors
///
/// When there is no C compiler (`cc`) or it fails, which it does for `hcall` without a static libc; when a file cannot be
/// written.
pub fn build(out_dir: &Path) -> Result<Guests, GuestsError> {
    let (compiler, objcopy) = (find("cc", "gcc")?, find("objcopy", "binutils")?);
    fs::create_dir_all(out_dir).map_err(write_error(out_dir))?;
    let out_dir = fs::canonicalize(out_dir).map_err(write_error(out_dir))?;
    let sources = tempfile::tempdir().map_err(write_error(&std::env::temp_dir()))?;
    for (name, text) in SOURCES {
        write(&sources.path().join(name), text)?;
    }
    let guests = Guests { dir: out_dir };
    for program in Program::ALL {
        let linked = |more: &[&str], image: &Path| {
            let mut command = Command::new(&compiler);
            command.current_dir(sources.path()).args(GUEST_FLAGS).args(more).args(["entry.S", "runtime.c"]);
            run(command.arg(format!("{}.c", program.name())).arg("-o").arg(image))
        };
        linked(&[], &guests.image(program))?;
        let firmware = guests.firmware(program);
        linked(&["-Wl,-e,pvh_start", &built_in(default_command_line(program, GuestKind::Hvm))], &firmware)?;
        // What the domain builder takes for firmware: 32-bit, and no notes, which would make it a kernel.
        run(Command::new(&objcopy).args(["-O", "elf32-i386", "-R", ".note.Xen"]).arg(&firmware))?;
        for kind in GuestKind::ALL {
            write(
                &guests.config(program, kind),
                &config_text(program, kind, default_command_line(program, kind)),
            )?;
        }
    }
    let mut command = Command::new(&compiler);
    run(command.current_dir(sources.path()).args(["-static", "-O2", "hcall.c", "-o"]).arg(guests.hcall()))?;
    write(&guests.window(), WINDOW_SCRIPT)?;
    Ok(guests)
}

impl Guests {
    /// The directory that holds all of it.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A program's image.
    pub fn image(&self, program: Program) -> PathBuf {
        self.dir.join(format!("{}.elf", program.name()))
    }

    /// A program's image in the form of an HVM domain's firmware.
    pub fn firmware(&self, program: Program) -> PathBuf {
        self.dir.join(format!("{}-hvm.elf", program.name()))
    }

    /// The configuration of a guest with the usual command line, for `xl create`.
    pub fn config(&self, program: Program, kind: GuestKind) -> PathBuf {
        self.dir.join(format!("{}.cfg", guest_name(program, kind)))
    }

    /// The program that makes hypercalls from dom0.
    pub fn hcall(&self) -> PathBuf {
        self.dir.join("hcall")
    }

    /// The script that runs a command in a traced window.
    pub fn window(&self) -> PathBuf {
        self.dir.join("window.sh")
    }
}

/// The name of a guest's domain, such as `known-pv`. Its console is logged to
/// `/var/log/xen/console/guest-known-pv.log` in dom0.
pub fn guest_name(program: Program, kind: GuestKind) -> String {
    format!("{}-{}", program.name(), kind.name())
}

/// A guest's configuration. It stays on pCPU 1, so that its calls are in one order; `xl create FILE 'cpus="0"'` moves it.
/// `null` reads `rounds=`, `calls=`, `warmup=` and `marks=` from its command line, `intact` reads `calls=`, `hold` `wake=`;
/// it must not contain quotes or newlines. An HVM domain's firmware gets none: it has the usual one built in.
pub fn config_text(program: Program, kind: GuestKind, command_line: &str) -> String {
    let image = image_text(program.name(), kind, command_line);
    format!(
        "# Written by hypovisor-lab. It stays on one pCPU, and TSC ticks are the machine's own.\n\
         name = \"{name}\"\ntype = \"{kind}\"\n{image}vcpus = 1\ncpus = \"1\"\ntsc_mode = \"native\"\n\
         on_poweroff = \"destroy\"\non_reboot = \"destroy\"\non_crash = \"destroy\"\n",
        name = guest_name(program, kind),
        kind = kind.name(),
    )
}

/// What a domain boots, its memory in MiB, and for HVM the device model, which has to be there and has nothing to do.
fn image_text(program: &str, kind: GuestKind, command_line: &str) -> String {
    match kind {
        GuestKind::Pv | GuestKind::Pvh => {
            format!("kernel = \"/lab/files/{program}.elf\"\nextra = \"{command_line}\"\nmemory = 16\n")
        }
        GuestKind::Hvm => format!(
            "firmware_override = \"/lab/files/{program}-hvm.elf\"\nmemory = 32\n\
             vga = \"none\"\nvnc = 0\nsdl = 0\nusb = 0\n"
        ),
    }
}

/// The compiler's argument that gives a program its command line.
fn built_in(command_line: &str) -> String {
    format!("-DCOMMAND_LINE=\"{command_line}\"")
}

/// How much a program does by default. A call of a PVH or HVM guest takes some hundred times as long, under TCG.
fn default_command_line(program: Program, kind: GuestKind) -> &'static str {
    match (program, kind) {
        (Program::Intact, GuestKind::Pv) => "calls=3000000",
        (Program::Hold, GuestKind::Hvm) => "wake=100",
        (Program::Hold, _) => "",
        (Program::Intact, _) => "calls=150000",
        (_, GuestKind::Pv) => "rounds=200 calls=1000 warmup=20000",
        _ => "rounds=50 calls=100 warmup=100",
    }
}

fn write(path: &Path, text: &str) -> Result<(), GuestsError> {
    fs::write(path, text).map_err(write_error(path))
}

fn write_error(path: &Path) -> impl FnOnce(io::Error) -> GuestsError + use<> {
    let path = path.to_owned();
    move |source| GuestsError::Write { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_told_from_other_commands() {
        assert_eq!(mark_number(0x4859_0003), Some(3));
        assert_eq!(mark_number(3), None);
    }

    /// Runs the C compiler.
    #[test]
    fn the_guests_compile_for_every_kind_of_domain() {
        let dir = tempfile::tempdir().unwrap();
        let guests = build(dir.path()).unwrap();
        for program in Program::ALL {
            let image = fs::read(guests.image(program)).unwrap();
            assert_eq!(image[..4], *b"\x7fELF");
            assert!(image.windows(13).any(|bytes| bytes == b"hypovisor-lab"));
            let firmware = fs::read(guests.firmware(program)).unwrap();
            assert_eq!(firmware[..5], *b"\x7fELF\x01", "32-bit");
            assert!(!firmware.windows(13).any(|bytes| bytes == b"hypovisor-lab"));
            for kind in GuestKind::ALL {
                assert!(guests.config(program, kind).exists());
            }
        }
        assert!(guests.hcall().exists() && guests.window().exists());
    }
}
