//! What is looked at: a machine that runs, or an image of its memory.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use hypovisor_dump::{MemoryImage, PageTables};
use hypovisor_engine::inspect::RunningMachine;
use hypovisor_engine::recording::Recording;
use hypovisor_engine::runtime;
use hypovisor_machine::{Gpa, PhysicalMemory, SystemRegisters};

use crate::cli::LookArgs;

/// The most values of CR3 that are tried in an image that does not tell them.
const MAX_CANDIDATES: usize = 4096;

/// What is looked at.
pub(super) enum Source {
    Image(Box<MemoryImage>),
    Running {
        machine: Box<RunningMachine>,
        /// The symbols that its engine uses.
        symbols: Option<PathBuf>,
    },
}

impl Source {
    pub(super) fn open(args: &LookArgs) -> anyhow::Result<Self> {
        if let Some(path) = &args.dump {
            let image = MemoryImage::open(path).with_context(|| path.display().to_string())?;
            tell_missing(path, image.missing_bytes());
            return Ok(Self::Image(Box::new(image)));
        }
        let (monitor, symbols) = running(args.attach.as_ref().and_then(|vm| vm.as_deref()))?;
        let machine = RunningMachine::open(&monitor).with_context(|| monitor.display().to_string())?;
        Ok(Self::Running { machine: Box::new(machine), symbols })
    }

    /// The symbols file to look by.
    pub(super) fn symbols(&self, given: Option<&Path>) -> anyhow::Result<PathBuf> {
        let own = match self {
            Self::Running { symbols, .. } => symbols.clone(),
            Self::Image(_) => None,
        };
        given
            .map(Path::to_owned)
            .or(own)
            .context("say with --symbols which file Xen was made with: xen-syms of its debug package")
    }

    pub(super) fn registers(&self) -> anyhow::Result<Vec<SystemRegisters>> {
        match self {
            Self::Image(image) => Ok(image.cpus().to_vec()),
            Self::Running { machine, .. } => Ok(machine.registers()?),
        }
    }

    pub(super) fn memory(&self) -> &dyn PhysicalMemory {
        match self {
            Self::Image(image) => image.as_ref(),
            Self::Running { machine, .. } => machine.memory(),
        }
    }

    pub(super) fn runs(&self) -> Vec<(Gpa, u64)> {
        match self {
            Self::Image(image) => image.ranges().collect(),
            Self::Running { machine, .. } => machine.runs().to_vec(),
        }
    }

    /// Values of CR3 to try where no processor tells.
    pub(super) fn page_tables(&self) -> Box<dyn Iterator<Item = u64> + '_> {
        match self {
            Self::Image(image) => Box::new(PageTables::new(image).take(MAX_CANDIDATES)),
            Self::Running { .. } => Box::new(std::iter::empty()),
        }
    }

    /// Does this work, with the machine stopped if it runs and that is wished for. It goes on afterwards in any case.
    pub(super) fn while_stopped<T>(
        &self,
        stop: bool,
        work: impl FnOnce(&Self) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        match self {
            Self::Running { machine, .. } if stop => machine.while_stopped(|| work(self))?,
            _ => work(self),
        }
    }
}

/// A file that was cut short is looked at as far as it goes.
fn tell_missing(path: &Path, bytes: u64) {
    if bytes > 0 {
        let (path, mib) = (path.display(), bytes.div_ceil(1 << 20));
        let _ =
            writeln!(std::io::stderr(), "hypovisor: {path} was cut short: {mib} MiB of memory are missing");
    }
}

/// QEMU's monitor and, if known, the symbols of what runs there: a recording's directory, a monitor's socket, or what there is.
fn running(vm: Option<&Path>) -> anyhow::Result<(PathBuf, Option<PathBuf>)> {
    let Some(vm) = vm else {
        return match &runtime::engines()[..] {
            [] => bail!("no engine of yours runs; name QEMU's monitor socket or an image with --dump"),
            [one] => Ok((runtime::qmp_beside(one), None)),
            _ => bail!("several machines run; name the recording of one, or its monitor socket"),
        };
    };
    if !vm.is_dir() {
        return Ok((vm.to_owned(), None));
    }
    let recording = Recording::open(vm)?;
    let manifest = recording.manifest();
    let symbols = PathBuf::from(&manifest.profile_source);
    let monitor = runtime::qmp_beside(Path::new(&manifest.control_socket));
    Ok((monitor, symbols.is_file().then_some(symbols)))
}
