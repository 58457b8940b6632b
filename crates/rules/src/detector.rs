//! Rules judged call by call, with what rates and sequences have to remember.
//!
//! Time is that of the events, never the clock's, so a recording gives the alerts that the live trace gave. State is
//! kept for each rule and domain in two generations of bounded size: when the younger one is full it becomes the
//! older one, and what the older one held is forgotten and counted.
//!
//! A rate's window slides in sixteenths: matches count together if they lie within fifteen to sixteen sixteenths of it.
//! So a rule never fires for less than its rate, and misses at most a burst that takes all but the whole window.

use std::sync::Arc;

use hypovisor_verdict::{Facts, Moment, Part, RuleIndex, RuleSet, Standing};
use rustc_hash::FxHashMap;

use crate::rule::{Rate, Rule, Sequence, Window};
use crate::rules::Rules;

/// The most states of one generation.
const MAX_STATES: usize = 16_384;
/// Parts of a rate's window.
const SLICES: usize = 16;

/// Which call is observed, and when it entered or returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The event's time in nanoseconds since the Unix epoch.
    pub time_ns: i64,
    /// The CPU of Xen that the call was made on.
    pub pcpu: u32,
    /// Its number on that CPU.
    pub sequence: u64,
}

/// A rule that matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: RuleIndex,
    /// For a sequence, the calls of its earlier steps.
    pub earlier: Vec<Seen>,
}

/// What a detector could not do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DetectorCounters {
    /// Conditions that depended on values that were not at hand, by rule.
    pub undecided: Vec<u64>,
    /// Conditions that were not judged because others had used up the call's steps.
    pub skipped: u64,
    /// Rules that took too many steps and are switched off.
    pub switched_off: Vec<RuleIndex>,
    /// Counts and begun sequences that were forgotten for lack of room.
    pub forgotten: u64,
}

/// Judges calls in order.
#[derive(Debug)]
pub struct Detector {
    rules: Arc<Rules>,
    /// Its own, because it switches rules off.
    set: RuleSet,
    states: Generations<(u16, u16), State>,
    calls: Generations<u16, u64>,
    counters: DetectorCounters,
    /// Conditions that hold for the call at hand.
    matched: Vec<Part>,
}

impl Detector {
    /// Nothing seen so far.
    #[must_use]
    pub fn new(rules: Arc<Rules>) -> Self {
        let counters = DetectorCounters { undecided: vec![0; rules.len()], ..DetectorCounters::default() };
        let (states, calls) = (Generations::default(), Generations::default());
        let set = rules.compiled().clone();
        Self { rules, set, states, calls, counters, matched: Vec::new() }
    }

    /// The rules that it judges by.
    #[must_use]
    pub fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// What it could not do so far.
    #[must_use]
    pub fn counters(&self) -> &DetectorCounters {
        &self.counters
    }

    /// Judges a call when it enters, and again when it has returned. `found` hears of each rule that matches.
    pub fn observe(&mut self, seen: Seen, facts: &Facts<'_>, moment: Moment, found: &mut dyn FnMut(Finding)) {
        let domain = facts.caller.domain;
        let calls = if moment == Moment::Entry {
            let calls = self.calls.entry(domain, &mut 0);
            *calls += 1;
            *calls
        } else {
            *self.calls.entry(domain, &mut 0)
        };
        if !self.set.concerns(&facts.call.registers) {
            return;
        }
        self.judge(facts, moment);
        let matched = std::mem::take(&mut self.matched);
        for part in &matched {
            self.matched(*part, seen, calls, domain, found);
        }
        self.matched = matched;
    }

    /// Fills in `matched`: later steps of a sequence first, so that one call does not take two steps.
    fn judge(&mut self, facts: &Facts<'_>, moment: Moment) {
        let Self { set, counters, matched, .. } = self;
        matched.clear();
        let judged = set.judge_parts(facts, moment, &mut |part, standing| match standing {
            Standing::Match => matched.push(part),
            Standing::Undecided => {
                if let Some(count) = counters.undecided.get_mut(usize::from(part.rule.0)) {
                    *count += 1;
                }
            }
            Standing::Skipped => counters.skipped += 1,
            Standing::OverBudget => {}
        });
        if let Some(rule) = judged.over_budget {
            set.switch_off(rule);
            counters.switched_off.push(rule);
        }
        matched.sort_by_key(|part| (part.rule, std::cmp::Reverse(part.step)));
    }

