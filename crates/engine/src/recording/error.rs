//! What can go wrong with a recording. Every error names the file.

use std::io;
use std::path::{Path, PathBuf};

use parquet::errors::ParquetError;

/// Why a recording cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// A file or directory cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or directory cannot be written: no space, no permission.
    #[error("cannot write {path}: {source}", path = path.display())]
    Write {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A new recording was to be made where there is one.
    #[error("{path} already holds a recording", path = path.display())]
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// Another engine is writing to it.
    #[error("{path} is being written by process {pid}", path = path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other engine.
        pid: u32,
    },
    /// There is no manifest.
    #[error("{path} is not a recording: it has no recording.json", path = path.display())]
    NotARecording {
        /// The directory.
        path: PathBuf,
    },
    /// The manifest is not what we write.
    #[error("{path} is not the manifest of a recording: {what}", path = path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The recording comes from a later Hypovisor.
    #[error("{path} has format version {found}; this hypovisor reads up to version {known}", path = path.display())]
    Version {
        /// The manifest.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The last one known.
        known: u32,
    },
    /// A segment is truncated, damaged, or was made by something else.
    #[error("{path} is not a readable segment: {what}", path = path.display())]
    Segment {
        /// The segment.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A line of the losses cannot be read.
    #[error("line {line} of {path} is not a loss: {what}", path = path.display())]
    Loss {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// An earlier write failed, and the recording ended there.
    #[error("the recording in {path} has ended after a failed write", path = path.display())]
    Ended {
        /// The directory.
        path: PathBuf,
    },
}

impl RecordingError {
    pub(super) fn reading(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Read { path, source }
    }

    pub(super) fn writing(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Write { path, source }
    }

    pub(super) fn segment(path: &Path, what: impl ToString) -> Self {
        Self::Segment { path: path.to_owned(), what: what.to_string() }
    }

    /// An error of the `parquet` crate while writing: an I/O error inside it is taken out.
    pub(super) fn encoding(path: &Path, error: ParquetError) -> Self {
        let source = match error {
            ParquetError::External(inner) => match inner.downcast::<io::Error>() {
                Ok(source) => *source,
                Err(other) => io::Error::other(other),
            },
            other => io::Error::other(other),
        };
        Self::Write { path: path.to_owned(), source }
    }
}
