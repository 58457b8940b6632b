//! A campaign, made call by call.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::bail;
use hypovisor_abi::Width;
use hypovisor_campaign::{Campaign, Plan, Saved, Step, hazard};
use hypovisor_engine::remote::{Ended, Engine, Request, Status};
use serde_json::{Value, json};

use super::{request, why_not};
use crate::FINDINGS;

/// Calls that are under way at a time, unless a rate is asked for.
const PIPELINE: u64 = 64;
/// Mismatches that are kept word for word, of each step.
const KEPT: usize = 3;

/// Where a campaign is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    pub(crate) domain: u16,
    pub(crate) vcpu: Option<u16>,
    pub(crate) width: Width,
    pub(crate) force: bool,
}

/// What became of a step.
#[derive(Debug, Default)]
pub(crate) struct StepOutcome {
    pub(crate) made: u64,
    /// Results, and how often.
    pub(crate) results: BTreeMap<i64, u64>,
    /// Calls that could not be made, or did not return what was expected.
    pub(crate) wrong: u64,
    /// The first of these, in words.
    pub(crate) problems: Vec<String>,
    /// The call's events: CPU and sequence number of the first and the last.
    pub(crate) events: Option<[(u32, u64); 2]>,
}

/// What became of a campaign.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) steps: Vec<StepOutcome>,
}

/// Makes all calls of a campaign. `progress` is told how many have ended.
///
/// A step begins when the one before has ended; within a step calls follow one another without waiting, unless a later one
/// needs what an earlier one saved.
pub(crate) fn run(
    engine: &mut Engine,
    campaign: &Campaign,
    at: &At,
    progress: &mut dyn FnMut(u64),
) -> anyhow::Result<Outcome> {
    refuse_hazards(campaign, at)?;
    let (mut saved, mut made, mut steps) = (Saved::new(), 0, Vec::new());
    for (index, step) in campaign.steps.iter().enumerate() {
        let mut running = Running { engine: &mut *engine, step, at, seed: campaign.seed, saved: &mut saved };
        let outcome = running.run(&mut |ended| progress(made + ended));
        let outcome = outcome.map_err(|error| error.context(format!("{}: steps[{index}]", campaign.id)))?;
        made += outcome.made;
        steps.push(outcome);
    }
    Ok(Outcome { steps })
}

/// Loads campaigns and lays their calls out, without making any; says all that is wrong.
pub(crate) fn check(path: &Path, width: Width) -> anyhow::Result<u8> {
    let campaigns = Campaign::load_all(path)?;
    let mut out = std::io::stdout().lock();
    let mut wrong = 0;
    for campaign in &campaigns {
        // What a step would have saved: any value will do.
        let names = campaign.steps.iter().flat_map(|step| &step.save);
        let saved: Saved = names.map(|(name, _)| (name.clone(), 1)).collect();
        for (index, step) in campaign.steps.iter().enumerate() {
            let hazard = hazard(&step.call).filter(|_| !step.force).map(str::to_owned);
            let error = step.plan(width, campaign.seed, 0, &saved).err().map(|error| error.to_string());
            if let Some(problem) = error.or(hazard) {
                writeln!(out, "{}: steps[{index}]: {}: {problem}", campaign.id, step.call.name())?;
                wrong += 1;
            }
        }
    }
    writeln!(out, "{} campaigns, {wrong} problems", campaigns.len())?;
    Ok(if wrong == 0 { 0 } else { FINDINGS })
}

/// Nothing is made of a campaign that has such a call.
fn refuse_hazards(campaign: &Campaign, at: &At) -> anyhow::Result<()> {
    for (index, step) in campaign.steps.iter().enumerate() {
        if let Some(why) = hazard(&step.call).filter(|_| !step.force && !at.force) {
            let (id, name) = (&campaign.id, step.call.name());
            bail!(
                "{id}: steps[{index}]: {name} is not injected: {why}; `force: true` or --force does it all the same"
            );
        }
    }
    Ok(())
}

struct Running<'a> {
    engine: &'a mut Engine,
    step: &'a Step,
    at: &'a At,
    seed: u64,
    saved: &'a mut Saved,
}

