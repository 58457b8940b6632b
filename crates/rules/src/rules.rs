//! A directory of rules, loaded and compiled.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use hypovisor_abi::Width;
use hypovisor_abi::xen::XEN;
use hypovisor_verdict::{
    Action, MAX_RULES, MAX_WATCHES, Moment, Part, Range, RuleIndex, RuleSet, SetBuilder, Watch,
};

use crate::compile::{Assembler, Guard, Lowered, Scope, lower};
use crate::file::{self, Draft};
use crate::problem::{Place, Problem, Problems, RulesError};
use crate::rule::{Rule, Target};
use crate::yaml;

/// The largest rule file in bytes.
pub const MAX_FILE_BYTES: u64 = 64 * 1024;
/// The largest compiled set that a sensor takes, in bytes.
pub const MAX_SENSOR_BYTES: usize = 1 << 20;
/// The deepest nesting of directories.
const MAX_DIRECTORY_DEPTH: usize = 8;
/// The number of `iret`: it never returns to its caller, so it cannot be given an error.
const IRET: u16 = 23;

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

/// Reads the rule files at or below `path`.
fn read_all(path: &Path, sources: &mut Vec<(PathBuf, String)>, problems: &mut Vec<Problem>) {
    let mut files = Vec::new();
    let before = problems.len();
    find(path, 0, &mut files, problems);
    files.sort();
    if files.is_empty() && problems.len() == before {
        problems.push(of_file(path, "there is no rule file (*.yaml) here".into()));
    }
    for file in files {
        match read(&file) {
            Ok(text) => sources.push((file, text)),
            Err(message) => problems.push(of_file(&file, message)),
        }
    }
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

fn of_file(file: &Path, message: String) -> Problem {
    Problem { file: file.to_owned(), line: 0, column: 0, field: String::new(), message }
}

/// Rule files at or below `path`.
fn find(path: &Path, depth: usize, files: &mut Vec<PathBuf>, problems: &mut Vec<Problem>) {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => return problems.push(of_file(path, format!("cannot be read: {error}"))),
    };
    if !metadata.is_dir() {
        files.push(path.to_owned());
        return;
    }
    if depth > MAX_DIRECTORY_DEPTH {
        return problems
            .push(of_file(path, format!("more than {MAX_DIRECTORY_DEPTH} levels of directories")));
    }
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => return problems.push(of_file(path, format!("cannot be read: {error}"))),
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        let yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        let directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if files.len() > MAX_RULES || hidden {
            continue;
        }
        if yaml || directory {
            find(&path, depth + 1, files, problems);
        }
    }
}

fn read(file: &Path) -> Result<String, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    let metadata = fs::metadata(file).map_err(cannot)?;
    if !metadata.is_file() {
        return Err("is no file".into());
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(format!("has {} bytes, more than {MAX_FILE_BYTES}", metadata.len()));
    }
    let bytes = fs::read(file).map_err(cannot)?;
    String::from_utf8(bytes).map_err(|error| format!("is no UTF-8 text: {error}"))
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

#[derive(Default)]
struct Compiler {
    rules: Vec<Rule>,
    ids: HashMap<String, PathBuf>,
    assembler: Assembler,
}

impl Compiler {
    fn file(&mut self, path: &Path, text: &str, problems: &mut Problems<'_>) {
        if text.len() as u64 > MAX_FILE_BYTES {
            return problems.add(
                Place::default(),
                "",
                format!("has {} bytes, more than {MAX_FILE_BYTES}", text.len()),
            );
        }
        let root = match yaml::parse(text) {
            Ok(root) => root,
            Err(error) => return problems.add(error.at, "", error.message),
        };
        let Some(mut draft) = file::read(path, &root, problems) else { return };
        if let Some(other) = self.ids.get(&draft.rule.id).filter(|_| !draft.rule.id.is_empty()) {
            let message = format!("`{}` is also the id of {}", draft.rule.id, other.display());
            problems.add(draft.places.get("id").copied().unwrap_or_default(), "id", message);
        }
        self.ids.insert(draft.rule.id.clone(), path.to_owned());
        self.conditions(&mut draft, problems);
        refuse_to_block(&draft, problems);
        self.assembler.set.actions.push(draft.rule.action);
        self.rules.push(draft.rule);
    }

    /// Compiles the conditions of a rule.
    fn conditions(&mut self, draft: &mut Draft, problems: &mut Problems<'_>) {
        let counts = draft.rule.rate.is_some() || draft.rule.sequence.is_some();
        for step in 0..draft.parts.len() {
            let rule = RuleIndex(self.rules.len().min(usize::from(u16::MAX)) as u16);
            let part = Part { rule, step: step as u8, counts };
            let mut watches = Vec::new();
            let mut at_return = None;
            for (target, at) in &draft.parts[step].on {
                for call in expand(target, draft.asks_for_handles(step)) {
                    let programs = self.programs(draft, step, &call, problems);
                    let Some((programs, reason)) = programs else { continue };
                    at_return = at_return.or(reason);
                    let (number, sub_op) = (call.number, call.sub_op);
                    watches.push(Watch { part, number, sub_op, moment: Moment::Entry, programs });
                }
                if self.assembler.set.watches.len() + watches.len() > MAX_WATCHES {
                    return problems.add(*at, "on", format!("more than {MAX_WATCHES} conditions in the set"));
                }
            }
            let moment = if at_return.is_some() { Moment::Return } else { Moment::Entry };
            watches.iter_mut().for_each(|watch| watch.moment = moment);
            self.assembler.set.watches.extend(watches);
            self.note(draft, step, moment, at_return, problems);
        }
    }

