//! Where alerts go, and in which form.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::model::Report;
use super::{ocsf, syslog};

/// Why an alert cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum AlertError {
    /// The file of alerts cannot be opened.
    #[error("cannot write alerts to {path}: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It cannot be written to.
    #[error("cannot write an alert: {0}")]
    Write(#[from] std::io::Error),
}

/// The form of an alert.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AlertFormat {
    /// JSON lines, as `docs/alerts.md` describes them.
    #[default]
    Json,
    /// JSON lines: Detection Findings of the Open Cybersecurity Schema Framework.
    Ocsf,
    /// Lines of syslog (RFC 5424).
    Syslog,
}

impl AlertFormat {
    /// Appends a report as one line, without its end.
    pub fn write_line(self, out: &mut String, report: &Report) {
        match (self, report) {
            (Self::Json, Report::Alert(alert)) => {
                out.push_str(&serde_json::to_string(alert).unwrap_or_default())
            }
            (Self::Json, Report::Storm(storm)) => {
                out.push_str(&serde_json::to_string(storm).unwrap_or_default())
            }
            (Self::Json, Report::RuleOff(off)) => {
                out.push_str(&serde_json::to_string(off).unwrap_or_default())
            }
            (Self::Json, Report::Integrity(alert)) => {
                out.push_str(&serde_json::to_string(alert).unwrap_or_default())
            }
            (Self::Ocsf, report) => ocsf::write_line(out, report),
            (Self::Syslog, report) => syslog::write_line(out, report),
        }
    }
}

/// Takes alerts, one by one, as they are raised.
pub trait AlertOutput {
    /// Tells one. It has left the engine when this returns.
    ///
    /// # Errors
    /// When it cannot; the session ends then.
    fn report(&mut self, report: &Report) -> Result<(), AlertError>;
}

impl<O: AlertOutput + ?Sized> AlertOutput for Box<O> {
    fn report(&mut self, report: &Report) -> Result<(), AlertError> {
        (**self).report(report)
    }
}

/// Collects, for tests and for looking at a recording.
impl AlertOutput for Vec<Report> {
    fn report(&mut self, report: &Report) -> Result<(), AlertError> {
        self.push(report.clone());
        Ok(())
    }
}

/// Writes each alert as a line and flushes it.
#[derive(Debug)]
pub struct AlertWriter<W> {
    out: W,
    format: AlertFormat,
    line: String,
}

impl<W: Write> AlertWriter<W> {
    /// Writes to `out`.
    pub const fn new(out: W, format: AlertFormat) -> Self {
        Self { out, format, line: String::new() }
    }

    /// What was written to.
    pub fn into_inner(self) -> W {
        self.out
    }
}

impl AlertWriter<std::fs::File> {
    /// Appends to the file at `path`, which is made if it is not there.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn append(path: &Path, format: AlertFormat) -> Result<Self, AlertError> {
        let opened = OpenOptions::new().create(true).append(true).open(path);
        let file = opened.map_err(|source| AlertError::Open { path: path.to_owned(), source })?;
        Ok(Self::new(file, format))
    }
}

impl<W: Write> AlertOutput for AlertWriter<W> {
    fn report(&mut self, report: &Report) -> Result<(), AlertError> {
        self.line.clear();
        self.format.write_line(&mut self.line, report);
        self.line.push('\n');
        // In one piece: who follows the file sees no half a line.
        self.out.write_all(self.line.as_bytes())?;
        self.out.flush()?;
        Ok(())
    }
}