    fn matched(&mut self, part: Part, seen: Seen, calls: u64, domain: u16, found: &mut dyn FnMut(Finding)) {
        let rules = Arc::clone(&self.rules);
        let Some(rule) = rules.get(part.rule) else { return };
        let finding = |earlier| Finding { rule: part.rule, earlier };
        match rule {
            Rule { rate: Some(rate), .. } => {
                let state = self.states.entry((part.rule.0, domain), &mut self.counters.forgotten);
                if state.count(rate, position(rate.window, seen, calls)) {
                    found(finding(Vec::new()));
                }
            }
            Rule { sequence: Some(sequence), .. } => {
                let state = self.states.entry((part.rule.0, domain), &mut self.counters.forgotten);
                let at = position(sequence.window, seen, calls);
                if let Some(earlier) = state.step(sequence, usize::from(part.step), at, seen) {
                    found(finding(earlier));
                }
            }
            _ => found(finding(Vec::new())),
        }
    }
}

/// Where on the window's scale a call lies.
fn position(window: Window, seen: Seen, calls: u64) -> u64 {
    match window {
        Window::Nanoseconds(_) => u64::try_from(seen.time_ns).unwrap_or(0),
        Window::Calls(_) => calls,
    }
}

const fn length(window: Window) -> u64 {
    match window {
        Window::Nanoseconds(length) | Window::Calls(length) => length,
    }
}

/// What a rule remembers of a domain.
#[derive(Clone, Debug, Default)]
struct State {
    /// The latest position so far: times that go back count as this one.
    latest: u64,
    rate: Option<Box<Slices>>,
    /// For each step but the last: the youngest run of steps that has come so far.
    runs: Vec<Option<Run>>,
}

/// Matches by slice of the window.
#[derive(Clone, Debug)]
struct Slices {
    counts: [u32; SLICES],
    /// The number of the youngest slice since the scale's beginning.
    youngest: u64,
    /// No match is told before this position.
    silent_until: u64,
}

#[derive(Clone, Debug)]
struct Run {
    start: u64,
    calls: Vec<Seen>,
}

impl State {
    fn advance(&mut self, at: u64) -> u64 {
        self.latest = self.latest.max(at);
        self.latest
    }

    /// Counts a match; true if the rate is reached.
    fn count(&mut self, rate: &Rate, at: u64) -> bool {
        let at = self.advance(at);
        let window = length(rate.window).max(1);
        let slice_length = window.div_ceil(SLICES as u64);
        let slice = at / slice_length;
        let slices = self.rate.get_or_insert_with(|| {
            Box::new(Slices { counts: [0; SLICES], youngest: slice, silent_until: 0 })
        });
        for passed in 0..(slice - slices.youngest).min(SLICES as u64) {
            slices.counts[((slice - passed) % SLICES as u64) as usize] = 0;
        }
        slices.youngest = slice;
        let own = &mut slices.counts[(slice % SLICES as u64) as usize];
        *own = own.saturating_add(1);
        // A small window has fewer slices.
        let counted = (window / slice_length).min(slice + 1);
        let of_slice = |back: u64| u64::from(slices.counts[((slice - back) % SLICES as u64) as usize]);
        let sum: u64 = (0..counted).map(of_slice).sum();
        if sum < u64::from(rate.count) || at < slices.silent_until {
            return false;
        }
        slices.silent_until = at.saturating_add(window);
        true
    }

    /// Takes a step; the calls of the earlier ones if it was the last.
    fn step(&mut self, sequence: &Sequence, step: usize, at: u64, seen: Seen) -> Option<Vec<Seen>> {
        let at = self.advance(at);
        let last = sequence.steps.len().saturating_sub(1);
        self.runs.resize(last, None);
        let mut run = Run { start: at, calls: Vec::new() };
        if let Some(before) = step.checked_sub(1) {
            let same = |call: &Seen| (call.pcpu, call.sequence) == (seen.pcpu, seen.sequence);
            let alive = |run: &&Run| at - run.start <= length(sequence.window);
            let earlier = self.runs.get(before)?.as_ref().filter(alive)?;
            if earlier.calls.last().is_some_and(same) {
                return None;
            }
            run = earlier.clone();
        }
        if step == last {
            self.runs.clear();
            return Some(run.calls);
        }
        run.calls.push(seen);
        if let Some(slot) = self.runs.get_mut(step) {
            *slot = Some(run);
        }
        None
    }
}

/// A map of bounded size that forgets what has not been used for long.
#[derive(Debug)]
struct Generations<K, V> {
    young: FxHashMap<K, V>,
    old: FxHashMap<K, V>,
}

impl<K, V> Default for Generations<K, V> {
    fn default() -> Self {
        Self { young: FxHashMap::default(), old: FxHashMap::default() }
    }
}

impl<K: std::hash::Hash + Eq + Copy, V: Default> Generations<K, V> {
    /// The value at `key`; what is forgotten to make room is counted.
    fn entry(&mut self, key: K, forgotten: &mut u64) -> &mut V {
        if !self.young.contains_key(&key) {
            if self.young.len() >= MAX_STATES {
                let old = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
                *forgotten += old.len() as u64;
            }
            let value = self.old.remove(&key).unwrap_or_default();
            self.young.insert(key, value);
        }
        self.young.entry(key).or_default()
    }
}
