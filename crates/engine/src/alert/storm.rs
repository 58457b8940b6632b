//! Keeps a storm of alerts from drowning what matters: of each rule so many a second are told one by one, the others
//! are counted and told as one [`Storm`] when the second is over.
//!
//! A second begins with the first alert of a rule after the one before. Time is that of the calls, so a replay holds
//! back the same alerts.

use std::collections::HashMap;
use std::sync::Arc;

use super::model::{AlertRule, ReportKind, SCHEMA, Storm};
use crate::utc;

/// Alerts of one rule that are told one by one within a second.
pub const REPORTS_PER_SECOND: u32 = 10;

const SECOND_NS: i64 = 1_000_000_000;
/// Domains that a storm names.
const NAMED_DOMAINS: usize = 8;

/// One second of one rule.
#[derive(Debug)]
struct Window {
    rule: Arc<AlertRule>,
    start_ns: i64,
    told: u32,
    held_back: u64,
    first_ns: i64,
    last_ns: i64,
    domains: Vec<u16>,
}

impl Window {
    const fn covers(&self, time_ns: i64) -> bool {
        // A clock that was set back does not hold alerts back for as long.
        time_ns.saturating_sub(self.start_ns).saturating_abs() < SECOND_NS
    }
}

/// Decides which alerts are told one by one.
#[derive(Debug)]
pub(super) struct Limiter {
    /// By the rule's position among the totals; in order, so that storms of one moment have one order.
    open: HashMap<usize, Window>,
    /// When the next open second is over.
    next_end_ns: i64,
}

impl Limiter {
    pub(super) fn new() -> Self {
        Self { open: HashMap::new(), next_end_ns: i64::MAX }
    }

    /// Whether this alert is told by itself. Seconds that are over at `time_ns` have to be closed before.
    pub(super) fn admit(&mut self, key: usize, rule: &Arc<AlertRule>, time_ns: i64, domain: u16) -> bool {
        let window = self.open.entry(key).or_insert_with(|| Window {
            rule: rule.clone(),
            start_ns: time_ns,
            told: 0,
            held_back: 0,
            first_ns: time_ns,
            last_ns: time_ns,
            domains: Vec::new(),
        });
        self.next_end_ns = self.next_end_ns.min(window.start_ns.saturating_add(SECOND_NS));
        if window.told < REPORTS_PER_SECOND {
            window.told += 1;
            return true;
        }
        if window.held_back == 0 {
            window.first_ns = time_ns;
        }
        window.held_back += 1;
        window.last_ns = time_ns;
        if window.domains.len() < NAMED_DOMAINS && !window.domains.contains(&domain) {
            window.domains.push(domain);
        }
        false
    }

    /// Whether a second may be over at `time_ns`.
    pub(super) const fn is_due(&self, time_ns: i64) -> bool {
        time_ns >= self.next_end_ns || time_ns.saturating_add(SECOND_NS * 2) <= self.next_end_ns
    }

    /// Closes the seconds that a call of `time_ns` is not in and gives the storms among them, with the rules' positions.
    pub(super) fn close(&mut self, time_ns: i64) -> Vec<(usize, Storm)> {
        self.close_if(|window| !window.covers(time_ns))
    }

    /// Closes the seconds that were over before `time_ns`, which need not be the time of a call.
    pub(super) fn close_ended(&mut self, time_ns: i64) -> Vec<(usize, Storm)> {
        self.close_if(|window| window.start_ns.saturating_add(SECOND_NS) <= time_ns)
    }

    fn close_if(&mut self, is_over: impl Fn(&Window) -> bool) -> Vec<(usize, Storm)> {
        let mut over: Vec<(usize, Window)> = self.open.extract_if(|_, window| is_over(window)).collect();
        over.sort_by_key(|(key, window)| (window.start_ns, *key));
        let ends = self.open.values().map(|window| window.start_ns.saturating_add(SECOND_NS));
        self.next_end_ns = ends.min().unwrap_or(i64::MAX);
        over.into_iter().filter_map(|(key, window)| Some((key, window.storm()?))).collect()
    }

    /// Closes all.
    pub(super) fn close_all(&mut self) -> Vec<(usize, Storm)> {
        let mut over: Vec<(usize, Window)> = self.open.drain().collect();
        self.next_end_ns = i64::MAX;
        over.sort_by_key(|(key, window)| (window.start_ns, *key));
        over.into_iter().filter_map(|(key, window)| Some((key, window.storm()?))).collect()
    }
}

impl Window {
    fn storm(self) -> Option<Storm> {
        let mut time = String::new();
        utc::write_rfc3339(&mut time, self.last_ns);
        (self.held_back > 0).then_some(Storm {
            schema: SCHEMA,
            kind: ReportKind::Storm,
            time,
            time_ns: self.last_ns,
            from_ns: self.first_ns,
            rule: self.rule,
            held_back: self.held_back,
            count: 0,
            domains: self.domains,
        })
    }
}
