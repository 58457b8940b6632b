//! What has been told already, and so is no news.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use hypovisor_integrity::{Finding, Item, Judgement};

use super::MAX_TOLD;

/// Before the sensor's word is passed on again.
const REPEAT_PERIOD: Duration = Duration::from_secs(10);

/// What a finding is about, whatever is to be thought of it.
pub(super) fn subject(finding: &Finding) -> (Item, &str, &str) {
    (finding.item, &finding.place, &finding.message)
}

/// With what is to be thought of it: that may change while the rest stays.
pub(super) fn key(finding: &Finding) -> (Item, &str, &str, &Judgement) {
    let (item, place, message) = subject(finding);
    (item, place, message, &finding.judgement)
}

/// What was there at the last look.
#[derive(Debug, Default)]
pub(super) struct Known(HashSet<(Item, String, String, Judgement)>);

fn owned(finding: &Finding) -> (Item, String, String, Judgement) {
    let (item, place, message, judgement) = key(finding);
    (item, place.to_owned(), message.to_owned(), judgement.clone())
}

impl Known {
    pub(super) fn has(&self, finding: &Finding) -> bool {
        self.0.contains(&owned(finding))
    }

    /// Those that were not there the last time.
    pub(super) fn fresh(&mut self, findings: Vec<Finding>) -> Vec<Finding> {
        let now = findings.iter().take(MAX_TOLD).map(owned).collect();
        let fresh = findings.into_iter().filter(|finding| !self.has(finding)).collect();
        self.0 = now;
        fresh
    }
}

/// What the sensor has told a short time ago: code that switches a protection off and on does so a thousand times a second.
#[derive(Debug, Default)]
pub struct Repeats(HashMap<String, Instant>);

impl Repeats {
    /// Whether this was not told within the last ten seconds; it is now.
    pub fn is_news(&mut self, finding: &Finding, now: Instant) -> bool {
        self.0.retain(|_, told| now.duration_since(*told) < REPEAT_PERIOD);
        if self.0.len() >= MAX_TOLD || self.0.contains_key(&finding.message) {
            return false;
        }
        self.0.insert(finding.message.clone(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sensors_word_is_not_repeated_at_once() {
        let finding = Finding::tampering(Item::Registers, "CR0", "it was set");
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        assert!(repeats.is_news(&finding, start));
        assert!(!repeats.is_news(&finding, start + REPEAT_PERIOD / 2));
        assert!(repeats.is_news(&finding, start + REPEAT_PERIOD));
    }

    #[test]
    fn what_was_gone_meanwhile_is_told_again() {
        let finding = || vec![Finding::tampering(Item::Text, "here", "changed")];
        let mut told = Known::default();
        assert_eq!(told.fresh(finding()).len(), 1);
        assert!(told.fresh(finding()).is_empty());
        assert!(told.fresh(Vec::new()).is_empty());
        assert_eq!(told.fresh(finding()).len(), 1);
    }

    #[test]
    fn what_was_a_live_patch_and_is_one_no_longer_is_news() {
        let judgement = Judgement::LivePatch { name: "mended".to_owned() };
        let patched = Finding::new(Item::Text, judgement, "here", "changed");
        let mut told = Known::default();
        assert_eq!(told.fresh(vec![patched.clone()]).len(), 1);
        assert!(told.fresh(vec![patched]).is_empty());
        assert_eq!(told.fresh(vec![Finding::tampering(Item::Text, "here", "changed")]).len(), 1);
    }
}
