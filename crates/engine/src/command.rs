//! A user's QEMU command line, and what has to be added to it for QEMU to be watched.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Id of the memory backend that is added unless the user brings one.
pub const RAM_ID: &str = "hypovisor-ram";
/// QEMU's RAM size when the command line does not say.
const DEFAULT_RAM_BYTES: u64 = 128 << 20;

/// Why a QEMU cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// No command was given.
    #[error("no QEMU command line given; put it behind --, as in: hypovisor run -- qemu-system-x86_64 …")]
    Empty,
    /// The program does not exist or cannot be run.
    #[error(
        "cannot run {program}: {source}; install QEMU 10.0 or later (Debian: qemu-system-x86), or give its path"
    )]
    Missing {
        /// What was to be run.
        program: String,
        /// Why it could not be.
        source: std::io::Error,
    },
    /// It is not QEMU, or its own arguments are wrong.
    #[error("{program} does not tell a QEMU version: {output}")]
    NotQemu {
        /// What was run.
        program: String,
        /// What it printed instead, the last line.
        output: String,
    },
    /// Its plugin interface cannot do what is needed.
    #[error("QEMU {major}.{minor} is too old: its plugins cannot read registers; 10.0 or later is needed")]
    TooOld {
        /// Major version.
        major: u32,
        /// Minor version.
        minor: u32,
    },
    /// KVM, or another accelerator without an adapter.
    #[error("accelerator {0} is not supported yet: use -accel tcg")]
    Accelerator(String),
    /// The RAM size cannot be understood.
    #[error("cannot understand the RAM size in -m {0}")]
    RamSize(String),
    /// The plugin's file is not where it is expected.
    #[error(
        "the QEMU plugin {name} is not beside the hypovisor program nor in HYPOVISOR_PLUGIN_DIR (looked in {looked})"
    )]
    NoPlugin {
        /// Its file name.
        name: String,
        /// Directories looked in.
        looked: String,
    },
}

/// A program with arguments and additions to its environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QemuCommand {
    /// The program: QEMU, or something that starts it.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Environment variables set on top of ours.
    pub env: Vec<(OsString, OsString)>,
}

/// What is added to a command line.
#[derive(Clone, Debug)]
pub struct Additions<'a> {
    /// Where the plugin listens.
    pub control_socket: &'a Path,
    /// Where QEMU's monitor listens.
    pub qmp_socket: &'a Path,
    /// Ring size in bytes, if not the plugin's default.
    pub ring_bytes: Option<u64>,
    /// The hooks do nothing: for measuring their bare cost.
    pub only_hooks: bool,
}

/// QEMU's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QemuVersion {
    /// Major version.
    pub major: u32,
    /// Minor version.
    pub minor: u32,
}

impl QemuVersion {
    /// The plugin API level to use: 4 is accepted by QEMU 10.0 to 11.0, 7 from 11.1 on.
    ///
    /// # Errors
    /// [`CommandError::TooOld`] before 10.0.
    pub const fn plugin_api(self) -> Result<u32, CommandError> {
        match (self.major, self.minor) {
            (major, minor) if major < 10 => Err(CommandError::TooOld { major, minor }),
            (10, _) | (11, 0) => Ok(4),
            _ => Ok(7),
        }
    }
}

impl QemuCommand {
    /// From a command line as a user writes it: the program, then its arguments.
    ///
    /// # Errors
    /// [`CommandError::Empty`].
    pub fn from_line(line: &[OsString]) -> Result<Self, CommandError> {
        let (program, args) = line.split_first().ok_or(CommandError::Empty)?;
        Ok(Self { program: program.into(), args: args.to_vec(), env: Vec::new() })
    }

    /// As a process to start.
    #[must_use]
    pub fn to_command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Asks the program for its version, with all its arguments, so that a wrapper may pick its QEMU by them.
    ///
    /// # Errors
    /// [`CommandError::Missing`] or [`CommandError::NotQemu`].
    pub fn version(&self) -> Result<QemuVersion, CommandError> {
        let program = || self.program.display().to_string();
        let mut asking = self.to_command();
        asking.arg("-version").stdin(Stdio::null());
        let output =
            asking.output().map_err(|source| CommandError::Missing { program: program(), source })?;
        let text = String::from_utf8_lossy(&output.stdout);
        parse_version(&text).ok_or_else(|| {
            let errors = String::from_utf8_lossy(&output.stderr);
            let last = errors.lines().chain(text.lines()).rfind(|line| !line.trim().is_empty());
            CommandError::NotQemu {
                program: program(),
                output: last.unwrap_or("no output").trim().to_owned(),
            }
        })
    }

