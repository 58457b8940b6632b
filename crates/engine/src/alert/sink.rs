//! Raises alerts on calls that pass by.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use hypovisor_abi::text::Detail;
use hypovisor_event::injection::Injected;
use hypovisor_event::verdict::Verdict;
use hypovisor_integrity::Finding;
use serde_json::value::RawValue;

use super::detection::{Detection, Found, time_of};
use super::history::History;
use super::integrity;
use super::model::{
    ActionTaken, Alert, AlertMoment, AlertRule, EventObject, IntegrityAlert, Report, ReportKind, RuleOff,
    SCHEMA, Step, Storm,
};
use super::output::{AlertError, AlertOutput};
use super::storm::Limiter;
use crate::call::{Call, CallId, CallSink, Loss};
use crate::domains::{DomainKind, Domains};
use crate::{event_json, event_line, utc};

/// How long a second may be over before [`Alerter::tick`] closes it: events of it may still be on their way.
const GRACE_NS: i64 = 2_000_000_000;

/// How often a rule raised an alert.
#[derive(Clone, Debug)]
pub struct RuleTotal {
    /// The rule.
    pub rule: Arc<AlertRule>,
    /// All alerts.
    pub alerts: u64,
    /// Those that were told one by one.
    pub told: u64,
}

/// Raises alerts and tells them.
#[derive(Debug)]
pub struct Alerter<O> {
    detection: Detection,
    domains: Domains,
    /// Names that were told, which the calls themselves do not tell.
    names: HashMap<u16, String>,
    history: History,
    limiter: Limiter,
    totals: Vec<RuleTotal>,
    /// Where a rule stands in `totals`, by its id.
    places: HashMap<String, usize>,
    found: Vec<Found>,
    output: O,
    live: bool,
}

impl<O: AlertOutput> Alerter<O> {
    /// Looks for what `detection` says, in calls that happen now.
    #[must_use]
    pub fn live(detection: Detection, output: O) -> Self {
        Self { live: true, ..Self::replaying(detection, output) }
    }

    /// As [`Alerter::live`], in calls of a recording: alerts do not have the time of day in them.
    #[must_use]
    pub fn replaying(detection: Detection, output: O) -> Self {
        Self {
            detection,
            domains: Domains::default(),
            names: HashMap::new(),
            history: History::default(),
            limiter: Limiter::new(),
            totals: Vec::new(),
            places: HashMap::new(),
            found: Vec::new(),
            output,
            live: false,
        }
    }

    /// What is known of domains already, for a session that goes on; kinds and names.
    pub fn know(&mut self, domains: &Domains) {
        self.domains = domains.clone();
    }

    /// Notes a domain's name, for alerts to show.
    pub fn name(&mut self, domain: u16, name: &str) {
        self.names.insert(domain, name.to_owned());
    }

    /// Looks for something else from now on. What was half-way through, such as sequences, begins anew; totals stay.
    pub fn look_for(&mut self, detection: Detection) {
        self.detection = detection;
    }

    /// How often each rule that raised alerts did so.
    #[must_use]
    pub fn totals(&self) -> &[RuleTotal] {
        &self.totals
    }

    /// What is looked for.
    #[must_use]
    pub const fn detection(&self) -> &Detection {
        &self.detection
    }

    /// Where alerts go.
    pub const fn output(&mut self) -> &mut O {
        &mut self.output
    }

    /// A call has entered.
    ///
    /// # Errors
    /// When an alert cannot be told.
    pub fn entered(&mut self, call: &Call<'_>) -> Result<(), AlertError> {
        self.domains.learn(call);
        self.close_storms(call.time_ns)?;
        if self.detection.is_empty() {
            return Ok(());
        }
        self.history.enter(call);
        self.observe(call, AlertMoment::Entry)
    }

