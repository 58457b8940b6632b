//! Which colour a domain has. The colours are those of Okabe and Ito, slightly darkened or lightened for the page,
//! which people with any kind of colour vision can tell apart.

use std::fmt::Write as _;

use super::markup::{escape, shorten};
use crate::stats::{DomainSummary, Summary};

/// Domains with a colour of their own; the others share one.
const COLOURS: usize = 6;
const CLASSES: [&str; COLOURS] = ["d0", "d1", "d2", "d3", "d4", "d5"];
const OTHERS: &str = "dx";
/// Characters of a domain's name that are shown in drawings.
const NAME_CHARACTERS: usize = 24;

/// Domains that are drawn apart, in the order they are stacked, and the rest.
pub(super) struct Palette {
    domains: Vec<(u16, String)>,
    others: bool,
}

impl Palette {
    /// Colours for the busiest domains.
    pub(super) fn of(summary: &Summary) -> Self {
        let mut busiest: Vec<&DomainSummary> =
            summary.domains.iter().filter(|domain| domain.events > 0).collect();
        busiest.sort_by_key(|domain| (std::cmp::Reverse(domain.events), domain.id));
        let others = busiest.len() > COLOURS;
        busiest.truncate(COLOURS);
        busiest.sort_by_key(|domain| domain.id);
        let label = |domain: &&DomainSummary| (domain.id, shorten(&domain.label(), NAME_CHARACTERS));
        Self { domains: busiest.iter().map(label).collect(), others }
    }

    /// Number of colours in use.
    pub(super) fn len(&self) -> usize {
        self.domains.len() + usize::from(self.others)
    }

    /// A domain's place in the stack.
    pub(super) fn place(&self, domain: u16) -> usize {
        self.domains.iter().position(|(id, _)| *id == domain).unwrap_or(self.domains.len())
    }

    /// The CSS class that colours a place.
    pub(super) fn class(&self, place: usize) -> &'static str {
        CLASSES.get(place).filter(|_| place < self.domains.len()).copied().unwrap_or(OTHERS)
    }

    /// What a place is called.
    pub(super) fn label(&self, place: usize) -> &str {
        self.domains.get(place).map_or("other domains", |(_, label)| label)
    }

    pub(super) fn write_legend(&self, out: &mut String) {
        out.push_str("<ul class=\"legend\">");
        for place in 0..self.len() {
            let (class, label) = (self.class(place), escape(self.label(place)));
            let _ = write!(out, "<li><span class=\"swatch {class}\"></span>{label}</li>");
        }
        out.push_str("</ul>\n");
    }
}