    /// The option's values in order: `-name value` or `--name value`.
    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = String> + 'a {
        let is_option = move |arg: &OsStr| {
            let arg = arg.to_string_lossy();
            arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) == Some(name)
        };
        let pairs = self.args.iter().zip(self.args.iter().skip(1));
        pairs.filter(move |(arg, _)| is_option(arg)).map(|(_, value)| value.to_string_lossy().into_owned())
    }

    fn has(&self, flag: &str) -> bool {
        self.args.iter().any(|arg| arg.to_string_lossy().trim_start_matches('-') == flag)
    }

    /// Whether the user wants the machine to wait for the monitor.
    #[must_use]
    pub fn starts_stopped(&self) -> bool {
        self.args.iter().any(|arg| arg == "-S" || arg == "--S")
    }

    /// Checks that the accelerator is one there is an adapter for.
    ///
    /// # Errors
    /// [`CommandError::Accelerator`].
    pub fn check_accelerator(&self) -> Result<(), CommandError> {
        if self.has("enable-kvm") {
            return Err(CommandError::Accelerator("kvm".into()));
        }
        let from_machine = self.values("machine").chain(self.values("M")).filter_map(|value| {
            value.split(',').find_map(|part| part.strip_prefix("accel=").map(str::to_owned))
        });
        let named = self.values("accel").chain(from_machine);
        let kind = |value: String| {
            let first = value.split([',', ':']).next().unwrap_or("").to_owned();
            first.strip_prefix("accel=").map_or(first.clone(), str::to_owned)
        };
        match named.map(kind).find(|kind| kind != "tcg") {
            Some(kind) => Err(CommandError::Accelerator(kind)),
            None => Ok(()),
        }
    }

    /// The command line with what is needed to watch it.
    ///
    /// # Errors
    /// [`CommandError::RamSize`].
    pub fn watched(&self, plugin: &Path, additions: &Additions<'_>) -> Result<Self, CommandError> {
        let mut watched = self.clone();
        let mut plugin_argument = OsString::from("file=");
        plugin_argument.push(plugin);
        plugin_argument.push(",socket=");
        plugin_argument.push(additions.control_socket);
        if let Some(bytes) = additions.ring_bytes {
            plugin_argument.push(format!(",ring-bytes={bytes}"));
        }
        if additions.only_hooks {
            plugin_argument.push(",only-hooks=on");
        }
        let mut qmp = OsString::from("unix:");
        qmp.push(additions.qmp_socket);
        qmp.push(",server=on,wait=off");
        watched.args.extend(["-plugin".into(), plugin_argument, "-qmp".into(), qmp]);
        if !self.starts_stopped() {
            watched.args.push("-S".into());
        }
        if !self.has_memory_backend() {
            let object = format!("memory-backend-memfd,id={RAM_ID},size={},share=on", self.ram_bytes()?);
            let machine = format!("memory-backend={RAM_ID}");
            watched.args.extend(["-object".into(), object.into(), "-machine".into(), machine.into()]);
        }
        Ok(watched)
    }

    fn has_memory_backend(&self) -> bool {
        self.values("machine").chain(self.values("M")).any(|value| value.contains("memory-backend="))
    }

    fn ram_bytes(&self) -> Result<u64, CommandError> {
        let Some(value) = self.values("m").last() else { return Ok(DEFAULT_RAM_BYTES) };
        let size = value.split(',').find_map(|part| part.strip_prefix("size=")).map(str::to_owned);
        let first = value.split(',').next().unwrap_or("").to_owned();
        let size = size.unwrap_or(first);
        parse_size(&size).ok_or(CommandError::RamSize(value))
    }
}

/// QEMU's `-m` takes mebibytes unless a suffix says otherwise.
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match text.get(digits.len()..)?.to_ascii_uppercase().as_str() {
        "" | "M" | "MB" | "MIB" => 1 << 20,
        "B" => 1,
        "K" | "KB" | "KIB" => 1 << 10,
        "G" | "GB" | "GIB" => 1 << 30,
        "T" | "TB" | "TIB" => 1 << 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit).filter(|bytes| *bytes > 0)
}

