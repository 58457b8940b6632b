//! `recording.json`: what a recording is of and how far it got.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::MANIFEST;
use super::error::RecordingError;
use super::schema::{FORMAT, VERSION};
use crate::domains::Domain;

const UNFINISHED_MANIFEST: &str = ".recording.json.tmp";

/// What is known about a recording as a whole. A field that is missing reads as empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Manifest {
    /// Name of the format.
    pub format: String,
    /// Version of the format.
    pub version: u32,
    /// Version of the Hypovisor that wrote it.
    pub hypovisor_version: String,
    /// Whether it is still being written.
    pub state: State,
    /// Process id of the engine that wrote or writes it.
    pub engine_pid: u32,
    /// When it began, in nanoseconds since the Unix epoch.
    pub start_time_ns: i64,
    /// When it ended or, while it runs, when this was written.
    pub end_time_ns: i64,
    /// Version of the watched Xen, e.g. `4.17.5`.
    pub xen_version: String,
    /// Where the description of Xen came from.
    pub profile_source: String,
    /// QEMU's command line.
    pub qemu_command: Vec<String>,
    /// QEMU's process id.
    pub qemu_pid: u32,
    /// Where the sensor listens: another engine can attach there while QEMU runs.
    pub control_socket: String,
    /// Level of the plugin API that QEMU has.
    pub plugin_api: u32,
    /// Number of L1's CPUs.
    pub vcpus: u32,
    /// What the sensor took for one hook hit (a call has two), in nanoseconds: the median of one hit
    /// in 64.
    pub hit_cost_ns: Option<u64>,
    /// The domains seen.
    pub domains: Vec<Domain>,
    /// Counters of each of L1's CPUs, by number.
    pub pcpus: Vec<PcpuCounters>,
    /// Complete segments.
    pub segments: u64,
    /// Calls in them.
    pub events: u64,
}

/// Whether a recording is still being written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// An engine writes to it, or was killed.
    #[default]
    Running,
    /// It ended in order.
    Complete,
}

/// Counters of one of L1's CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PcpuCounters {
    /// Calls recorded.
    pub calls: u64,
    /// Calls of which nothing was recorded.
    pub lost_calls: u64,
    /// Calls recorded without their result.
    pub lost_results: u64,
    /// Times that the CPU waited for room in its ring.
    pub waits: u64,
}

impl Default for Manifest {
    fn default() -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            hypovisor_version: env!("CARGO_PKG_VERSION").to_owned(),
            state: State::Running,
            engine_pid: 0,
            start_time_ns: 0,
            end_time_ns: 0,
            xen_version: String::new(),
            profile_source: String::new(),
            qemu_command: Vec::new(),
            qemu_pid: 0,
            control_socket: String::new(),
            plugin_api: 0,
            vcpus: 0,
            hit_cost_ns: None,
            domains: Vec::new(),
            pcpus: Vec::new(),
            segments: 0,
            events: 0,
        }
    }
}

/// The part that says whether the rest can be understood.
#[derive(Deserialize)]
struct Preface {
    format: String,
    version: u32,
}

impl Manifest {
    /// Calls of which nothing was recorded.
    #[must_use]
    pub fn lost_calls(&self) -> u64 {
        self.pcpus.iter().map(|counters| counters.lost_calls).sum()
    }

    /// A domain by its id.
    #[must_use]
    pub fn domain(&self, id: u16) -> Option<&Domain> {
        self.domains.iter().find(|domain| domain.id == id)
    }

    /// How long the recording ran, in seconds.
    #[must_use]
    pub fn wall_seconds(&self) -> f64 {
        self.end_time_ns.saturating_sub(self.start_time_ns).max(0) as f64 / 1e9
    }

    /// Whether an engine is writing to the recording now.
    #[must_use]
    pub fn is_being_written(&self) -> bool {
        self.state == State::Running && process_exists(self.engine_pid)
    }

    /// The counters of one CPU, which come into being as needed.
    pub fn pcpu_mut(&mut self, pcpu: u32) -> &mut PcpuCounters {
        let index = pcpu as usize;
        if self.pcpus.len() <= index {
            self.pcpus.resize(index + 1, PcpuCounters::default());
        }
        &mut self.pcpus[index]
    }

    pub(super) fn read(dir: &Path) -> Result<Self, RecordingError> {
        let path = dir.join(MANIFEST);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound && dir.is_dir() => {
                return Err(RecordingError::NotARecording { path: dir.to_owned() });
            }
            Err(error) => return Err(RecordingError::reading(&path)(error)),
        };
        let wrong = |error: serde_json::Error| RecordingError::Manifest {
            path: path.clone(),
            what: error.to_string(),
        };
        let preface: Preface = serde_json::from_slice(&bytes).map_err(wrong)?;
        if preface.format != FORMAT {
            let what = format!("its format is {:?}", preface.format);
            return Err(RecordingError::Manifest { path, what });
        }
        if preface.version == 0 || preface.version > VERSION {
            return Err(RecordingError::Version { path, found: preface.version, known: VERSION });
        }
        serde_json::from_slice(&bytes).map_err(wrong)
    }

    /// Replaces the manifest of `dir`: a reader sees the old one or the new one, never a part.
    pub(super) fn write(&self, dir: &Path) -> Result<(), RecordingError> {
        let path = dir.join(MANIFEST);
        let unfinished = dir.join(UNFINISHED_MANIFEST);
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        fs::write(&unfinished, text).map_err(RecordingError::writing(&unfinished))?;
        fs::rename(&unfinished, &path).map_err(RecordingError::writing(&path))
    }
}

/// Whether a process with this id is there, be it ours or not.
fn process_exists(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

/// The time of day, in nanoseconds since the Unix epoch.
pub(super) fn now_ns() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX)
}
