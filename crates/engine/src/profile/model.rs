//! The profile's file: JSON, described in `docs/profile.md`.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{CallerKind, Operation};

/// Name of the format.
const FORMAT: &str = "hypovisor-profile";
/// Version of the format.
const VERSION: u32 = 1;
/// A profile of more bytes is none: half a million sequences fit.
const MAX_BYTES: u64 = 64 << 20;

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is too large.
    #[error("{path} is larger than {MAX_BYTES} bytes: that is no profile")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is no profile.
    #[error("{path}: {what}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, where.
        what: String,
    },
}

/// What was learned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// `hypovisor-profile`.
    pub format: String,
    /// Version of the format.
    pub version: u32,
    /// Version of the Hypovisor that learned it.
    pub hypovisor_version: String,
    /// Recordings learned from.
    pub recordings: u32,
    /// How far a domain may go beyond what was learned.
    #[serde(default)]
    pub tolerance: Tolerance,
    /// What domains of each kind did.
    pub kinds: BTreeMap<CallerKind, KindProfile>,
}

/// How far a domain may go beyond what was learned, and how often it is told.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tolerance {
    /// So many times the learned maximum of calls within a second are no deviation.
    pub rate_factor: f64,
    /// Nor are so many calls within a second, whatever was learned.
    pub rate_floor: u64,
    /// A deviation of a domain is told once in so many seconds.
    pub quiet_seconds: u64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { rate_factor: 2.0, rate_floor: 100, quiet_seconds: 60 }
    }
}

/// What domains of one kind did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KindProfile {
    /// How many domains of this kind were seen, over all recordings.
    pub domains: u64,
    /// Calls that they made.
    pub calls: u64,
    /// There was more than is kept: calls that are not listed may have been made.
    #[serde(default)]
    pub cut: bool,
    /// Calls and sub-ops by name (`memory_op/XENMEM_exchange`).
    pub operations: BTreeMap<String, OperationProfile>,
    /// What followed upon what on a vCPU: first call, second call, all that came third.
    pub sequences: BTreeMap<String, BTreeMap<String, Vec<String>>>,
}

/// What is known of one call or sub-op.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperationProfile {
    /// How often it was made.
    pub calls: u64,
    /// The most that one domain made within a second.
    pub max_per_second: u64,
    /// The 99th percentile of that, over the seconds in which a domain made any.
    pub p99_per_second: u64,
    /// How it failed: errno and how often.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failures: BTreeMap<String, u64>,
}

impl Profile {
    /// An empty profile.
    #[must_use]
    pub fn new(recordings: u32) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            hypovisor_version: env!("CARGO_PKG_VERSION").to_owned(),
            recordings,
            ..Self::default()
        }
    }

    /// Reads a profile.
    ///
    /// # Errors
    /// [`ProfileError`].
    pub fn load(path: &Path) -> Result<Self, ProfileError> {
        let failed = |source| ProfileError::File { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(ProfileError::TooLarge { path: path.to_owned() });
        }
        Self::from_bytes(&bytes).map_err(|what| ProfileError::Malformed { path: path.to_owned(), what })
    }

    /// Reads a profile from memory.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let profile: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        profile.check()?;
        Ok(profile)
    }

    fn check(&self) -> Result<(), String> {
        if self.format != FORMAT || self.version != VERSION {
            return Err(format!(
                "its format is {:?} version {}, not {FORMAT} version {VERSION}",
                self.format, self.version
            ));
        }
        let Tolerance { rate_factor, .. } = self.tolerance;
        if !(rate_factor.is_finite() && rate_factor >= 0.0) {
            return Err(format!("tolerance.rate_factor is {rate_factor}"));
        }
        self.kinds.iter().try_for_each(|(kind, learned)| {
            learned.check().map_err(|what| format!("kinds.{}: {what}", kind.name()))
        })
    }

    /// Writes it, readable.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), ProfileError> {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        std::fs::write(path, text).map_err(|source| ProfileError::File { path: path.to_owned(), source })
    }
}

impl KindProfile {
    fn check(&self) -> Result<(), String> {
        let unknown = |name: &&String| Operation::parse(name).is_none();
        if let Some(name) = self.operations.keys().find(unknown) {
            return Err(format!("operations: no call is named {name:?}"));
        }
        let unlisted = |name: &&String| !self.operations.contains_key(name.as_str());
        let names = self.sequences.iter().flat_map(|(first, then)| {
            let then = then.iter().flat_map(|(second, third)| std::iter::once(second).chain(third));
            std::iter::once(first).chain(then)
        });
        match names.into_iter().find(unlisted) {
            Some(name) => Err(format!("sequences: {name:?} is not among the operations")),
            None => Ok(()),
        }
    }
}
