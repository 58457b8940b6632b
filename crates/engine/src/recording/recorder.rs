//! Writes a recording.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::background::Background;
use super::batch::Batch;
use super::error::RecordingError;
use super::losses::LossWriter;
use super::manifest::{Manifest, PcpuCounters, State, now_ns};
use super::segment::SegmentWriter;
use super::{MANIFEST, list_segments};
use crate::call::{Call, CallSink, Loss};

/// How often the manifest is replaced at most.
const MANIFEST_INTERVAL: Duration = Duration::from_secs(1);

/// If calls come faster than this one by one, the engine's own thread has no time to compress their memory.
const BUSY_CALL: Duration = Duration::from_micros(1);

/// When segments end and who writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecorderOptions {
    /// A call waits no longer than this, if [`Recorder::tick`] is called often enough.
    pub flush_after: Duration,
    /// Calls in a segment at most.
    pub segment_calls: usize,
    /// Bytes of captured guest memory in a segment, at most about.
    pub segment_memory_bytes: usize,
    /// Compress and write on a thread of its own.
    pub own_thread: bool,
}

impl Default for RecorderOptions {
    fn default() -> Self {
        Self {
            flush_after: Duration::from_millis(500),
            segment_calls: 262_144,
            segment_memory_bytes: 64 << 20,
            own_thread: false,
        }
    }
}

enum Output {
    Direct(Box<SegmentWriter>),
    OwnThread(Background),
}

/// Writes a recording. One that is dropped without [`Recorder::finish`] loses what is not flushed, and its
/// manifest goes on to say `running`.
pub struct Recorder {
    dir: PathBuf,
    options: RecorderOptions,
    manifest: Manifest,
    batch: Box<Batch>,
    /// When the first call of the batch came.
    since: Option<Instant>,
    /// Calls recorded per CPU; copied to the manifest when that is written.
    calls: Vec<u64>,
    /// Number of the next segment.
    next: u64,
    output: Output,
    losses: LossWriter,
    manifest_written: Instant,
    failed: bool,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").field("dir", &self.dir).field("next", &self.next).finish_non_exhaustive()
    }
}

impl Recorder {
    /// Begins a recording in `dir`, which is made if it is not there. The manifest's format, version, state,
    /// times, process id and counts are filled in here.
    ///
    /// # Errors
    /// When the directory holds a recording or cannot be written.
    pub fn create(dir: &Path, manifest: Manifest, options: RecorderOptions) -> Result<Self, RecordingError> {
        fs::create_dir_all(dir).map_err(RecordingError::writing(dir))?;
        if dir.join(MANIFEST).exists() || !list_segments(dir)?.is_empty() {
            return Err(RecordingError::Exists { path: dir.to_owned() });
        }
        let started = Manifest { start_time_ns: now_ns(), segments: 0, events: 0, ..manifest };
        Self::start(dir, started, options, 1)
    }

    /// Goes on with the recording in `dir`, behind the last segment that is there.
    ///
    /// # Errors
    /// When there is none, an engine is writing to it, or it cannot be written.
    pub fn resume(dir: &Path, options: RecorderOptions) -> Result<Self, RecordingError> {
        let manifest = Manifest::read(dir)?;
        if manifest.is_being_written() && manifest.engine_pid != std::process::id() {
            return Err(RecordingError::InUse { path: dir.to_owned(), pid: manifest.engine_pid });
        }
        remove_unfinished(dir)?;
        let (last, segments, events) = super::reader::count(dir)?;
        let resumed = Manifest { segments, events, ..manifest };
        Self::start(dir, resumed, options, last + 1)
    }

    fn start(
        dir: &Path,
        manifest: Manifest,
        options: RecorderOptions,
        next: u64,
    ) -> Result<Self, RecordingError> {
        let own = Manifest::default();
        let manifest = Manifest {
            format: own.format,
            version: own.version,
            hypovisor_version: own.hypovisor_version,
            state: State::Running,
            engine_pid: std::process::id(),
            end_time_ns: now_ns(),
            ..manifest
        };
        manifest.write(dir)?;
        let output = if options.own_thread {
            Output::OwnThread(Background::start(dir.to_owned())?)
        } else {
            Output::Direct(Box::default())
        };
        Ok(Self {
            dir: dir.to_owned(),
            options,
            calls: manifest.pcpus.iter().map(|counters| counters.calls).collect(),
            manifest,
            batch: Box::new(Batch::new()),
            since: None,
            next,
            output,
            losses: LossWriter::default(),
            manifest_written: Instant::now(),
            failed: false,
        })
    }

    /// The manifest as it will be written next. The recorder counts calls, losses, segments and events itself.
    pub fn manifest_mut(&mut self) -> &mut Manifest {
        &mut self.manifest
    }

