//! What an engine leaves with the sensor for the engine that comes after it.

use hypovisor_event::control::MAX_NOTE_BYTES;
use hypovisor_l1::Profile;
use serde::{Deserialize, Serialize};

use crate::domains::Domains;

/// What an engine leaves with the sensor for the engine that comes after it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Note {
    /// The running Xen.
    pub profile: Option<Profile>,
    /// The domains so far.
    pub domains: Domains,
}

impl Note {
    /// The note as it is sent, and whether all of it is in there.
    ///
    /// What does not fit is left out: first the oldest domains, which are the most likely to be gone, then the
    /// profile. How long a note gets is up to L1: its domains' number and its symbols' names.
    pub(crate) fn to_bytes(&self) -> (Vec<u8>, bool) {
        if let Some(bytes) = self.bytes_if_they_fit() {
            return (bytes, true);
        }
        let mut part = self.clone();
        let profile_fits = Self { domains: Domains::default(), ..self.clone() }.bytes_if_they_fit().is_some();
        if !profile_fits {
            part.profile = None;
        }
        loop {
            if let Some(bytes) = part.bytes_if_they_fit() {
                return (bytes, false);
            }
            part.domains.forget_older_half();
        }
    }

    fn bytes_if_they_fit(&self) -> Option<Vec<u8>> {
        serde_json::to_vec(self).ok().filter(|bytes| bytes.len() <= MAX_NOTE_BYTES)
    }

    /// Reads a note; what is no note, such as none, is an empty one.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: &[u8] = include_bytes!("../../../fuzz/corpus/xen_image/image");

    fn note(domains: u16) -> Note {
        let mut note = Note { profile: hypovisor_l1::fuzzing::xen_image(IMAGE), ..Note::default() };
        assert!(note.profile.is_some());
        for id in 0..domains {
            note.domains.name(id, &format!("guest-{id}"));
        }
        note
    }

    #[test]
    fn a_note_that_fits_is_whole() {
        let (bytes, whole) = note(20).to_bytes();
        let read = Note::from_bytes(&bytes);
        assert!(whole);
        assert_eq!((read.profile, read.domains), (note(20).profile, note(20).domains));
        assert_eq!(Note::from_bytes(b"").domains, Domains::default());
    }

    #[test]
    fn of_too_many_domains_dom0_and_the_newest_are_kept() {
        let (bytes, whole) = note(30_000).to_bytes();
        let read = Note::from_bytes(&bytes);
        assert!(!whole && bytes.len() <= MAX_NOTE_BYTES);
        assert_eq!(read.profile, note(0).profile);
        let kept: Vec<u16> = read.domains.iter().map(|domain| domain.id).collect();
        assert_eq!((kept.first(), kept.last()), (Some(&0), Some(&29_999)));
        assert!(kept.len() > 300, "{}", kept.len());
    }

    #[test]
    fn a_profile_that_is_too_long_is_left_out() {
        let mut long = note(20);
        let profile = long.profile.as_mut().unwrap();
        profile.hooks.pv.as_mut().unwrap().entry.name = "x".repeat(MAX_NOTE_BYTES);
        let (bytes, whole) = long.to_bytes();
        let read = Note::from_bytes(&bytes);
        assert!(!whole && read.profile.is_none());
        assert_eq!(read.domains, long.domains);
    }

    /// Even one domain may have any name.
    #[test]
    fn a_name_that_is_too_long_is_left_out() {
        let mut long = Note::default();
        long.domains.name(0, &"x".repeat(MAX_NOTE_BYTES));
        let (bytes, whole) = long.to_bytes();
        assert!(!whole);
        assert_eq!(Note::from_bytes(&bytes).domains, Domains::default());
    }
}
