//! A user's QEMU command line, and what has to be added to it for QEMU to be watched.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

mod sizes;

/// Id of the memory backend that is added unless the user brings one.
pub const RAM_ID: &str = "hypovisor-ram";
/// QEMU's RAM size when the command line does not say.
const DEFAULT_RAM_BYTES: u64 = 128 << 20;

/// The dynamic linker's list of libraries to load first.
const PRELOAD: &str = "LD_PRELOAD";
/// Where the KVM adapter looks for its options (crate `hypovisor-adapter-kvm`, `options.rs`).
const KVM_OPTIONS: &str = "HYPOVISOR_KVM";

/// What runs the machine's vCPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// QEMU's own translator.
    Tcg,
    /// Linux KVM.
    Kvm,
}

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
    /// An accelerator without an adapter.
    #[error("accelerator {0} is not supported: use -accel kvm or -accel tcg")]
    Accelerator(String),
    /// The number of vCPUs cannot be understood.
    #[error("cannot understand the number of vCPUs in -smp {0}")]
    Vcpus(String),
    /// The dynamic linker splits its list of libraries at colons and spaces.
    #[error("{} has a colon or a space in its path and so cannot be preloaded into QEMU; move it", .0.display())]
    PreloadPath(PathBuf),
    /// The RAM size cannot be understood.
    #[error("cannot understand the RAM size in -m {0}")]
    RamSize(String),
    /// The adapter's file is not where it is expected.
    #[error(
        "the library {name} is not beside the hypovisor program nor in HYPOVISOR_PLUGIN_DIR (looked in {looked})"
    )]
    NoPlugin {
        /// Its file name.
        name: String,
        /// Directories looked in.
        looked: String,
    },
}

impl CommandError {
    /// Whether there is no QEMU to run.
    #[must_use]
    pub const fn is_qemus_own(&self) -> bool {
        matches!(self, Self::Empty | Self::Missing { .. } | Self::NotQemu { .. })
    }
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

    /// Whether this QEMU only tells about itself, as managers have it do before they start machines.
    #[must_use]
    pub fn makes_no_machine(&self) -> bool {
        let none = |value: String| value == "none" || value.starts_with("none,") || value == "help";
        let asks = ["version", "help", "h"].iter().any(|flag| self.has(flag));
        asks || self.values("machine").chain(self.values("M")).any(none)
    }

    /// The accelerator that QEMU will use: the first that is named, else TCG.
    ///
    /// # Errors
    /// [`CommandError::Accelerator`] if there is no adapter for it.
    pub fn accelerator(&self) -> Result<Accelerator, CommandError> {
        if self.has("enable-kvm") {
            return Ok(Accelerator::Kvm);
        }
        let machines = self.values("machine").chain(self.values("M"));
        let from_machine = machines.filter_map(|value| {
            value.split(',').find_map(|part| part.strip_prefix("accel=").map(str::to_owned))
        });
        let first = self.values("accel").chain(from_machine).next();
        let named = first.as_deref().map_or("tcg", |value| {
            let value = value.strip_prefix("accel=").unwrap_or(value);
            value.split([',', ':']).next().unwrap_or("")
        });
        match named {
            "tcg" => Ok(Accelerator::Tcg),
            "kvm" => Ok(Accelerator::Kvm),
            other => Err(CommandError::Accelerator(other.to_owned())),
        }
    }

    /// The command line with what is needed to watch it; `library` is the adapter's.
    ///
    /// # Errors
    /// [`CommandError::RamSize`], [`CommandError::Vcpus`] or [`CommandError::PreloadPath`].
    pub fn watched(
        &self,
        accelerator: Accelerator,
        library: &Path,
        additions: &Additions<'_>,
    ) -> Result<Self, CommandError> {
        let mut watched = self.clone();
        match accelerator {
            Accelerator::Tcg => self.add_plugin(&mut watched, library, additions)?,
            Accelerator::Kvm => self.add_preload(&mut watched, library, additions)?,
        }
        let mut qmp = OsString::from("unix:");
        qmp.push(additions.qmp_socket);
        qmp.push(",server=on,wait=off");
        watched.args.extend(["-qmp".into(), qmp]);
        if !self.starts_stopped() {
            watched.args.push("-S".into());
        }
        Ok(watched)
    }

    /// TCG: a plugin, and RAM that can be mapped.
    fn add_plugin(
        &self,
        watched: &mut Self,
        plugin: &Path,
        additions: &Additions<'_>,
    ) -> Result<(), CommandError> {
        let mut argument = OsString::from("file=");
        argument.push(plugin);
        argument.push(",socket=");
        argument.push(additions.control_socket);
        if let Some(bytes) = additions.ring_bytes {
            argument.push(format!(",ring-bytes={bytes}"));
        }
        if additions.only_hooks {
            argument.push(",only-hooks=on");
        }
        watched.args.extend(["-plugin".into(), argument]);
        if !self.has_memory_backend() {
            let object = format!("memory-backend-memfd,id={RAM_ID},size={},share=on", self.ram_bytes()?);
            let machine = format!("memory-backend={RAM_ID}");
            watched.args.extend(["-object".into(), object.into(), "-machine".into(), machine.into()]);
        }
        Ok(())
    }