    /// Flushes and replaces the manifest when it is time to. To be called a few times a second, calls or not.
    ///
    /// # Errors
    /// When a file cannot be written, now or earlier on the writing thread; the recording ends then.
    pub fn tick(&mut self) -> Result<(), RecordingError> {
        self.guard(Self::tick_unguarded)
    }

    /// Writes what is left and marks the recording complete.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn finish(mut self) -> Result<Manifest, RecordingError> {
        self.guard(Self::flush)?;
        if let Output::OwnThread(background) = &mut self.output {
            background.finish()?;
        }
        self.manifest.state = State::Complete;
        self.write_manifest()?;
        Ok(self.manifest)
    }

    fn tick_unguarded(&mut self) -> Result<(), RecordingError> {
        if let Output::OwnThread(background) = &mut self.output {
            background.poll()?;
        }
        if self.since.is_some_and(|since| since.elapsed() >= self.options.flush_after) {
            self.flush()?;
        }
        if self.manifest_written.elapsed() >= MANIFEST_INTERVAL {
            self.write_manifest()?;
        }
        Ok(())
    }

    /// Runs `step`, unless an earlier one failed.
    fn guard(
        &mut self,
        step: impl FnOnce(&mut Self) -> Result<(), RecordingError>,
    ) -> Result<(), RecordingError> {
        if self.failed {
            return Err(RecordingError::Ended { path: self.dir.clone() });
        }
        let outcome = step(self);
        self.failed = outcome.is_err();
        outcome
    }

    fn flush(&mut self) -> Result<(), RecordingError> {
        let filled_in = self.since.take().map_or(Duration::ZERO, |since| since.elapsed());
        let rows = self.batch.rows as u64;
        if rows == 0 {
            return Ok(());
        }
        match &mut self.output {
            Output::Direct(writer) => {
                let compress = filled_in >= self.batch.rows as u32 * BUSY_CALL;
                writer.write(&self.dir, self.next, &self.batch, compress)?;
                self.batch.clear();
            }
            Output::OwnThread(background) => background.submit(self.next, &mut self.batch)?,
        }
        self.next += 1;
        self.manifest.segments += 1;
        self.manifest.events += rows;
        Ok(())
    }

    fn write_manifest(&mut self) -> Result<(), RecordingError> {
        self.manifest_written = Instant::now();
        self.manifest.end_time_ns = now_ns();
        for (pcpu, calls) in self.calls.iter().enumerate() {
            let counters: &mut PcpuCounters = self.manifest.pcpu_mut(pcpu as u32);
            counters.calls = *calls;
        }
        self.manifest.write(&self.dir)
    }

    #[cold]
    fn first_of_batch(&mut self) {
        self.since = Some(Instant::now());
    }

    #[cold]
    fn first_of_pcpu(&mut self, pcpu: u32) {
        self.calls.resize(pcpu as usize + 1, 0);
        if let Some(calls) = self.calls.last_mut() {
            *calls = 1;
        }
    }

    fn is_full(&self) -> bool {
        self.batch.rows >= self.options.segment_calls
            || self.batch.memory_bytes() >= self.options.segment_memory_bytes
            || self.batch.dictionaries_are_full()
    }
}

impl CallSink for Recorder {
    type Error = RecordingError;

    fn call(&mut self, call: &Call<'_>) -> Result<(), RecordingError> {
        if self.failed || self.is_full() {
            self.guard(Self::flush)?;
        }
        if self.since.is_none() {
            self.first_of_batch();
        }
        match self.calls.get_mut(call.id.pcpu as usize) {
            Some(calls) => *calls += 1,
            None => self.first_of_pcpu(call.id.pcpu),
        }
        self.batch.push(call);
        Ok(())
    }

    fn loss(&mut self, loss: &Loss) -> Result<(), RecordingError> {
        self.guard(|recorder| recorder.losses.write(&recorder.dir, loss))?;
        let counters = self.manifest.pcpu_mut(loss.pcpu);
        counters.lost_calls += loss.calls;
        counters.lost_results += loss.results;
        Ok(())
    }
}

/// Removes what a killed engine was writing.
fn remove_unfinished(dir: &Path) -> Result<(), RecordingError> {
    for entry in fs::read_dir(dir).map_err(RecordingError::reading(dir))? {
        let entry = entry.map_err(RecordingError::reading(dir))?;
        let name = entry.file_name();
        let unfinished =
            name.to_str().is_some_and(|name| name.starts_with(".calls-") && name.ends_with(".parquet.tmp"));
        if unfinished {
            fs::remove_file(entry.path()).map_err(RecordingError::writing(&entry.path()))?;
        }
    }
    Ok(())
}
