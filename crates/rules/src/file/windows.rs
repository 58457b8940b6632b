//! Rates, and the windows of rates and sequences.

use super::{Fields, Reader, below};
use crate::rule::{Rate, Window};
use crate::schema::Keys;
use crate::yaml::Node;

/// The longest window in time: a day.
const MAX_WINDOW_NS: u64 = 86_400_000_000_000;
/// The most matches that a rate counts to.
const MAX_RATE: u64 = 1_000_000;

impl<'r, 'f> Reader<'r, 'f> {
    pub(super) fn rate(&mut self, node: &Node) -> Option<Rate> {
        let fields = self.fields(node, "rate", &Keys::of_part("Rate"));
        let count = fields.get("count").and_then(|node| self.number(node, "rate.count", 2..=MAX_RATE));
        let window = self.window(node, &fields, "rate");
        Some(Rate { count: count? as u32, window })
    }

    fn number(&mut self, node: &Node, field: &str, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let scalar = self.scalar(node, field)?;
        match scalar.text.parse().ok().filter(|number| range.contains(number)) {
            Some(number) => Some(number),
            None => {
                let message = format!("is a number from {} to {}", range.start(), range.end());
                self.refuse(node, field, message);
                None
            }
        }
    }

    pub(super) fn window(&mut self, node: &Node, fields: &Fields<'_>, field: &str) -> Window {
        let nothing = Window::Calls(1);
        match (fields.get("within"), fields.get("within_calls")) {
            (Some(within), None) => {
                let field = below(field, "within");
                let Some(scalar) = self.scalar(within, &field) else { return nothing };
                match duration_ns(scalar.text.trim()) {
                    Some(ns) => Window::Nanoseconds(ns),
                    None => {
                        self.refuse(
                            within,
                            &field,
                            "is a duration such as `250ms`, `10s` or `5m`, a day at most",
                        );
                        nothing
                    }
                }
            }
            (None, Some(calls)) => {
                let most = u64::from(u32::MAX);
                let calls = self.number(calls, &below(field, "within_calls"), 2..=most);
                Window::Calls(calls.unwrap_or(1))
            }
            (None, None) => {
                self.refuse(node, field, "needs `within` or `within_calls`");
                nothing
            }
            (Some(_), Some(_)) => {
                self.refuse(node, field, "has `within` or `within_calls`, not both");
                nothing
            }
        }
    }
}

fn duration_ns(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit_ns = match unit {
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit_ns).filter(|ns| (1..=MAX_WINDOW_NS).contains(ns))
}
