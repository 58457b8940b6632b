//! What is looked for: rules, what a policy does not list, and deviations from a profile.

use std::sync::Arc;

use hypovisor_abi::decode;
use hypovisor_rules::{Detector, Finding, Rule, Rules, Seen};
use hypovisor_verdict::{End, Facts, GuestKind, Moment};

use super::model::{Action, AlertMoment, AlertRule, Severity, Source};
use crate::call::{Call, CallId, Outcome};
use crate::domains::DomainKind;
use crate::policy::POLICY_PREFIX;
use crate::profile::{CallerKind, Deviation, DeviationKind, Profile, ProfileWatch};

/// Something was found in a call.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) rule: Arc<AlertRule>,
    /// What is wrong in this case.
    pub(super) reason: Option<String>,
    /// The earlier steps of a sequence.
    pub(super) steps: Vec<CallId>,
    /// To be counted only: the same was told a short time ago.
    pub(super) quiet: bool,
}

/// What is looked for in calls.
#[derive(Debug, Default)]
pub struct Detection {
    rules: Vec<RuleWatch>,
    profile: Option<(ProfileWatch, ProfileRules)>,
}

impl Detection {
    /// Also looks for what these rules describe. Those whose id begins with [`POLICY_PREFIX`] count as a policy's.
    #[must_use]
    pub fn with_rules(mut self, rules: Arc<Rules>) -> Self {
        self.rules.push(RuleWatch::new(rules));
        self
    }

    /// Also looks for deviations from `profile`.
    #[must_use]
    pub fn with_profile(mut self, profile: &Profile) -> Self {
        self.profile = Some((ProfileWatch::new(profile), ProfileRules::new()));
        self
    }

    /// Whether nothing is looked for.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.profile.is_none() && self.rules.is_empty()
    }

    /// The detectors of rules and policy, with what they could not do.
    pub fn detectors(&self) -> impl Iterator<Item = &Detector> {
        self.rules.iter().map(|watch| &watch.detector)
    }

    pub(super) fn observe(
        &mut self,
        call: &Call<'_>,
        kind: DomainKind,
        moment: AlertMoment,
        found: &mut dyn FnMut(Found),
    ) {
        if !self.rules.is_empty() {
            let captured = call.captured();
            let facts = facts(call, &captured, kind, moment);
            self.rules.iter_mut().for_each(|watch| watch.observe(call, &facts, moment, found));
        }
        if let Some((watch, rules)) = &mut self.profile {
            let kind = CallerKind::of(call.caller.domain, kind);
            let mut deviates = |deviation: Deviation| found(rules.found(deviation));
            match moment {
                AlertMoment::Entry => watch.entered(call, kind, &mut deviates),
                AlertMoment::Return => watch.ended(call, kind, &mut deviates),
            }
        }
    }

    /// A rule that has been switched off since the last time this was asked.
    pub(super) fn take_switched_off(&mut self) -> Option<Arc<AlertRule>> {
        self.rules.iter_mut().find_map(RuleWatch::take_switched_off)
    }

    pub(super) fn lost(&mut self) {
        if let Some((watch, _)) = &mut self.profile {
            watch.lost();
        }
    }
}

/// When something of a call is told: its entry, or its end.
pub(super) fn time_of(call: &Call<'_>, moment: AlertMoment) -> i64 {
    match moment {
        AlertMoment::Entry => call.time_ns,
        AlertMoment::Return => call.time_ns.saturating_add_unsigned(call.duration_ns.unwrap_or(0)),
    }
}

/// What conditions are judged on.
fn facts<'a>(
    call: &Call<'_>,
    captured: &'a decode::Call<'a>,
    kind: DomainKind,
    moment: AlertMoment,
) -> Facts<'a> {
    let outcome = match call.outcome {
        Outcome::Returned(_) => hypovisor_verdict::Outcome::Returned,
        Outcome::Preempted => hypovisor_verdict::Outcome::Preempted,
        Outcome::Resumed => hypovisor_verdict::Outcome::Resumed,
        Outcome::Unfinished => hypovisor_verdict::Outcome::Unfinished,
    };
    let end = End { outcome, result: call.outcome.result(), duration_ns: call.duration_ns };
    Facts {
        call: captured,
        caller: call.caller,
        pcpu: call.id.pcpu,
        kind: guest_kind(kind),
        privileged: CallerKind::of(call.caller.domain, kind) == CallerKind::Privileged,
        inner: call.parent.is_some(),
        continuation: call.continues.is_some(),
        cut: call.cut,
        end: (moment == AlertMoment::Return).then_some(end),
    }
}

