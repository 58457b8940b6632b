//! Campaign files.

use std::path::{Path, PathBuf};

use hypovisor_abi::{Width, errno};
use serde::Deserialize;
use serde_json::Value;

use crate::call::{CallError, CallSpec};
use crate::encode::{EncodeError, Plan};
use crate::value::{Context, Saved};
use crate::xml;

/// The most bytes of a campaign file.
const MAX_FILE_BYTES: u64 = 256 * 1024;
/// The most steps of a campaign.
const MAX_STEPS: usize = 256;
/// The most repetitions of a step.
const MAX_REPEAT: u64 = 10_000_000;
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CampaignFile {
    id: String,
    title: String,
    #[serde(default)]
    kind: Kind,
    #[serde(default)]
    rules: Vec<String>,
    #[serde(default)]
    target: Target,
    #[serde(default)]
    class: String,
    safe: String,
    #[serde(default = "one")]
    seed: u64,
    steps: Vec<StepFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StepFile {
    call: Option<Value>,
    #[serde(default)]
    args: Value,
    multicall: Option<Vec<InnerFile>>,
    #[serde(default = "one")]
    repeat: u64,
    rate: Option<String>,
    #[serde(default)]
    expect: Option<ExpectFile>,
    #[serde(default)]
    save: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    force: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InnerFile {
    call: Value,
    #[serde(default)]
    args: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectFile {
    result: Option<i64>,
    errno: Option<Value>,
}

const fn one() -> u64 {
    1
}

impl Campaign {
    /// Reads a campaign: YAML, or hInjector's XML if the name ends in `.xml`.
    ///
    /// # Errors
    /// [`CampaignError`], which names the file and the place.
    pub fn load(path: &Path) -> Result<Self, CampaignError> {
        let read = |source| CampaignError::Read { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(read)?.len() > MAX_FILE_BYTES {
            return Err(CampaignError::TooLarge(path.to_owned()));
        }
        let text = std::fs::read_to_string(path).map_err(read)?;
        Self::from_text(path, &text)
    }

    /// As [`Campaign::load`], from what the file holds.
    ///
    /// # Errors
    /// As there.
    pub fn from_text(path: &Path, text: &str) -> Result<Self, CampaignError> {
        let malformed = |message: String| CampaignError::Malformed { path: path.to_owned(), message };
        if path.extension().is_some_and(|extension| extension == "xml") {
            return xml::parse(path, text);
        }
        let file: CampaignFile =
            serde_saphyr::from_str(text).map_err(|error| malformed(first_line(&error.to_string())))?;
        if file.steps.is_empty() || file.steps.len() > MAX_STEPS {
            return Err(malformed(format!("steps: between 1 and {MAX_STEPS} are wanted")));
        }
        let steps = file.steps.iter().enumerate().map(|(index, step)| {
            step.check().map_err(|message| CampaignError::Step {
                path: path.to_owned(),
                step: index,
                message,
            })
        });
        Ok(Self {
            steps: steps.collect::<Result<_, _>>()?,
            id: file.id,
            title: file.title,
            kind: file.kind,
            rules: file.rules,
            target: file.target,
            class: file.class,
            safe: file.safe,
            seed: file.seed,
        })
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

impl StepFile {
    fn check(&self) -> Result<Step, String> {
        let call = match (&self.call, &self.multicall) {
            (Some(call), None) => spec(call, &self.args)?,
            (None, Some(inner)) if !inner.is_empty() => CallSpec::multicall(
                inner.iter().map(|one| spec(&one.call, &one.args)).collect::<Result<_, _>>()?,
            ),
            _ => return Err("either `call` or `multicall` is wanted".to_owned()),
        };
        if self.repeat == 0 || self.repeat > MAX_REPEAT {
            return Err(format!("repeat: between 1 and {MAX_REPEAT} is wanted"));
        }
        Ok(Step {
            call,
            repeat: self.repeat,
            rate: self.rate.as_deref().map(rate).transpose()?,
            expect: self.expect.as_ref().map_or(Ok(Expectation::Anything), ExpectFile::check)?,
            save: self.save.iter().map(|(name, path)| (name.clone(), path.clone())).collect(),
            force: self.force,
        })
    }
}

fn spec(call: &Value, args: &Value) -> Result<CallSpec, String> {
    let name = match call {
        Value::String(name) => name.clone(),
        Value::Number(number) => number.to_string(),
        _ => return Err("call: a name or a number is wanted".to_owned()),
    };
    CallSpec::named(&name, args.clone()).map_err(|error: CallError| format!("call: {error}"))
}

/// `100/s`, `10/m`.
pub(crate) fn rate(text: &str) -> Result<Rate, String> {
    let bad = || format!("rate: `{text}` is not like `100/s` or `10/m`");
    let (count, unit) = text.split_once('/').ok_or_else(bad)?;
    let count: f64 = count.trim().parse().map_err(|_| bad())?;
    let seconds = match unit.trim() {
        "s" => 1.0,
        "m" => 60.0,
        _ => return Err(bad()),
    };
    if count.is_finite() && count > 0.0 { Ok(Rate { per_second: count / seconds }) } else { Err(bad()) }
}

impl ExpectFile {
    fn check(&self) -> Result<Expectation, String> {
        match (self.result, &self.errno) {
            (Some(result), None) => Ok(Expectation::Result(result)),
            (None, Some(Value::Array(names))) => {
                Ok(Expectation::Errno(names.iter().map(errno_of).collect::<Result<_, _>>()?))
            }
            (None, Some(name)) => Ok(Expectation::Errno(vec![errno_of(name)?])),
            _ => Err("expect: either `result` or `errno` is wanted".to_owned()),
        }
    }
}

fn errno_of(value: &Value) -> Result<i64, String> {
    const LAST: i64 = 4095;
    let name = value.as_str().ok_or("expect.errno: a name is wanted")?;
    let found = (1..=LAST).find(|number| errno::name(*number) == Some(name));
    found.ok_or_else(|| format!("expect.errno: Xen has no errno `{name}`"))
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or("no campaign").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "id: a\ntitle: t\nkind: benign\ntarget: pv\nsafe: it is\nsteps:\n  - call: xen_version/XENVER_version\n    repeat: 3\n    rate: 10/s\n    expect: {errno: [EPERM, EFAULT]}\n";

    fn load(text: &str) -> Result<Campaign, CampaignError> {
        Campaign::from_text(Path::new("a.yaml"), text)
    }

    #[test]
    fn a_campaign_is_read() {
        let campaign = load(GOOD).unwrap();
        let step = &campaign.steps[0];
        assert_eq!((campaign.kind, campaign.target, step.repeat), (Kind::Benign, Target::Pv, 3));
        assert_eq!(step.rate, Some(Rate { per_second: 10.0 }));
        assert_eq!(step.expect.mismatch(-14), None);
        assert_eq!(step.expect.mismatch(0).unwrap(), "EPERM or EFAULT was expected, not 0");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let error = |from: &str, to: &str| load(&GOOD.replace(from, to)).unwrap_err().to_string();
        assert!(
            error("XENVER_version", "XENVER_vresion")
                .starts_with("a.yaml: steps[0]: call: xen_version has no")
        );
        assert!(error("EPERM", "ENONE").contains("Xen has no errno `ENONE`"));
        assert!(error("10/s", "fast").contains("`fast` is not like"));
        assert!(error("repeat: 3", "repeat: 0").contains("repeat"));
        let unknown = error("kind: benign", "kidn: benign");
        assert!(unknown.contains("kidn"), "{unknown}");
        assert!(error("id: a", "id: [").starts_with("a.yaml: "));
    }

    proptest! {
        #[test]
        fn any_text_is_a_campaign_or_an_error(text in ".{0,300}") {
            let _ = load(&text);
            let _ = Campaign::from_text(Path::new("a.xml"), &text);
        }
    }
}
