//! Pages that were written to, until an engine takes the word of it: who tells of one must not wait.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use hypovisor_machine::Gpa;

/// As many as L1's code and constants have, by far.
const MAX_WAITING: usize = 1 << 14;

/// Pages that were not told yet.
#[derive(Debug, Default)]
pub(crate) struct WrittenPages(Mutex<BTreeSet<u64>>);

impl WrittenPages {
    pub(crate) fn note(&self, page: Gpa) {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pages.len() < MAX_WAITING {
            pages.insert(page.0);
        }
    }

    /// Hands out what waits, as long as `send` takes it.
    pub(crate) fn flush(&self, mut send: impl FnMut(Gpa) -> bool) {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(page) = pages.pop_first() {
            if !send(Gpa(page)) {
                pages.insert(page);
                return;
            }
        }
    }

    /// Nobody wants to know of those any more.
    pub(crate) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_sent_waits() {
        let pages = WrittenPages::default();
        [0x3000, 0x1000, 0x3000].into_iter().for_each(|page| pages.note(Gpa(page)));
        pages.flush(|_| false);
        let mut sent = Vec::new();
        pages.flush(|page| {
            sent.push(page.0);
            true
        });
        assert_eq!(sent, [0x1000, 0x3000]);
        pages.note(Gpa(0x5000));
        pages.forget();
        pages.flush(|_| panic!("there is none"));
    }
}
