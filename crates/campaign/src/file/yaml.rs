//! Campaigns as YAML.

use std::collections::BTreeMap;
use std::path::Path;

use hypovisor_abi::errno;
use serde::Deserialize;
use serde_json::Value;

use super::{Campaign, CampaignError, Expectation, Kind, MAX_REPEAT, MAX_STEPS, Rate, Step, Target};
use crate::call::{CallError, CallSpec};

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
    save: BTreeMap<String, String>,
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

/// Reads a campaign.
pub(super) fn parse(path: &Path, text: &str) -> Result<Campaign, CampaignError> {
    let malformed = |message: String| CampaignError::Malformed { path: path.to_owned(), message };
    let file: CampaignFile =
        serde_saphyr::from_str(text).map_err(|error| malformed(first_line(&error.to_string())))?;
    if file.steps.is_empty() || file.steps.len() > MAX_STEPS {
        return Err(malformed(format!("steps: between 1 and {MAX_STEPS} are wanted")));
    }
    let steps = file.steps.iter().enumerate().map(|(index, step)| {
        step.check().map_err(|message| CampaignError::Step { path: path.to_owned(), step: index, message })
    });
    Ok(Campaign {
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
fn rate(text: &str) -> Result<Rate, String> {
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