    /// KVM: a preloaded library, told by the environment what it needs.
    fn add_preload(
        &self,
        watched: &mut Self,
        library: &Path,
        additions: &Additions<'_>,
    ) -> Result<(), CommandError> {
        if library.as_os_str().as_bytes().iter().any(|byte| b": ".contains(byte)) {
            return Err(CommandError::PreloadPath(library.to_owned()));
        }
        let mut preload = library.as_os_str().to_owned();
        let own = self.env.iter().rev().find(|(name, _)| name == PRELOAD).map(|(_, value)| value.clone());
        if let Some(others) = own.or_else(|| std::env::var_os(PRELOAD)).filter(|others| !others.is_empty()) {
            preload.push(":");
            preload.push(others);
        }
        let mut options = OsString::from(format!("vcpus={}", self.max_vcpus()?));
        if let Some(bytes) = additions.ring_bytes {
            options.push(format!(",ring-bytes={bytes}"));
        }
        if additions.only_hooks {
            options.push(",only-hooks=on");
        }
        options.push(",socket=");
        options.push(additions.control_socket);
        watched.env.extend([(PRELOAD.into(), preload), (KVM_OPTIONS.into(), options)]);
        Ok(())
    }

    /// The most vCPUs that the machine can have, those that can be plugged in included.
    fn max_vcpus(&self) -> Result<u32, CommandError> {
        let Some(value) = self.values("smp").last() else { return Ok(1) };
        sizes::max_vcpus(&value).ok_or(CommandError::Vcpus(value))
    }

    fn has_memory_backend(&self) -> bool {
        self.values("machine").chain(self.values("M")).any(|value| value.contains("memory-backend="))
    }

    fn ram_bytes(&self) -> Result<u64, CommandError> {
        let Some(value) = self.values("m").last() else { return Ok(DEFAULT_RAM_BYTES) };
        let size = value.split(',').find_map(|part| part.strip_prefix("size=")).map(str::to_owned);
        let first = value.split(',').next().unwrap_or("").to_owned();
        let size = size.unwrap_or(first);
        sizes::bytes(&size).ok_or(CommandError::RamSize(value))
    }
}

fn parse_version(text: &str) -> Option<QemuVersion> {
    let rest = text.split("QEMU emulator version ").nth(1)?;
    let mut numbers = rest.split(|c: char| !c.is_ascii_digit());
    Some(QemuVersion { major: numbers.next()?.parse().ok()?, minor: numbers.next()?.parse().ok()? })
}

/// Finds the adapter's library for this QEMU: beside the running program, where a package puts it, or where
/// `HYPOVISOR_PLUGIN_DIR` says.
///
/// # Errors
/// [`CommandError::NoPlugin`], or [`CommandError::TooOld`] for TCG.
pub fn find_library(accelerator: Accelerator, qemu: QemuVersion) -> Result<PathBuf, CommandError> {
    let name = match accelerator {
        Accelerator::Tcg => format!("libhypovisor_tcg_v{}.so", qemu.plugin_api()?),
        Accelerator::Kvm => "libhypovisor_kvm.so".to_owned(),
    };
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
    fn the_accelerator_is_the_first_that_is_named() {
        let kind = |args: &[&str]| qemu(args).accelerator();
        assert_eq!(kind(&["-accel", "tcg,thread=multi"]).unwrap(), Accelerator::Tcg);
        assert_eq!(kind(&[]).unwrap(), Accelerator::Tcg);
        for args in [&["-accel", "kvm"][..], &["-enable-kvm"], &["-machine", "q35,accel=kvm:tcg"]] {
            assert_eq!(kind(args).unwrap(), Accelerator::Kvm, "{args:?}");
        }
        assert!(matches!(kind(&["-accel", "whpx"]), Err(CommandError::Accelerator(name)) if name == "whpx"));
    }

    #[test]
    fn what_managers_ask_qemu_is_told_from_machines() {
        let none = |args: &[&str]| qemu(args).makes_no_machine();
        assert!(none(&["-S", "-nographic", "-machine", "none,accel=kvm:tcg", "-daemonize"]));
        assert!(none(&["--version"]) && none(&["-M", "help"]));
        assert!(!none(&["-machine", "q35,accel=kvm", "-name", "none"]));
    }

    #[test]
    fn under_kvm_only_the_environment_and_the_monitor_are_added() {
        let additions = additions(Some(4096));
        let mut own = qemu(&["-accel", "kvm", "-smp", "2,maxcpus=4", "-m", "1G"]);
        own.env.push(("LD_PRELOAD".into(), "/other.so".into()));
        let watched = own.watched(Accelerator::Kvm, "/a.so".as_ref(), &additions).unwrap();
        assert_eq!(watched.args[own.args.len()..], ["-qmp", "unix:/q,server=on,wait=off", "-S"]);
        let last = |name: &str| watched.env.iter().rev().find(|(key, _)| key == name).unwrap().1.clone();
        assert_eq!(last("LD_PRELOAD"), "/a.so:/other.so");
        assert_eq!(last("HYPOVISOR_KVM"), "vcpus=4,ring-bytes=4096,socket=/c");
        let spaced = own.watched(Accelerator::Kvm, "/a b.so".as_ref(), &additions);
        assert!(matches!(spaced, Err(CommandError::PreloadPath(_))));
    }

    fn additions(ring_bytes: Option<u64>) -> Additions<'static> {
        Additions { control_socket: "/c".as_ref(), qmp_socket: "/q".as_ref(), ring_bytes, only_hooks: false }
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
        let additions = additions(None);
        let with =
            |args: &[&str]| qemu(args).watched(Accelerator::Tcg, "/p.so".as_ref(), &additions).unwrap().args;
        assert!(with(&["-m", "1G"]).contains(&"memory-backend=hypovisor-ram".into()));
        let own = with(&["-machine", "q35,memory-backend=mine", "-S"]);
        assert!(!own.iter().any(|arg| arg.to_string_lossy().contains("hypovisor-ram")));
        assert_eq!(own.iter().filter(|arg| *arg == "-S").count(), 1);
    }
}
