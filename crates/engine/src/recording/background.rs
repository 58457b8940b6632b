//! Writes segments on a thread of its own, so that the engine goes on while one is compressed.
//!
//! Two batches go round: one is filled while the other is written. If the disk is slower than the calls come in,
//! [`Background::submit`] waits for it, which is the bound on memory.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::batch::Batch;
use super::error::RecordingError;
use super::segment::SegmentWriter;

/// A batch to write, or one that was written.
struct Job {
    number: u64,
    batch: Box<Batch>,
}

type Done = (Box<Batch>, Result<(), RecordingError>);

/// The writing thread.
#[derive(Debug)]
pub(super) struct Background {
    jobs: Option<SyncSender<Job>>,
    done: Receiver<Done>,
    thread: Option<JoinHandle<()>>,
    spare: Option<Box<Batch>>,
    dir: PathBuf,
}

impl Background {
    pub(super) fn start(dir: PathBuf) -> Result<Self, RecordingError> {
        let (jobs, taken) = sync_channel::<Job>(1);
        let (finished, done) = sync_channel::<Done>(2);
        let target = dir.clone();
        let run = move || {
            let mut writer = SegmentWriter::default();
            for mut job in taken {
                let written = writer.write(&target, job.number, &job.batch, true);
                job.batch.clear();
                if finished.send((job.batch, written)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("recording".to_owned()).spawn(run);
        let thread = Some(thread.map_err(RecordingError::writing(&dir))?);
        Ok(Self { jobs: Some(jobs), done, thread, spare: Some(Box::new(Batch::new())), dir })
    }

    /// Takes a batch over and leaves an empty one.
    ///
    /// # Errors
    /// That of an earlier batch; this one is left as it is then.
    pub(super) fn submit(&mut self, number: u64, batch: &mut Box<Batch>) -> Result<(), RecordingError> {
        let empty = match self.spare.take() {
            Some(batch) => batch,
            None => self.wait()?,
        };
        let batch = std::mem::replace(batch, empty);
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(Job { number, batch }).is_ok());
        if sent { Ok(()) } else { Err(self.ended()) }
    }

    /// Takes note of a finished batch, if there is one.
    pub(super) fn poll(&mut self) -> Result<(), RecordingError> {
        if let Ok((batch, written)) = self.done.try_recv() {
            self.spare = Some(batch);
            written?;
        }
        Ok(())
    }

    /// Waits until all is written.
    pub(super) fn finish(&mut self) -> Result<(), RecordingError> {
        self.jobs = None;
        let mut outcome = Ok(());
        while let Ok((_, written)) = self.done.recv() {
            outcome = outcome.and(written);
        }
        let joined = self.thread.take().is_none_or(|thread| thread.join().is_ok());
        if joined { outcome } else { outcome.and(Err(self.ended())) }
    }

    fn wait(&mut self) -> Result<Box<Batch>, RecordingError> {
        let (batch, written) = self.done.recv().map_err(|_| self.ended())?;
        written.map(|()| batch)
    }

    fn ended(&self) -> RecordingError {
        RecordingError::Ended { path: self.dir.clone() }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // An abandoned recorder still completes the segment that is being written.
        let _ = self.finish();
    }
}
