//! Recordings: a directory that other tools read without our code.
//!
//! ```text
//!  my-recording/
//!    recording.json             what was watched, by whom, how far it got (replaced whole, about every second)
//!    calls-000001.parquet       one segment per flush; a visible segment is always complete
//!    calls-000002.parquet
//!    .calls-000003.parquet.tmp  being written; a killed engine leaves at most this one, and readers ignore it
//!    losses.jsonl               one line for every gap in the events, absent if there was none
//! ```
//!
//! The columns are listed in [`schema`] and explained in `docs/recording.md`. [`Recorder`] writes, [`Recording`]
//! reads. Segments are written through our own page encoder ([`segment`]), because a recording has to keep up
//! with two million calls a second; they are read with the `parquet` crate.

mod background;
mod batch;
mod column;
mod delta;
mod error;
pub(crate) mod fuzzing;
mod losses;
mod manifest;
mod names;
mod pack;
mod pages;
mod reader;
mod recorder;
mod rows;
mod schema;
mod segment;
#[cfg(test)]
mod tests;

pub use error::RecordingError;
pub use losses::RecordedLoss;
pub use manifest::{Manifest, PcpuCounters, State};
pub use reader::{Calls, Recording};
pub use recorder::{Recorder, RecorderOptions};
pub use rows::RecordedCall;

pub(crate) use batch::{mode_name, outcome_name};
pub(crate) use names::{call_name, errno_name};

use std::path::{Path, PathBuf};

/// The manifest's file name.
const MANIFEST: &str = "recording.json";
/// The file of losses.
const LOSSES: &str = "losses.jsonl";

/// Where segment `number` stands once it is complete.
fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("calls-{number:06}.parquet"))
}

/// Where segment `number` is written.
fn unfinished_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!(".calls-{number:06}.parquet.tmp"))
}

/// The number in a complete segment's file name.
fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("calls-")?.strip_suffix(".parquet")?;
    let plain = digits.len() >= 6 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| plain)
}

/// The complete segments of a directory, by number.
fn list_segments(dir: &Path) -> Result<Vec<(u64, PathBuf)>, RecordingError> {
    let read = |source| RecordingError::Read { path: dir.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(read)? {
        let entry = entry.map_err(read)?;
        if let Some(number) = entry.file_name().to_str().and_then(segment_number) {
            found.push((number, entry.path()));
        }
    }
    found.sort_unstable_by_key(|(number, _)| *number);
    Ok(found)
}