    /// A call has ended.
    ///
    /// # Errors
    /// When an alert cannot be told.
    pub fn ended(&mut self, call: &Call<'_>) -> Result<(), AlertError> {
        self.domains.learn(call);
        if self.detection.is_empty() {
            return Ok(());
        }
        self.history.end(call);
        self.observe(call, AlertMoment::Return)
    }

    /// Something of L1 itself is not as it should be; `taken` is what was done.
    ///
    /// # Errors
    /// When it cannot be told.
    pub fn integrity(
        &mut self,
        time_ns: i64,
        finding: Finding,
        taken: ActionTaken,
    ) -> Result<(), AlertError> {
        let rule = integrity::rule(&finding, taken);
        let place = self.place(&rule);
        let total = &mut self.totals[place];
        total.alerts += 1;
        total.told += 1;
        let count = total.alerts;
        let mut time = String::new();
        utc::write_rfc3339(&mut time, time_ns);
        let kind = ReportKind::Integrity;
        let alert = IntegrityAlert { schema: SCHEMA, kind, time, time_ns, rule, count, taken, finding };
        self.output.report(&Report::Integrity(Box::new(alert)))
    }

    /// Events were lost.
    pub fn lost(&mut self) {
        self.detection.lost();
    }

    /// To be called now and then while a session runs: tells of a storm that is over when no call comes after it.
    ///
    /// # Errors
    /// When it cannot be told.
    pub fn tick(&mut self) -> Result<(), AlertError> {
        let storms = self.limiter.close_ended(now_ns().saturating_sub(GRACE_NS));
        self.tell_storms(storms)
    }

    /// Tells what is left to be told: the session is over.
    ///
    /// # Errors
    /// When it cannot be told.
    pub fn finish(&mut self) -> Result<(), AlertError> {
        let storms = self.limiter.close_all();
        self.tell_storms(storms)
    }

    fn observe(&mut self, call: &Call<'_>, moment: AlertMoment) -> Result<(), AlertError> {
        let known = self.domains.get(call.caller.domain);
        let kind = known.map_or(DomainKind::Unknown, |domain| domain.kind);
        let mut found = std::mem::take(&mut self.found);
        self.detection.observe(call, kind, moment, &mut |one| found.push(one));
        let outcome = found.drain(..).try_for_each(|one| self.raise(call, moment, one));
        self.found = found;
        outcome?;
        while let Some(rule) = self.detection.take_switched_off() {
            self.tell_switched_off(rule, call)?;
        }
        Ok(())
    }

    #[cold]
    fn tell_switched_off(&mut self, rule: Arc<AlertRule>, call: &Call<'_>) -> Result<(), AlertError> {
        let (mut time, mut line) = (String::new(), String::new());
        utc::write_rfc3339(&mut time, call.time_ns);
        event_line::write_line(&mut line, call, Detail::Line);
        self.output.report(&Report::RuleOff(RuleOff {
            schema: SCHEMA,
            kind: ReportKind::RuleOff,
            time,
            time_ns: call.time_ns,
            rule,
            domain: call.caller.domain,
            line,
        }))
    }

    #[cold]
    fn raise(&mut self, call: &Call<'_>, moment: AlertMoment, found: Found) -> Result<(), AlertError> {
        let place = self.place(&found.rule);
        let total = &mut self.totals[place];
        total.alerts += 1;
        let time_ns = time_of(call, moment);
        if found.quiet || !self.limiter.admit(place, &found.rule, time_ns, call.caller.domain) {
            return Ok(());
        }
        total.told += 1;
        let count = total.alerts;
        let alert = self.alert(call, moment, found, time_ns, count);
        self.output.report(&Report::Alert(Box::new(alert)))
    }

    /// Where the rule stands in the totals.
    fn place(&mut self, rule: &Arc<AlertRule>) -> usize {
        if let Some(place) = self.places.get(&rule.id) {
            return *place;
        }
        let place = self.totals.len();
        self.places.insert(rule.id.clone(), place);
        self.totals.push(RuleTotal { rule: rule.clone(), alerts: 0, told: 0 });
        place
    }

