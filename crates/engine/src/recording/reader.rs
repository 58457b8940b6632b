//! Reads a recording, finished or not.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::RecordingError;
use super::list_segments;
use super::losses::{self, RecordedLoss};
use super::manifest::Manifest;
use super::rows::{RecordedCall, SegmentReader};

/// How often a follower looks for new segments.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A recording on disk.
#[derive(Debug)]
pub struct Recording {
    dir: PathBuf,
    manifest: Manifest,
}

impl Recording {
    /// Opens the recording in `dir`; only the manifest is read.
    ///
    /// # Errors
    /// When there is none, or it is not one that this version can read.
    pub fn open(dir: &Path) -> Result<Self, RecordingError> {
        Ok(Self { dir: dir.to_owned(), manifest: Manifest::read(dir)? })
    }

    /// What is known about it as a whole, as of when it was opened.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The complete segments, in order.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn segments(&self) -> Result<Vec<PathBuf>, RecordingError> {
        Ok(list_segments(&self.dir)?.into_iter().map(|(_, path)| path).collect())
    }

    /// The gaps in the events.
    ///
    /// # Errors
    /// When the file of losses cannot be read.
    pub fn losses(&self) -> Result<Vec<RecordedLoss>, RecordingError> {
        losses::read(&self.dir)
    }

    /// All calls that are recorded now: those of one CPU in the order they entered.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn calls(&self) -> Result<Calls, RecordingError> {
        Ok(Calls {
            dir: self.dir.clone(),
            segments: list_segments(&self.dir)?.into(),
            last: 0,
            current: None,
            block: Vec::new().into_iter(),
            follow: false,
        })
    }

    /// All calls, then those that are still to come, until the recording is complete or its engine is gone. The
    /// iterator blocks while there are none.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn follow(&self) -> Result<Calls, RecordingError> {
        Ok(Calls { follow: true, ..self.calls()? })
    }
}

/// Iterates over calls. A segment that cannot be read is reported once, and the next one is read after it.
pub struct Calls {
    dir: PathBuf,
    segments: VecDeque<(u64, PathBuf)>,
    /// Number of the last segment taken.
    last: u64,
    current: Option<SegmentReader>,
    block: std::vec::IntoIter<RecordedCall>,
    follow: bool,
}

impl std::fmt::Debug for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Calls").field("dir", &self.dir).field("last", &self.last).finish_non_exhaustive()
    }
}

impl Calls {
    /// Decodes the next block; false at the end.
    fn refill(&mut self) -> Result<bool, RecordingError> {
        loop {
            if let Some(mut segment) = self.current.take() {
                let block = segment.block()?;
                if !block.is_empty() {
                    self.current = Some(segment);
                    self.block = block.into_iter();
                    return Ok(true);
                }
            }
            let Some((number, path)) = self.next_segment()? else { return Ok(false) };
            self.last = number;
            self.current = Some(SegmentReader::open(&path)?);
        }
    }

    fn next_segment(&mut self) -> Result<Option<(u64, PathBuf)>, RecordingError> {
        loop {
            if let Some(next) = self.segments.pop_front() {
                return Ok(Some(next));
            }
            if !self.follow {
                return Ok(None);
            }
            // In this order: a segment that appears before the end is not missed.
            let running = Manifest::read(&self.dir)?.is_being_written();
            let last = self.last;
            self.segments =
                list_segments(&self.dir)?.into_iter().filter(|(number, _)| *number > last).collect();
            if self.segments.is_empty() {
                if !running {
                    return Ok(None);
                }
                std::thread::sleep(POLL_INTERVAL);
            }
        }
    }
}

impl Iterator for Calls {
    type Item = Result<RecordedCall, RecordingError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(call) = self.block.next() {
                return Some(Ok(call));
            }
            match self.refill() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Number of the last segment and counts of segments and calls. A segment that cannot be read counts as empty;
/// whoever reads the recording is told.
pub(super) fn count(dir: &Path) -> Result<(u64, u64, u64), RecordingError> {
    let segments = list_segments(dir)?;
    let last = segments.last().map_or(0, |(number, _)| *number);
    let calls =
        segments.iter().filter_map(|(_, path)| SegmentReader::open(path).ok()).map(|s| s.rows()).sum();
    Ok((last, segments.len() as u64, calls))
}
