//! Pages that are not as they were copied, and when they last became something else.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use hypovisor_machine::Gva;

/// For so long, a change that was found explains that its page was written to, or executed: the sensor's word of it comes some looks later.
const CHANGED_PERIOD: Duration = Duration::from_secs(5);

/// What a page holds that is not as it was copied, as a number.
type Content = u64;

/// Since when each page holds what it holds; `None`: what it held when it was copied.
#[derive(Debug, Default)]
pub(super) struct ChangedPages(HashMap<Gva, (Option<Content>, Instant)>);

impl ChangedPages {
    /// These are all of them.
    pub(super) fn note(&mut self, pages: &[(Gva, Content)], now: Instant) {
        for (page, (content, since)) in &mut self.0 {
            let is_as_copied = pages.iter().all(|(changed, _)| changed != page);
            if is_as_copied && content.take().is_some() {
                *since = now;
            }
        }
        for (page, content) in pages {
            let known = self.0.entry(*page).or_insert((None, now));
            if known.0 != Some(*content) {
                *known = (Some(*content), now);
            }
        }
        self.0.retain(|_, (content, since)| content.is_some() || now.duration_since(*since) < CHANGED_PERIOD);
    }

    /// Whether the page became something else lately. That was told, and judged.
    pub(super) fn has_changed(&self, page: Gva, now: Instant) -> bool {
        self.0.get(&page).is_some_and(|(_, since)| now.duration_since(*since) < CHANGED_PERIOD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_explains_what_happens_to_its_page_for_a_while_only() {
        let (page, start) = (Gva(0x1000), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pages = ChangedPages::default();
        pages.note(&[(page, 1)], at(0));
        assert!(pages.has_changed(page, at(1)) && !pages.has_changed(Gva(0x2000), at(1)));
        pages.note(&[(page, 1)], at(6));
        assert!(!pages.has_changed(page, at(6)), "a live patch stays for years");
        pages.note(&[(page, 2)], at(7));
        assert!(pages.has_changed(page, at(8)));
        pages.note(&[], at(20));
        assert!(pages.has_changed(page, at(21)), "it was put back");
        pages.note(&[], at(26));
        assert!(pages.0.is_empty());
    }
}
