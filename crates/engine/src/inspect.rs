//! A machine that runs, looked at through QEMU's monitor: its memory and its processors' registers. Needs no sensor.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hypovisor_machine::{Gpa, MemoryError, PhysicalMemory, RamLayout, RamRange, SystemRegisters};
use hypovisor_mapping::{Access, Ram};

use crate::qmp::{Qmp, QmpError, RamMap};

mod registers;

/// How long QEMU may take to tell registers.
const REGISTERS_TIMEOUT: Duration = Duration::from_millis(500);
/// How often a machine is told to go on by a new connection, if the one that stopped it fails.
const GO_ON_ATTEMPTS: usize = 10;

/// Why a running machine cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// QEMU's monitor.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// QEMU's memory.
    #[error(
        "cannot read the memory of QEMU (process {pid}): {source}; become the user that runs it, or root"
    )]
    Memory {
        /// Its process.
        pid: i32,
        /// Why not.
        source: io::Error,
    },
    /// QEMU does not tell where its RAM is.
    #[error("QEMU does not tell where the machine's memory is ({0})")]
    NoAddress(String),
}

/// Memory of a QEMU process. The layout's offsets are its virtual addresses.
pub(crate) struct ProcessMemory {
    pub(crate) file: File,
    pub(crate) layout: RamLayout,
}

impl PhysicalMemory for ProcessMemory {
    fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), MemoryError> {
        let mut done = 0;
        while done < buf.len() {
            let at = gpa.offset(done as u64);
            let (address, left) = self.layout.locate(at).ok_or(MemoryError::NoRam(at))?;
            let end = buf.len().min(done.saturating_add(left as usize));
            let read = self.file.read_exact_at(&mut buf[done..end], address);
            read.map_err(|_| MemoryError::NoRam(at))?;
            done = end;
        }
        Ok(())
    }
}

/// A machine that runs. QEMU serves one client of its monitor at a time, so each question connects anew.
pub struct RunningMachine {
    monitor: PathBuf,
    memory: Box<dyn PhysicalMemory + Send>,
    runs: Vec<(Gpa, u64)>,
    /// The connection that the machine was stopped by, until it goes on: nobody else gets between.
    held: Mutex<Option<Qmp>>,
}

impl RunningMachine {
    /// Connects to QEMU's monitor (QMP) at this socket.
    ///
    /// # Errors
    /// When nothing listens there, or the memory of that QEMU cannot be read.
    pub fn open(monitor: &Path) -> Result<Self, InspectError> {
        let mut client = Qmp::connect(monitor)?;
        let map = client.ram()?;
        let pid = client.pid()?;
        let memory: Box<dyn PhysicalMemory + Send> = match shared(pid, &map) {
            Some(ram) => Box::new(ram),
            None => Box::new(private(pid, &map, &mut client)?),
        };
        let runs = map.ranges.iter().map(|range| (range.gpa, range.len)).collect();
        Ok(Self { monitor: monitor.to_owned(), memory, runs, held: Mutex::default() })
    }

    /// Its memory.
    #[must_use]
    pub fn memory(&self) -> &(dyn PhysicalMemory + Send) {
        self.memory.as_ref()
    }

    /// The runs of its memory: where each begins, and its length in bytes.
    #[must_use]
    pub fn runs(&self) -> &[(Gpa, u64)] {
        &self.runs
    }

    /// The registers of its processors. It is not stopped for that, so they are of slightly different moments.
    ///
    /// # Errors
    /// When QEMU does not answer.
    pub fn registers(&self) -> Result<Vec<SystemRegisters>, InspectError> {
        const COMMAND: &str = "info registers -a";
        let text = match &mut *self.held() {
            Some(qmp) => qmp.human(COMMAND)?,
            None => Qmp::connect_within(&self.monitor, REGISTERS_TIMEOUT)?.human(COMMAND)?,
        };
        Ok(registers::parse(&text))
    }

    /// Whether its processors run.
    ///
    /// # Errors
    /// When QEMU does not answer.
    pub fn is_running(&self) -> Result<bool, InspectError> {
        Ok(Qmp::connect_within(&self.monitor, REGISTERS_TIMEOUT)?.is_running()?)
    }

    /// Stops the machine.
    ///
    /// # Errors
    /// When QEMU does not answer.
    pub fn stop(&self) -> Result<(), InspectError> {
        Ok(Qmp::connect(&self.monitor)?.stop()?)
    }

    /// Does this with the machine stopped. It goes on afterwards unless it was stopped before, whatever goes wrong meanwhile.
    ///
    /// # Errors
    /// When QEMU does not answer.
    pub fn while_stopped<T>(&self, work: impl FnOnce() -> T) -> Result<T, InspectError> {
        let mut qmp = Qmp::connect_within(&self.monitor, REGISTERS_TIMEOUT)?;
        if !qmp.is_running()? {
            drop(qmp);
            return Ok(work());
        }
        qmp.be_patient()?;
        let stopped = qmp.stop();
        *self.held() = Some(qmp);
        let _goes_on = GoesOn(self);
        stopped?;
        Ok(work())
    }

    fn held(&self) -> MutexGuard<'_, Option<Qmp>> {
        // A connection is whole between any two statements.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the machine go on, by a new connection if the one that it was stopped by fails.
    fn go_on(&self) {
        let held = self.held().take();
        let mut done = held.is_some_and(|mut qmp| qmp.cont().is_ok());
        for _ in 0..GO_ON_ATTEMPTS {
            if done {
                return;
            }
            done = Qmp::connect(&self.monitor).and_then(|mut qmp| qmp.cont()).is_ok();
        }
    }
}

/// Lets a stopped machine go on in the end.
struct GoesOn<'a>(&'a RunningMachine);

impl Drop for GoesOn<'_> {
    fn drop(&mut self) {
        self.0.go_on();
    }
}

/// RAM that is a file of QEMU's, as under TCG: mapped.
fn shared(pid: i32, map: &RamMap) -> Option<Ram> {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let is_ram = |path: &PathBuf| {
        std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.size() == map.backend_bytes())
    };
    let mut files = files.flatten().map(|entry| entry.path()).filter(is_ram);
    let file = files.find_map(|path| OpenOptions::new().read(true).open(path).ok())?;
    Ram::map(&file, RamLayout::new(map.ranges.iter().copied()), Access::ReadOnly).ok()
}

/// RAM of QEMU's own.
fn private(pid: i32, map: &RamMap, monitor: &mut Qmp) -> Result<ProcessMemory, InspectError> {
    let file =
        File::open(format!("/proc/{pid}/mem")).map_err(|source| InspectError::Memory { pid, source })?;
    let mut ranges = Vec::new();
    for range in &map.ranges {
        let said = monitor.human(&format!("gpa2hva {:#x}", range.gpa.0))?;
        let address = said.rsplit(' ').next().and_then(|word| word.trim().strip_prefix("0x"));
        let address = address.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let address = address.ok_or_else(|| InspectError::NoAddress(said.trim().to_owned()))?;
        ranges.push(RamRange { file_offset: address, ..*range });
    }
    Ok(ProcessMemory { file, layout: RamLayout::new(ranges) })
}
