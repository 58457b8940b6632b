//! What a policy says.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::profile::CallerKind;

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no policy.
    #[error("{path}:{line}: {what}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        what: String,
    },
    /// It names a domain that is not known.
    #[error("the policy names domain {name:?}, and no domain of that name is known")]
    UnknownDomain {
        /// The name.
        name: String,
    },
    /// What it says cannot be made into rules.
    #[error("the policy does not make rules: {0}")]
    Rules(String),
}

/// Which domains an entry is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Matcher {
    /// All of this kind, unless another entry names them.
    Kind(CallerKind),
    /// The one of this name.
    Name(String),
}

/// What a policy allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Recordings that it was made from.
    pub recordings: u32,
    /// The entries. A domain that none is for is left alone.
    pub entries: Vec<Entry>,
}

/// What some domains may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which domains.
    pub matcher: Matcher,
    /// How many domains it was made from; 0 if it was read from a file.
    pub domains: u64,
    /// How many of their calls; 0 if it was read from a file.
    pub calls: u64,
    /// What they may call: `memory_op/XENMEM_exchange`, or `memory_op` for all of it.
    pub allowed: BTreeMap<String, Limits>,
}

/// How one call may be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// How often it was made; 0 if it was read from a file.
    pub calls: u64,
    /// The largest numbers, sizes and orders, by the argument's path.
    pub max: BTreeMap<String, u64>,
    /// The flags, by the argument's path.
    pub flags: BTreeMap<String, Vec<String>>,
}
