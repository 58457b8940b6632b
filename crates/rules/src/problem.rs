//! What is wrong with rule files, and where.

use std::fmt;
use std::path::{Path, PathBuf};

/// A place in a file; both count from 1, 0 stands for the whole file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Its line, from 1; 0 for the whole file.
    pub line: u32,
    /// The column, in characters from 1; 0 for the whole file.
    pub column: u32,
    /// The field, as in `sequence.steps[1].when`; empty for the file as a whole.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        if !self.field.is_empty() {
            write!(f, " {}:", self.field)?;
        }
        write!(f, " {}", self.message)
    }
}

/// Rules that cannot be used: all that is wrong with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulesError {
    /// Everything, by file and place. Never empty.
    pub problems: Vec<Problem>,
}

impl fmt::Display for RulesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for RulesError {}

/// The most problems that are kept of one file.
const MAX_PROBLEMS: usize = 100;

/// Collects what is wrong with one file.
pub(crate) struct Problems<'f> {
    file: &'f Path,
    pub(crate) found: Vec<Problem>,
}

impl<'f> Problems<'f> {
    pub(crate) const fn new(file: &'f Path) -> Self {
        Self { file, found: Vec::new() }
    }

    pub(crate) fn add(&mut self, at: Place, field: &str, message: impl Into<String>) {
        let problem = Problem {
            file: self.file.to_owned(),
            line: at.line,
            column: at.column,
            field: field.to_owned(),
            message: one_line(&message.into()),
        };
        if self.found.len() < MAX_PROBLEMS && !self.found.contains(&problem) {
            self.found.push(problem);
        }
    }
}

/// Without line ends and other control characters, which foreign text may have.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