impl Running<'_> {
    fn run(&mut self, progress: &mut dyn FnMut(u64)) -> anyhow::Result<StepOutcome> {
        let mut outcome = StepOutcome::default();
        let one_by_one = self.step.rate.is_some() || !self.step.save.is_empty();
        let pipeline = if one_by_one { 1 } else { PIPELINE };
        let started = Instant::now();
        let mut sent = 0;
        while outcome.made < self.step.repeat {
            while sent < self.step.repeat && sent - outcome.made < pipeline {
                self.wait_for_turn(started, sent);
                self.send(sent)?;
                sent += 1;
            }
            let ended: Ended = serde_json::from_value(self.engine.answer()?)?;
            self.note(&mut outcome, &ended);
            progress(outcome.made);
            if ended.status == Status::TimedOut && outcome.made == 1 {
                // The domain is not there: no use asking again and again.
                break;
            }
        }
        for _ in outcome.made..sent {
            let _ = self.engine.answer()?;
        }
        Ok(outcome)
    }

    fn wait_for_turn(&self, started: Instant, call: u64) {
        if let Some(rate) = self.step.rate {
            let due = Duration::from_secs_f64(call as f64 / rate.per_second);
            std::thread::sleep(due.saturating_sub(started.elapsed()));
        }
    }

    fn send(&mut self, repetition: u64) -> anyhow::Result<()> {
        let plan = self.plan(repetition)?;
        let At { domain, vcpu, width, .. } = *self.at;
        Ok(self.engine.ask(&Request::Inject(request(&plan, repetition, domain, vcpu, width)))?)
    }

    fn plan(&self, repetition: u64) -> anyhow::Result<Plan> {
        Ok(self.step.plan(self.at.width, self.seed, repetition, self.saved)?)
    }

    fn note(&mut self, outcome: &mut StepOutcome, ended: &Ended) {
        outcome.made += 1;
        let event = (ended.pcpu, ended.sequence);
        let problem = match ended.result {
            None => Some(why_not(ended.status).to_owned()),
            Some(result) => {
                *outcome.results.entry(result).or_default() += 1;
                outcome.events = Some([outcome.events.map_or(event, |[first, _]| first), event]);
                self.save(ended);
                self.step.expect.mismatch(result)
            }
        };
        if let Some(problem) = problem {
            outcome.wrong += 1;
            if outcome.problems.len() < KEPT {
                outcome.problems.push(problem);
            }
        }
    }

    fn save(&mut self, ended: &Ended) {
        if self.step.save.is_empty() {
            return;
        }
        let Ok(plan) = self.plan(ended.id) else { return };
        for (name, path) in &self.step.save {
            if let Some(value) = plan.read_back(&ended.memory, path) {
                self.saved.insert(name.clone(), value);
            }
        }
    }
}

impl Outcome {
    /// Whether every call was made and returned what it should.
    pub(crate) fn as_expected(&self) -> bool {
        self.steps.iter().all(|step| step.wrong == 0)
    }

    pub(crate) fn print(&self, campaign: &Campaign) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}: {}", campaign.id, campaign.title)?;
        for (step, outcome) in campaign.steps.iter().zip(&self.steps) {
            let results =
                outcome.results.iter().map(|(result, count)| format!("{} × {count}", shown(*result)));
            let results: Vec<String> = results.collect();
            writeln!(out, "  {:<45} {:>8} calls  {}", step.call.name(), outcome.made, results.join(", "))?;
            for problem in &outcome.problems {
                writeln!(out, "      {problem}")?;
            }
        }
        Ok(())
    }

    pub(crate) fn to_json(&self, campaign: &Campaign) -> Value {
        let steps: Vec<Value> = campaign
            .steps
            .iter()
            .zip(&self.steps)
            .map(|(step, outcome)| {
                json!({
                    "call": step.call.name(),
                    "made": outcome.made,
                    "wrong": outcome.wrong,
                    "problems": outcome.problems,
                    "results": outcome.results.iter().map(|(result, count)| (shown(*result), json!(count)))
                        .collect::<serde_json::Map<_, _>>(),
                })
            })
            .collect();
        json!({ "campaign": campaign.id, "as_expected": self.as_expected(), "steps": steps })
    }
}

fn shown(result: i64) -> String {
    let name = hypovisor_abi::errno::is_error(result).then(|| hypovisor_abi::errno::name(-result)).flatten();
    name.map_or_else(|| result.to_string(), |name| format!("-{name}"))
}
