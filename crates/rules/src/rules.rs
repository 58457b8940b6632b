//! A set of rules, loaded and compiled: what the engine asks of it, and what of it goes to the sensor.

use std::path::{Path, PathBuf};

use hypovisor_verdict::{MAX_RULES, RuleIndex, RuleSet, SetBuilder, Watch};

use crate::problem::{Problem, Problems, RulesError};
use crate::rule::Rule;

mod compiler;
mod files;

use self::compiler::Compiler;
use self::files::{of_file, read_all};

/// The largest rule file in bytes.
pub const MAX_FILE_BYTES: u64 = 64 * 1024;
/// The largest compiled set that a sensor takes, in bytes.
pub const MAX_SENSOR_BYTES: usize = 1 << 20;

/// What the sensor does with calls that rules block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Enforce {
    /// Nothing: it only records.
    #[default]
    Observe,
    /// It says what it would have done.
    WouldDeny,
    /// It blocks them.
    Deny,
}

/// Rules cannot go to a sensor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForSensorError {
    /// They are too many or too large.
    #[error("the rules that block take {bytes} bytes compiled, more than {MAX_SENSOR_BYTES}")]
    TooLarge {
        /// How many bytes.
        bytes: usize,
    },
    /// A bug in the compiler: a set that its own check refuses.
    #[error("the compiled rules are not sound: {0}")]
    Malformed(#[from] hypovisor_verdict::MalformedRules),
}

/// A set of rules, in the order of their files' names.
#[derive(Clone, Debug)]
pub struct Rules {
    rules: Vec<Rule>,
    builder: SetBuilder,
    compiled: RuleSet,
    fingerprint: String,
}

impl Rules {
    /// Loads a file, or all `*.yaml` and `*.yml` files below a directory.
    ///
    /// # Errors
    /// All that is wrong with the files.
    pub fn load(path: &Path) -> Result<Self, RulesError> {
        Self::load_with([path], Vec::new())
    }

    /// Loads files and directories as [`Rules::load`] does, and rules that are at hand as text, into one set.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn load_with<'p>(
        paths: impl IntoIterator<Item = &'p Path>,
        texts: Vec<(PathBuf, String)>,
    ) -> Result<Self, RulesError> {
        let (mut sources, mut problems) = (Vec::new(), Vec::new());
        for path in paths {
            read_all(path, &mut sources, &mut problems);
        }
        sources.extend(texts);
        Self::compile(sources, problems)
    }

    /// Makes a set of rules that are at hand as text, each with the name to report it by.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn from_texts(sources: Vec<(PathBuf, String)>) -> Result<Self, RulesError> {
        Self::compile(sources, Vec::new())
    }

    fn compile(sources: Vec<(PathBuf, String)>, mut problems: Vec<Problem>) -> Result<Self, RulesError> {
        let mut compiler = Compiler::default();
        for (file, text) in &sources {
            let mut found = Problems::new(file);
            compiler.file(file, text, &mut found);
            problems.extend(found.found);
        }
        if compiler.rules.len() > MAX_RULES {
            let message = format!("{} rules, more than {MAX_RULES}", compiler.rules.len());
            problems.push(of_file(Path::new("."), message));
        }
        let fingerprint = fingerprint(&sources);
        let (rules, builder) = (compiler.rules, compiler.assembler.set);
        if problems.is_empty() {
            match builder.clone().build() {
                Ok(compiled) => return Ok(Self { rules, builder, compiled, fingerprint }),
                Err(error) => problems.push(of_file(Path::new("."), error.to_string())),
            }
        }
        problems.sort();
        Err(RulesError { problems })
    }

    /// The rules in order: the first has index 0.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rule at this index.
    #[must_use]
    pub fn get(&self, index: RuleIndex) -> Option<&Rule> {
        self.rules.get(usize::from(index.0))
    }

    /// The index of the rule with this id.
    #[must_use]
    pub fn index_of(&self, id: &str) -> Option<RuleIndex> {
        let index = self.rules.iter().position(|rule| rule.id == id)?;
        u16::try_from(index).ok().map(RuleIndex)
    }

    /// All conditions, for the engine.
    #[must_use]
    pub const fn compiled(&self) -> &RuleSet {
        &self.compiled
    }

    /// The conditions of the rules that block, for the sensor; rules keep their index. With [`Enforce::Observe`]
    /// there are none.
    ///
    /// # Errors
    /// The set is too large for a sensor.
    pub fn for_sensor(&self, enforce: Enforce) -> Result<RuleSet, ForSensorError> {
        let blocks = |watch: &Watch| {
            let action = self.builder.actions.get(usize::from(watch.part.rule.0));
            enforce != Enforce::Observe && action.is_some_and(|action| action.blocks()) && !watch.part.counts
        };
        let watches: Vec<Watch> =
            self.builder.watches.iter().filter(|watch| blocks(watch)).copied().collect();
        let set = if watches.is_empty() {
            SetBuilder { actions: self.builder.actions.clone(), ..SetBuilder::default() }
        } else {
            SetBuilder { watches, ..self.builder.clone() }
        };
        let set = set.build()?;
        let bytes = set.to_bytes().len();
        if bytes > MAX_SENSOR_BYTES { Err(ForSensorError::TooLarge { bytes }) } else { Ok(set) }
    }

    /// Changes when any rule does: 16 hexadecimal digits. It tells sets apart; it is no protection against forgery.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

/// FNV-1a over names and texts.
fn fingerprint(sources: &[(PathBuf, String)]) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for (file, text) in sources {
        let name = file.file_name().map_or(&[][..], |name| name.as_encoded_bytes());
        for byte in name.iter().chain(&[0]).chain(text.as_bytes()).chain(&[0]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
    format!("{hash:016x}")
}