    /// The programs for both widths, and what in them is known only at return.
    fn programs(
        &mut self,
        draft: &Draft,
        step: usize,
        call: &Concerned,
        problems: &mut Problems<'_>,
    ) -> Option<([Range; 2], Option<String>)> {
        let mut compiled: Vec<Lowered> = Vec::new();
        for width in [Width::Bits64, Width::Bits32] {
            let scope = scope(call, width);
            let when = draft.parts[step].when.as_ref().map(|(field, expr)| (field.as_str(), expr));
            let lets = &draft.lets;
            match lower(&mut self.assembler, &scope, call.guard, lets, when, &draft.exceptions) {
                Ok(lowered) => compiled.push(lowered),
                Err(misuses) => {
                    for misuse in misuses {
                        problems.add(draft.place(&misuse.field, misuse.at), &misuse.field, misuse.message);
                    }
                }
            }
        }
        let [wide, narrow] = <[Lowered; 2]>::try_from(compiled).ok()?;
        Some(([wide.program, narrow.program], wide.at_return.or(narrow.at_return)))
    }

    fn note(
        &self,
        draft: &mut Draft,
        step: usize,
        moment: Moment,
        at_return: Option<String>,
        problems: &mut Problems<'_>,
    ) {
        let rule = &mut draft.rule;
        rule.moment = moment;
        if let Some(own) = rule.sequence.as_mut().and_then(|sequence| sequence.steps.get_mut(step)) {
            own.moment = moment;
        }
        if let (Some(reason), true) = (at_return, rule.action.blocks()) {
            let at = draft.places.get("when").copied().unwrap_or_default();
            let message = format!(
                "uses {reason}, which is known only when the call has returned: too late to block it"
            );
            problems.add(at, "when", message);
        }
    }
}

/// Calls that a condition is compiled for.
struct Concerned {
    number: Option<u16>,
    sub_op: Option<u64>,
    /// Of them only those that no other one covers.
    guard: Guard,
}

/// What a target stands for: itself. If the condition asks for handles, which only the tables of each call and sub-op
/// know, all of these, and the rest.
fn expand(target: &Target, every_table: bool) -> Vec<Concerned> {
    let (number, sub_op) = (target.number, target.sub_op);
    let itself = |guard| Concerned { number, sub_op, guard };
    if !every_table || sub_op.is_some() {
        return vec![itself(Guard::None)];
    }
    let Some(number) = number else {
        let known = XEN.calls.iter().flatten().flat_map(|call| of_call(call.number as u16));
        return known.chain([itself(Guard::UnknownCall)]).collect();
    };
    of_call(number)
}

fn of_call(number: u16) -> Vec<Concerned> {
    let of = |sub_op, guard| Concerned { number: Some(number), sub_op, guard };
    let Some(ops) = XEN.call(u64::from(number)).and_then(|call| call.sub_ops) else {
        return vec![of(None, Guard::None)];
    };
    let known = ops.ops.iter().map(|op| of(Some(op.number), Guard::None));
    known.chain([of(None, Guard::UnknownSubOp)]).collect()
}

fn scope(concerned: &Concerned, width: Width) -> Scope {
    let call = concerned.number.and_then(|number| XEN.call(u64::from(number)));
    let sub_op = concerned.sub_op.and_then(|number| call?.sub_op(number));
    Scope { call, sub_op, sub_op_number: concerned.sub_op, width }
}

/// What a rule that blocks must not have. Of conditions at return [`Compiler::note`] complains.
fn refuse_to_block(draft: &Draft, problems: &mut Problems<'_>) {
    let name = match draft.rule.action {
        Action::Alert => return,
        Action::Deny { .. } => "deny",
        Action::Pause => "pause",
    };
    let at = |field: &str| draft.places.get(field).copied().unwrap_or_default();
    for field in ["rate", "sequence"] {
        if draft.places.contains_key(field) {
            let message = format!("counts over several calls, so the rule cannot have `action: {name}`");
            problems.add(at(field), field, message);
        }
    }
    for part in &draft.parts {
        for (target, place) in &part.on {
            if target.number.is_none() || target.number == Some(IRET) {
                let what = if target.number.is_none() { "`*` includes `iret`, which" } else { "`iret`" };
                let message =
                    format!("{what} never returns to its caller, so it cannot be blocked (`action: {name}`)");
                problems.add(*place, &part.on_field, message);
            }
        }
    }
}
