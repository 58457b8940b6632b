//! The form of a rule file, once: the loader takes its keys from here, and so do the JSON schema and `docs/rules.md`.
//!
//! The types are never filled in. The loader reads nodes that know their places, which a deserialiser would lose.

#![expect(dead_code, reason = "only the schema of these types is used")]

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, schema_for};
use serde_json::Value;

/// A detection rule of Hypovisor. One file holds one rule.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Rule")]
struct RuleFile {
    /// Names the rule; unique in the set. Letters, digits, `.`, `_` and `-`.
    #[schemars(regex(pattern = r"^[A-Za-z0-9._-]{1,64}$"))]
    id: String,
    /// One line that says what was seen, for alerts.
    title: String,
    /// What the attack does, and how this rule sees it.
    description: String,
    /// What this rule cannot see.
    blind_spots: String,
    /// Advisories, CVEs, commits.
    references: Option<Vec<String>>,
    /// How bad it is if what the rule sees is an attack.
    severity: Severity,
    /// Words to select rules by.
    tags: Option<Vec<String>>,
    /// The calls that the rule concerns: `hypercall`, `hypercall/sub-op`, with numbers in place of names if need be,
    /// or `'*'` for every call.
    on: Option<OneOrMore>,
    /// Named sub-expressions in CEL, for `when`, for exceptions and for those further down.
    #[schemars(rename = "let")]
    lets: Option<BTreeMap<String, Condition>>,
    /// The condition in CEL. Left out: always true.
    when: Option<Condition>,
    /// The rule matches when the condition has held so often for one domain; then not again in that window.
    rate: Option<Rate>,
    /// The rule matches when one domain has done all steps in order. In place of `on` and `when`.
    sequence: Option<Sequence>,
    /// What to do with a call that matches. Left out: `alert`.
    action: Option<Action>,
    /// With `deny`: the error that the guest gets, by name. Left out: `EPERM`.
    errno: Option<String>,
    /// Where the rule does not apply.
    exceptions: Option<Vec<Exception>>,
}

/// A truth value in CEL, or `true`.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Condition {
    Text(String),
    Always(bool),
}

/// One or a list.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum OneOrMore {
    One(Call),
    More(Vec<Call>),
}

/// A hypercall by name, or by number.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Call {
    Name(String),
    Number(u8),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum Severity {
    Informational,
    Low,
    Medium,
    High,
    Critical,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase")]
enum Action {
    Alert,
    Deny,
    Pause,
}

/// So many matches within a window; one of `within` and `within_calls`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Rate {
    /// How many matches of one domain.
    #[schemars(range(min = 2, max = 1_000_000))]
    count: u32,
    /// The window, in the events' own time: `250ms`, `10s`, `5m`.
    #[schemars(regex(pattern = r"^[0-9]+(ms|s|m|h)$"))]
    within: Option<String>,
    /// The window, in calls of the domain.
    within_calls: Option<u32>,
}

/// Steps in order within a window; one of `within` and `within_calls`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Sequence {
    /// From the first step to the last, in the events' own time: `250ms`, `10s`, `5m`.
    #[schemars(regex(pattern = r"^[0-9]+(ms|s|m|h)$"))]
    within: Option<String>,
    /// From the first step to the last, in calls of the domain.
    within_calls: Option<u32>,
    /// The steps.
    #[schemars(length(min = 2, max = 8))]
    steps: Vec<Step>,
}

/// One step of a sequence.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Step {
    /// The calls, as at the top.
    on: OneOrMore,
    /// The condition, as at the top.
    when: Option<Condition>,
}

/// Where a rule does not apply.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Exception {
    /// Calls for which this holds are no match. If it cannot be decided, the rule applies.
    when: Condition,
    /// Why.
    reason: String,
}

/// The JSON schema of a rule file.
pub(crate) fn schema() -> Schema {
    schema_for!(RuleFile)
}

/// Keys of a map: name, whether it has to be there, meaning.
pub(crate) struct Keys(pub(crate) Vec<(String, bool, String)>);

impl Keys {
    /// Of a whole file.
    pub(crate) fn of_file() -> Self {
        Self::of(schema().as_value())
    }

    /// Of a part of it, by the name of its type.
    pub(crate) fn of_part(name: &str) -> Self {
        Self::of(&schema().as_value()["$defs"][name])
    }

    fn of(object: &Value) -> Self {
        let required: Vec<&str> =
            object["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let keys = object["properties"].as_object().into_iter().flatten().map(|(name, property)| {
            let meaning = property["description"].as_str().unwrap_or_default().replace('\n', " ");
            (name.clone(), required.contains(&name.as_str()), meaning)
        });
        Self(keys.collect())
    }
}