fn parse_version(text: &str) -> Option<QemuVersion> {
    let rest = text.split("QEMU emulator version ").nth(1)?;
    let mut numbers = rest.split(|c: char| !c.is_ascii_digit());
    Some(QemuVersion { major: numbers.next()?.parse().ok()?, minor: numbers.next()?.parse().ok()? })
}

/// Finds the plugin of this API level: beside the running program, where a package puts it, or where
/// `HYPOVISOR_PLUGIN_DIR` says.
///
/// # Errors
/// [`CommandError::NoPlugin`].
pub fn find_plugin(plugin_api: u32) -> Result<PathBuf, CommandError> {
    let name = format!("libhypovisor_tcg_v{plugin_api}.so");
    let beside = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
    let mut places: Vec<PathBuf> =
        std::env::var_os("HYPOVISOR_PLUGIN_DIR").map(PathBuf::from).into_iter().collect();
    if let Some(beside) = beside {
        places.push(beside.join("../lib/hypovisor"));
        // Test programs stand one directory below what cargo builds for users.
        places.push(beside.join(".."));
        places.insert(places.len() - 2, beside);
    }
    let found = places.iter().map(|place| place.join(&name)).find(|path| path.is_file());
    found.and_then(|path| path.canonicalize().ok()).ok_or_else(|| {
        let looked = places.iter().map(|place| place.display().to_string()).collect::<Vec<_>>().join(", ");
        CommandError::NoPlugin { name, looked }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn qemu(args: &[&str]) -> QemuCommand {
        let line: Vec<OsString> = ["qemu"].iter().chain(args).map(Into::into).collect();
        QemuCommand::from_line(&line).unwrap()
    }

    #[test]
    fn ram_size_is_understood_as_qemu_does() {
        let bytes = |args: &[&str]| qemu(args).ram_bytes();
        assert_eq!(bytes(&[]).unwrap(), 128 << 20);
        assert_eq!(bytes(&["-m", "4096"]).unwrap(), 4 << 30);
        assert_eq!(bytes(&["-m", "size=2G,slots=4,maxmem=8G"]).unwrap(), 2 << 30);
        assert_eq!(bytes(&["-m", "1G", "-m", "512M"]).unwrap(), 512 << 20);
        assert!(matches!(bytes(&["-m", "lots"]), Err(CommandError::RamSize(_))));
    }

    #[test]
    fn only_tcg_passes() {
        assert!(qemu(&["-accel", "tcg,thread=multi"]).check_accelerator().is_ok());
        assert!(qemu(&[]).check_accelerator().is_ok());
        for args in [&["-accel", "kvm"][..], &["-enable-kvm"], &["-machine", "q35,accel=kvm:tcg"]] {
            assert!(matches!(qemu(args).check_accelerator(), Err(CommandError::Accelerator(_))), "{args:?}");
        }
    }

    #[test]
    fn versions_choose_the_plugin() {
        let api = |text: &str| parse_version(text).unwrap().plugin_api();
        assert_eq!(api("QEMU emulator version 10.0.13 (Debian 1:10.0.13)").unwrap(), 4);
        assert_eq!(api("QEMU emulator version 11.0.0").unwrap(), 4);
        assert_eq!(api("QEMU emulator version 11.1.3").unwrap(), 7);
        assert!(matches!(
            api("QEMU emulator version 7.2.22"),
            Err(CommandError::TooOld { major: 7, minor: 2 })
        ));
        assert_eq!(parse_version("GNU bash, version 5.2"), None);
    }

    #[test]
    fn a_users_own_memory_backend_is_kept() {
        let additions = Additions {
            control_socket: "/c".as_ref(),
            qmp_socket: "/q".as_ref(),
            ring_bytes: None,
            only_hooks: false,
        };
        let with = |args: &[&str]| qemu(args).watched("/p.so".as_ref(), &additions).unwrap().args;
        assert!(with(&["-m", "1G"]).contains(&"memory-backend=hypovisor-ram".into()));
        let own = with(&["-machine", "q35,memory-backend=mine", "-S"]);
        assert!(!own.iter().any(|arg| arg.to_string_lossy().contains("hypovisor-ram")));
        assert_eq!(own.iter().filter(|arg| *arg == "-S").count(), 1);
    }
}