    fn alert(&self, call: &Call<'_>, moment: AlertMoment, found: Found, time_ns: i64, count: u64) -> Alert {
        let domain = call.caller.domain;
        let known = || self.domains.get(domain).map(|domain| domain.name.as_str());
        let name = self.names.get(&domain).map(String::as_str).or_else(known);
        let (mut time, mut line) = (String::new(), String::new());
        utc::write_rfc3339(&mut time, time_ns);
        event_line::write_line(&mut line, call, Detail::Line);
        Alert {
            schema: SCHEMA,
            kind: ReportKind::Alert,
            time,
            time_ns,
            reported_ns: self.live.then(now_ns),
            moment,
            rule: found.rule,
            count,
            reason: found.reason,
            taken: taken(call),
            domain,
            domain_name: name.map(str::to_owned),
            line,
            event: event(call, name),
            steps: found.steps.iter().map(|id| self.step(domain, *id, name)).collect(),
            before: self.history.before(call).map(|call| event(&call, name)).collect(),
        }
    }

    fn step(&self, domain: u16, id: CallId, name: Option<&str>) -> Step {
        let known = self.history.find(domain, id);
        Step { pcpu: id.pcpu, sequence: id.sequence, event: known.map(|call| event(&call, name)) }
    }

    fn close_storms(&mut self, time_ns: i64) -> Result<(), AlertError> {
        if !self.limiter.is_due(time_ns) {
            return Ok(());
        }
        let storms = self.limiter.close(time_ns);
        self.tell_storms(storms)
    }

    #[cold]
    fn tell_storms(&mut self, storms: Vec<(usize, Storm)>) -> Result<(), AlertError> {
        for (place, mut storm) in storms {
            storm.count = self.totals.get(place).map_or(0, |total| total.alerts);
            self.output.report(&Report::Storm(storm))?;
        }
        Ok(())
    }
}

fn event(call: &Call<'_>, domain_name: Option<&str>) -> EventObject {
    let mut text = String::new();
    event_json::write_line(&mut text, call, domain_name);
    RawValue::from_string(text).unwrap_or_default()
}

fn taken(call: &Call<'_>) -> ActionTaken {
    match call.intervention.verdict {
        None => ActionTaken::Observed,
        Some(Verdict::WouldDeny) => ActionTaken::WouldDeny,
        Some(Verdict::Denied) => ActionTaken::Denied,
        Some(Verdict::Paused) => ActionTaken::Paused,
    }
}

fn now_ns() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX)
}

/// Raises alerts on the calls that pass through it to another sink.
#[derive(Debug)]
pub struct AlertSink<S, O> {
    /// Where the calls go.
    pub inner: S,
    /// What raises the alerts; `None`: nothing is looked for.
    pub alerter: Option<Alerter<O>>,
}

impl<S, O> CallSink for AlertSink<S, O>
where
    S: CallSink,
    S::Error: From<AlertError>,
    O: AlertOutput,
{
    type Error = S::Error;

    fn entered(&mut self, call: &Call<'_>) -> Result<(), S::Error> {
        if let Some(alerter) = &mut self.alerter {
            alerter.entered(call)?;
        }
        self.inner.entered(call)
    }

    fn call(&mut self, call: &Call<'_>) -> Result<(), S::Error> {
        if let Some(alerter) = &mut self.alerter {
            alerter.ended(call)?;
        }
        self.inner.call(call)
    }

    fn injected(&mut self, pcpu: u32, injected: &Injected, memory: &[u8]) -> Result<(), S::Error> {
        self.inner.injected(pcpu, injected, memory)
    }

    fn loss(&mut self, loss: &Loss) -> Result<(), S::Error> {
        if let Some(alerter) = &mut self.alerter {
            alerter.lost();
        }
        self.inner.loss(loss)
    }
}
