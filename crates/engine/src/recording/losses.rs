//! `losses.jsonl`: one line for every gap in the events.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::LOSSES;
use super::error::RecordingError;
use crate::call::Loss;

/// Events that were lost on one ring, as recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedLoss {
    /// When there was room again, in nanoseconds since the Unix epoch.
    pub time_ns: i64,
    /// The ring, which is a physical CPU of L1.
    pub pcpu: u32,
    /// The first call that may be missing.
    pub first_sequence: u64,
    /// Calls of which nothing was recorded.
    pub calls: u64,
    /// Calls recorded without their result.
    pub results: u64,
}

impl From<&Loss> for RecordedLoss {
    fn from(loss: &Loss) -> Self {
        let Loss { pcpu, time_ns, first_sequence, calls, results } = *loss;
        Self { time_ns, pcpu, first_sequence, calls, results }
    }
}

/// Appends losses; the file comes into being with the first.
#[derive(Debug, Default)]
pub(super) struct LossWriter {
    file: Option<File>,
}

impl LossWriter {
    pub(super) fn write(&mut self, dir: &Path, loss: &Loss) -> Result<(), RecordingError> {
        let path = dir.join(LOSSES);
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let opened = OpenOptions::new().append(true).create(true).open(&path);
                none.insert(opened.map_err(RecordingError::writing(&path))?)
            }
        };
        let mut line = serde_json::to_string(&RecordedLoss::from(loss)).unwrap_or_default();
        line.push('\n');
        file.write_all(line.as_bytes()).map_err(RecordingError::writing(&path))
    }
}

/// Reads all losses. A last line without its end is being written, or was when the engine died: it is left out.
pub(super) fn read(dir: &Path) -> Result<Vec<RecordedLoss>, RecordingError> {
    let path = dir.join(LOSSES);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(RecordingError::reading(&path)(error)),
    };
    let whole = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or_default());
    let parse = |(index, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| RecordingError::Loss {
            path: path.clone(),
            line: index + 1,
            what: error.to_string(),
        })
    };
    whole.lines().enumerate().map(parse).collect()
}
