//! From alerts, workloads and campaigns to a table.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use hypovisor_campaign::{Campaign, Kind};
use hypovisor_engine::recording::Recording;
use hypovisor_rules::Rules;
use serde_json::{Value, json};

use crate::inject::campaign::Outcome;

/// A benign workload.
#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) name: String,
    pub(crate) from_ns: i64,
    pub(crate) to_ns: i64,
    /// Why it did not come to its end.
    pub(crate) problem: Option<String>,
}

impl Workload {
    pub(crate) fn begun(name: &str, now_ns: i64) -> Self {
        Self { name: name.to_owned(), from_ns: now_ns, to_ns: now_ns, problem: None }
    }

    /// It has ended, well or not, as it says itself.
    pub(crate) fn end(&mut self, outcome: &str, now_ns: i64) {
        self.to_ns = now_ns;
        self.problem = outcome.strip_prefix("failed: ").map(str::to_owned);
    }
}

/// What the call that does least takes, in ticks of the TSC: of each guest that timed it, its median and its best round.
#[derive(Debug, Default)]
pub(crate) struct Cost {
    /// Whether rules are in force for the next figures.
    pub(crate) with_rules: bool,
    with: Ticks,
    without: Ticks,
}

#[derive(Debug, Default)]
struct Ticks {
    medians: Vec<u64>,
    least: Vec<u64>,
}

impl Ticks {
    fn to_json(&self) -> Value {
        json!({ "medians": self.medians, "least": self.least })
    }
}

impl Cost {
    pub(crate) fn add(&mut self, median: u64, least: u64) {
        let ticks = if self.with_rules { &mut self.with } else { &mut self.without };
        ticks.medians.push(median);
        ticks.least.push(least);
    }

    /// Nothing if it was not measured both ways.
    fn to_json(&self) -> Value {
        let ratio = |with: &[u64], without: &[u64]| {
            median(with).zip(median(without)).map(|(with, without)| with as f64 / without.max(1) as f64)
        };
        let Some(by_median) = ratio(&self.with.medians, &self.without.medians) else { return Value::Null };
        json!({
            "null_hypercall_ticks_with_rules": self.with.to_json(),
            "null_hypercall_ticks_without_rules": self.without.to_json(),
            "ratio_of_medians": by_median,
            "ratio_of_best_rounds": ratio(&self.with.least, &self.without.least),
        })
    }
}

fn median(figures: &[u64]) -> Option<u64> {
    let mut sorted = figures.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}

/// The time in which nothing was injected.
#[derive(Debug, Default)]
pub(crate) struct Benign {
    pub(crate) from_ns: i64,
    pub(crate) to_ns: i64,
    pub(crate) workloads: Vec<Workload>,
    pub(crate) cost: Cost,
}

/// A campaign that was made.
#[derive(Debug)]
pub(crate) struct Made {
    /// Which, by its position.
    pub(crate) campaign: usize,
    pub(crate) domain: u16,
    pub(crate) from_ns: i64,
    pub(crate) to_ns: i64,
    pub(crate) outcome: Outcome,
}

/// A campaign that was not made.
#[derive(Debug)]
pub(crate) struct Skipped {
    pub(crate) campaign: String,
    pub(crate) why: &'static str,
}

/// One alert, as far as it counts.
struct Alert {
    rule: String,
    severity: String,
    domain: u16,
    time_ns: i64,
    latency_ns: Option<i64>,
    injected: bool,
}

impl Alert {
    fn from_json(value: &Value) -> Option<Self> {
        let time_ns = value["time_ns"].as_i64()?;
        Some(Self {
            rule: value["rule"]["id"].as_str()?.to_owned(),
            severity: value["rule"]["severity"].as_str()?.to_owned(),
            domain: u16::try_from(value["domain"].as_u64()?).ok()?,
            time_ns,
            latency_ns: value["reported_ns"].as_i64().map(|reported| reported - time_ns),
            injected: value["event"]["injected"] == true,
        })
    }
}

