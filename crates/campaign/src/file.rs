//! Campaign files.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use hypovisor_abi::{Width, errno};
use serde::Deserialize;

use crate::call::CallSpec;
use crate::encode::{EncodeError, Plan};
use crate::value::{Context, Saved};
use crate::xml;

mod yaml;

/// The most bytes of a campaign file.
const MAX_FILE_BYTES: u64 = 256 * 1024;
/// The most steps of a campaign.
pub(crate) const MAX_STEPS: usize = 256;
/// The most repetitions of a step.
pub(crate) const MAX_REPEAT: u64 = 10_000_000;
/// The most files that are read from a directory.
const MAX_FILES: usize = 4096;

/// Why a campaign cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CampaignError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is larger than any campaign.
    #[error("{0}: larger than {MAX_FILE_BYTES} bytes")]
    TooLarge(PathBuf),
    /// It is no campaign.
    #[error("{path}: {message}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column if it is known.
        message: String,
    },
    /// One of its steps is not right.
    #[error("{path}: steps[{step}]: {message}")]
    Step {
        /// The file.
        path: PathBuf,
        /// Which, 0-based.
        step: usize,
        /// What is wrong.
        message: String,
    },
}

/// What a campaign is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Its rules have to alert.
    #[default]
    Attack,
    /// No rule may alert: a look-alike.
    Benign,
}

/// The kind of domain that a campaign is made in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// The control domain.
    Dom0,
    /// A paravirtualised guest.
    Pv,
    /// A guest without a device model.
    Pvh,
    /// A guest with a device model.
    Hvm,
    /// Any guest.
    #[default]
    Any,
}

/// How fast a step's repetitions follow one another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Calls per second.
    pub per_second: f64,
}

/// What a call should return.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Expectation {
    /// Anything.
    #[default]
    Anything,
    /// This value.
    Result(i64),
    /// One of these errnos (positive).
    Errno(Vec<i64>),
}

impl Expectation {
    /// What is wrong with this result, if anything.
    #[must_use]
    pub fn mismatch(&self, result: i64) -> Option<String> {
        let shown = |errno: &i64| errno::name(*errno).map_or_else(|| errno.to_string(), str::to_owned);
        match self {
            Self::Anything => None,
            Self::Result(wanted) if *wanted == result => None,
            Self::Errno(errnos) if errnos.contains(&-result) => None,
            Self::Result(wanted) => Some(format!("{wanted} was expected, not {result}")),
            Self::Errno(errnos) => {
                let names: Vec<String> = errnos.iter().map(shown).collect();
                let got = if errno::is_error(result) { shown(&-result) } else { result.to_string() };
                Some(format!("{} was expected, not {got}", names.join(" or ")))
            }
        }
    }
}

/// One step: a call, made once or more often.
#[derive(Clone, Debug)]
pub struct Step {
    /// The call.
    pub call: CallSpec,
    /// How often it is made.
    pub repeat: u64,
    /// How fast; as fast as it goes if `None`.
    pub rate: Option<Rate>,
    /// What it should return.
    pub expect: Expectation,
    /// Names for what L1 wrote: name and path.
    pub save: Vec<(String, String)>,
    /// Whether it is made although it cannot be undone.
    pub force: bool,
}

impl Step {
    /// The call of one repetition.
    ///
    /// # Errors
    /// [`EncodeError`], which names the argument.
    pub fn plan(&self, width: Width, seed: u64, repetition: u64, saved: &Saved) -> Result<Plan, EncodeError> {
        self.call.encode(width, &Context { repetition, seed, saved: saved.clone() })
    }
}

/// A sequence of calls with a purpose.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// Its id, unique in a directory.
    pub id: String,
    /// Its title.
    pub title: String,
    /// What it is for.
    pub kind: Kind,
    /// The rules that have to alert.
    pub rules: Vec<String>,
    /// Where it is made.
    pub target: Target,
    /// A, B or generic, as attacks are classed.
    pub class: String,
    /// Why it does no harm.
    pub safe: String,
    /// Where random numbers begin.
    pub seed: u64,
    /// The calls.
    pub steps: Vec<Step>,
}

impl Campaign {
    /// Reads a campaign: YAML, or hInjector's XML if the name ends in `.xml`.
    ///
    /// # Errors
    /// [`CampaignError`], which names the file and the place.
    pub fn load(path: &Path) -> Result<Self, CampaignError> {
        let read = |source| CampaignError::Read { path: path.to_owned(), source };
        let mut text = String::new();
        let file = std::fs::File::open(path).map_err(read)?;
        // Not by the file's size: what is no regular file has none.
        file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(read)?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(CampaignError::TooLarge(path.to_owned()));
        }
        Self::from_text(path, &text)
    }

    /// As [`Campaign::load`], from what the file holds.
    ///
    /// # Errors
    /// As there.
    pub fn from_text(path: &Path, text: &str) -> Result<Self, CampaignError> {
        if path.extension().is_some_and(|extension| extension == "xml") {
            return xml::parse(path, text);
        }
        yaml::parse(path, text)
    }

    /// All campaigns of a directory and those below it, or the one in a file, by id.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load_all(path: &Path) -> Result<Vec<Self>, CampaignError> {
        let mut files = Vec::new();
        collect(path, &mut files, 0)?;
        files.sort();
        files.truncate(MAX_FILES);
        files.iter().map(|file| Self::load(file)).collect()
    }
}

fn collect(path: &Path, files: &mut Vec<PathBuf>, depth: usize) -> Result<(), CampaignError> {
    const DEEPEST: usize = 4;
    let read = |source| CampaignError::Read { path: path.to_owned(), source };
    if !std::fs::metadata(path).map_err(read)?.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in std::fs::read_dir(path).map_err(read)? {
        let entry = entry.map_err(read)?.path();
        let wanted = entry.extension().is_some_and(|extension| extension == "yaml" || extension == "xml");
        if wanted || (entry.is_dir() && depth < DEEPEST) {
            collect(&entry, files, depth + 1)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