/// The kind of a domain as rules have it.
#[must_use]
pub const fn guest_kind(kind: DomainKind) -> GuestKind {
    match kind {
        DomainKind::Pv => GuestKind::Pv,
        DomainKind::Pvh => GuestKind::Pvh,
        DomainKind::Hvm => GuestKind::Hvm,
        DomainKind::Unknown => GuestKind::Unknown,
    }
}

/// A detector, with what alerts say of its rules.
#[derive(Debug)]
struct RuleWatch {
    detector: Detector,
    /// By the rules' positions.
    rules: Vec<Arc<AlertRule>>,
    /// How many rules are known to be switched off.
    off: usize,
}

impl RuleWatch {
    fn new(rules: Arc<Rules>) -> Self {
        let alerts = rules.iter().map(|rule| Arc::new(of_rule(rule))).collect();
        Self { detector: Detector::new(rules), rules: alerts, off: 0 }
    }

    fn take_switched_off(&mut self) -> Option<Arc<AlertRule>> {
        let rule = self.detector.counters().switched_off.get(self.off)?;
        self.off += 1;
        self.rules.get(usize::from(rule.0)).cloned()
    }

    fn observe(
        &mut self,
        call: &Call<'_>,
        facts: &Facts<'_>,
        moment: AlertMoment,
        found: &mut dyn FnMut(Found),
    ) {
        let Self { detector, rules, .. } = self;
        let seen = Seen { time_ns: time_of(call, moment), pcpu: call.id.pcpu, sequence: call.id.sequence };
        let moment = match moment {
            AlertMoment::Entry => Moment::Entry,
            AlertMoment::Return => Moment::Return,
        };
        detector.observe(seen, facts, moment, &mut |Finding { rule, earlier }| {
            if let Some(rule) = rules.get(usize::from(rule.0)).cloned() {
                let steps =
                    earlier.iter().map(|seen| CallId { pcpu: seen.pcpu, sequence: seen.sequence }).collect();
                found(Found { rule, reason: None, steps, quiet: false });
            }
        });
    }
}

fn of_rule(rule: &Rule) -> AlertRule {
    let source = if rule.id.starts_with(POLICY_PREFIX) { Source::Policy } else { Source::Rule };
    AlertRule {
        id: rule.id.clone(),
        title: rule.title.clone(),
        severity: Severity::from_name(rule.severity.name()).unwrap_or_default(),
        source,
        references: rule.references.clone(),
        tags: rule.tags.clone(),
        action: match rule.action {
            hypovisor_verdict::Action::Alert => Action::Alert,
            hypovisor_verdict::Action::Deny { .. } => Action::Deny,
            hypovisor_verdict::Action::Pause => Action::Pause,
        },
    }
}

/// The rules that deviations count as.
#[derive(Debug)]
struct ProfileRules(Vec<(DeviationKind, Arc<AlertRule>)>);

impl ProfileRules {
    fn new() -> Self {
        Self(DeviationKind::ALL.into_iter().map(|kind| (kind, Arc::new(profile_rule(kind)))).collect())
    }

    fn found(&self, deviation: Deviation) -> Found {
        let rule = self.0.iter().find(|(kind, _)| *kind == deviation.kind).map(|(_, rule)| rule.clone());
        Found {
            rule: rule.unwrap_or_else(|| Arc::new(profile_rule(deviation.kind))),
            quiet: deviation.reason.is_none(),
            reason: deviation.reason,
            steps: Vec::new(),
        }
    }
}

fn profile_rule(kind: DeviationKind) -> AlertRule {
    let (id, title, severity) = match kind {
        DeviationKind::UnknownKind => {
            ("profile/kind", "A kind of domain that was not learned", Severity::Low)
        }
        DeviationKind::Operation => {
            ("profile/call", "A call that domains of this kind did not make", Severity::Medium)
        }
        DeviationKind::Sequence => {
            ("profile/sequence", "Calls in an order that was not learned", Severity::Low)
        }
        DeviationKind::Rate => ("profile/rate", "More calls within a second than learned", Severity::Medium),
        DeviationKind::Failure => ("profile/failure", "A call fails as it did not before", Severity::Low),
        DeviationKind::Many => ("profile/many", "Very many deviations at once", Severity::Medium),
    };
    AlertRule {
        id: id.to_owned(),
        title: title.to_owned(),
        severity,
        source: Source::Profile,
        references: Vec::new(),
        tags: vec!["profile".to_owned()],
        action: Action::Alert,
    }
}