/// What came of one rule.
#[derive(Default)]
struct Counts {
    true_positives: u64,
    false_negatives: u64,
    false_positives: u64,
    true_negatives: u64,
}

impl Counts {
    fn to_json(&self) -> Value {
        json!({
            "true_positives": self.true_positives,
            "false_negatives": self.false_negatives,
            "false_positives": self.false_positives,
            "true_negatives": self.true_negatives,
        })
    }
}

/// The whole evaluation as JSON.
pub(crate) fn score(
    dir: &Path,
    rules: &Rules,
    campaigns: &[Campaign],
    benign: &Benign,
    made: &[Made],
    skipped: &[Skipped],
) -> anyhow::Result<Value> {
    let alerts = super::alerts(&dir.join("alerts.json"))?;
    let alerts: Vec<Alert> = alerts.iter().filter_map(Alert::from_json).collect();
    let manifest = Recording::open(&dir.join("recording"))?.manifest().clone();
    let results: Vec<Value> =
        made.iter().map(|one| campaign_result(&campaigns[one.campaign], one, &alerts)).collect();
    let false_alerts: Vec<&Alert> = alerts.iter().filter(|alert| !alert.injected).collect();
    let severe =
        false_alerts.iter().filter(|alert| ["high", "critical"].contains(&alert.severity.as_str())).count();
    let missed: Vec<&Value> = results.iter().filter(|result| !list(result, "missed").is_empty()).collect();
    let wrong = results
        .iter()
        .filter(|result| result["kind"] == "benign" && !list(result, "alerts").is_empty())
        .count();
    let per_million = false_alerts.len() as f64 * 1e6 / manifest.events.max(1) as f64;
    Ok(json!({
        "version": 1,
        "xen_version": manifest.xen_version,
        "qemu_plugin_api": manifest.plugin_api,
        "rules": { "count": rules.iter().count(), "fingerprint": rules.fingerprint() },
        "passed": missed.is_empty() && severe == 0 && wrong == 0 && per_million <= 1.0,
        "calls": manifest.events,
        "dropped": manifest.lost_calls(),
        "false_alerts": { "count": false_alerts.len(), "high_or_critical": severe, "per_million_calls": per_million,
            "by_rule": by_rule(&false_alerts) },
        "latency": latency(&alerts),
        "cost": benign.cost.to_json(),
        "workloads": benign.workloads.iter().map(|workload| workload_result(workload, &false_alerts)).collect::<Vec<_>>(),
        "benign_seconds": (benign.to_ns - benign.from_ns) as f64 / 1e9,
        "classes": classes(&results),
        "rule_results": rule_results(rules, campaigns, made, &results, &false_alerts),
        "campaigns": results,
        "skipped": skipped.iter().map(|one| json!({ "campaign": one.campaign, "why": one.why })).collect::<Vec<_>>(),
    }))
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn campaign_result(campaign: &Campaign, made: &Made, alerts: &[Alert]) -> Value {
    let during = |alert: &&Alert| {
        alert.injected && alert.domain == made.domain && (made.from_ns..=made.to_ns).contains(&alert.time_ns)
    };
    let fired: BTreeSet<&str> = alerts.iter().filter(during).map(|alert| alert.rule.as_str()).collect();
    let missed: Vec<&String> = campaign.rules.iter().filter(|rule| !fired.contains(rule.as_str())).collect();
    json!({
        "id": campaign.id,
        "title": campaign.title,
        "kind": if campaign.kind == Kind::Benign { "benign" } else { "attack" },
        "class": campaign.class,
        "seed": campaign.seed,
        "domain": made.domain,
        "rules": campaign.rules,
        "alerts": fired,
        "missed": missed,
        "why_missed": why_missed(campaign, made, &missed),
        "as_expected": made.outcome.as_expected(),
        "outcome": made.outcome.to_json(campaign)["steps"],
    })
}

/// What can be said of an attack that raised no alert: calls that were not made, answers that were not expected, or neither.
fn why_missed(campaign: &Campaign, made: &Made, missed: &[&String]) -> Option<String> {
    if missed.is_empty() {
        return None;
    }
    let steps = made.outcome.steps.iter().enumerate();
    let problems: Vec<String> = steps
        .flat_map(|(index, step)| step.problems.iter().map(move |problem| format!("step {index}: {problem}")))
        .collect();
    let calls: u64 = campaign.steps.iter().map(|step| step.repeat).sum();
    let done: u64 = made.outcome.steps.iter().map(|step| step.made).sum();
    Some(match &problems[..] {
        [] => format!("all {done} calls were made and answered as expected: the rule does not match them"),
        problems => format!("{done} of {calls} calls were made; {}", problems.join("; ")),
    })
}

fn by_rule(alerts: &[&Alert]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for alert in alerts {
        *counts.entry(alert.rule.clone()).or_default() += 1;
    }
    counts
}

/// From the call (or its return, for a rule that needs it) to the alert's leaving the engine.
fn latency(alerts: &[Alert]) -> Value {
    let mut all: Vec<i64> = alerts.iter().filter_map(|alert| alert.latency_ns).collect();
    all.sort_unstable();
    let at = |share: f64| all.get(((all.len() as f64 * share) as usize).min(all.len().saturating_sub(1)));
    json!({ "alerts": all.len(), "median_ns": at(0.5), "p99_ns": at(0.99), "max_ns": all.last() })
}

fn workload_result(workload: &Workload, false_alerts: &[&Alert]) -> Value {
    let during = |alert: &&&Alert| (workload.from_ns..=workload.to_ns).contains(&alert.time_ns);
    json!({
        "name": workload.name,
        "seconds": (workload.to_ns - workload.from_ns) as f64 / 1e9,
        "false_alerts": false_alerts.iter().filter(during).count(),
        "problem": workload.problem,
    })
}

fn classes(results: &[Value]) -> Value {
    let mut classes: BTreeMap<String, [u64; 2]> = BTreeMap::new();
    for result in results.iter().filter(|result| result["kind"] == "attack") {
        let counts = classes.entry(result["class"].as_str().unwrap_or("").to_owned()).or_default();
        counts[0] += 1;
        counts[1] += u64::from(list(result, "missed").is_empty());
    }
    let object = classes
        .into_iter()
        .map(|(class, [attacks, detected])| (class, json!({ "campaigns": attacks, "detected": detected })));
    Value::Object(object.collect())
}

/// True and false, positive and negative, for each rule: campaigns that name it count as attacks on it, look-alikes and
/// all that was not injected as benign.
fn rule_results(
    rules: &Rules,
    campaigns: &[Campaign],
    made: &[Made],
    results: &[Value],
    false_alerts: &[&Alert],
) -> Value {
    let mut counts: BTreeMap<&str, Counts> =
        rules.iter().map(|rule| (rule.id.as_str(), Counts::default())).collect();
    for (one, result) in made.iter().zip(results) {
        let campaign = &campaigns[one.campaign];
        let fired: BTreeSet<&str> = list(result, "alerts").iter().filter_map(Value::as_str).collect();
        for (id, count) in &mut counts {
            match (campaign.kind, campaign.rules.iter().any(|rule| rule == id), fired.contains(id)) {
                (_, true, true) => count.true_positives += 1,
                (_, true, false) => count.false_negatives += 1,
                (Kind::Benign, false, true) => count.false_positives += 1,
                (Kind::Benign, false, false) => count.true_negatives += 1,
                // Another rule's attack: that this one fires as well is neither right nor wrong.
                (Kind::Attack, false, _) => {}
            }
        }
    }
    for alert in false_alerts {
        if let Some(count) = counts.get_mut(alert.rule.as_str()) {
            count.false_positives += 1;
        }
    }
    Value::Object(counts.iter().map(|(id, count)| ((*id).to_owned(), count.to_json())).collect())
}
