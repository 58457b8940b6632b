//! How long the most frequent hypercalls take: one shape each, on a common logarithmic scale.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::markup::{Anchor, WIDTH, close_svg, line, open_svg, shorten, text};
use crate::stats::{Histogram, Stats, units};

const SHOWN: usize = 12;
const LEFT: f64 = 212.0;
const RIGHT: f64 = 196.0;
const TOP: f64 = 30.0;
const ROW: f64 = 44.0;
const SHAPE: f64 = 32.0;
const BINS_PER_DECADE: f64 = 24.0;
const NAME_CHARACTERS: usize = 26;
const MEDIAN_COLUMN: f64 = WIDTH - 112.0;
const TAIL_COLUMN: f64 = WIDTH - 4.0;

/// The horizontal scale, in decades of nanoseconds.
struct Scale {
    first: f64,
    last: f64,
}

impl Scale {
    /// From the decade below the fastest to the one above all but the slowest.
    fn of(rows: &[(String, Histogram)]) -> Self {
        let bound = |fraction| rows.iter().filter_map(move |(_, histogram)| histogram.quantile(fraction));
        let decade = |value: Option<u64>| (value.unwrap_or(1).max(1) as f64).log10();
        let first = decade(bound(0.01).min()).floor();
        Self { first, last: decade(bound(0.999).max()).ceil().max(first + 1.0) }
    }

    fn x(&self, nanoseconds: f64) -> f64 {
        let share = (nanoseconds.max(1.0).log10() - self.first) / (self.last - self.first);
        LEFT + (WIDTH - LEFT - RIGHT) * share.clamp(0.0, 1.0)
    }

    fn bins(&self) -> usize {
        ((self.last - self.first) * BINS_PER_DECADE).round() as usize
    }

    fn bin(&self, nanoseconds: u64) -> usize {
        let decades = (nanoseconds.max(1) as f64).log10() - self.first;
        ((decades * BINS_PER_DECADE).max(0.0) as usize).min(self.bins() - 1)
    }

    /// Where a bin begins, in nanoseconds.
    fn edge(&self, bin: usize) -> f64 {
        10_f64.powf(self.first + bin as f64 / BINS_PER_DECADE)
    }
}

pub(super) fn write(out: &mut String, stats: &Stats) {
    let rows = rows(stats);
    if rows.is_empty() {
        out.push_str("<p>No call returned.</p>\n");
        return;
    }
    let scale = Scale::of(&rows);
    let bottom = TOP + rows.len() as f64 * ROW;
    open_svg(out, bottom + 46.0, "Distribution of durations of the most frequent hypercalls");
    write_axis(out, &scale, bottom);
    for (index, (name, histogram)) in rows.iter().enumerate() {
        write_row(out, name, histogram, TOP + (index + 1) as f64 * ROW, &scale);
    }
    close_svg(out);
}

/// The most frequent hypercalls over all domains, with their durations.
fn rows(stats: &Stats) -> Vec<(String, Histogram)> {
    let mut by_number: HashMap<u64, Histogram> = HashMap::new();
    for ((_, number), call) in &stats.calls {
        by_number.entry(*number).or_default().merge(&call.durations);
    }
    let filled = by_number.into_iter().filter(|(_, histogram)| histogram.count() > 0);
    let mut rows: Vec<_> =
        filled.map(|(number, histogram)| (crate::stats::counted_name(number), histogram)).collect();
    rows.sort_by(|(a, one), (b, other)| other.count().cmp(&one.count()).then_with(|| a.cmp(b)));
    rows.truncate(SHOWN);
    rows
}

fn write_axis(out: &mut String, scale: &Scale, bottom: f64) {
    let first = scale.first as i32;
    for decade in first..=scale.last as i32 {
        let nanoseconds = 10_f64.powi(decade);
        let x = scale.x(nanoseconds);
        line(out, "grid", (x, TOP), (x, bottom));
        let label = decade_label(nanoseconds);
        text(out, "tick value", (x, bottom + 20.0), Anchor::Middle, &label);
    }
    text(out, "axis", (MEDIAN_COLUMN, TOP - 10.0), Anchor::End, "median");
    text(out, "axis", (TAIL_COLUMN, TOP - 10.0), Anchor::End, "99th percentile");
    let middle = LEFT + (WIDTH - LEFT - RIGHT) / 2.0;
    text(out, "axis", (middle, bottom + 40.0), Anchor::Middle, "Duration");
}

fn decade_label(nanoseconds: f64) -> String {
    const UNITS: [(&str, f64); 4] = [("s", 1e9), ("ms", 1e6), ("µs", 1e3), ("ns", 1.0)];
    let found = UNITS.iter().find(|(_, unit)| nanoseconds >= *unit);
    let (name, unit) = found.copied().unwrap_or(("ns", 1.0));
    format!("{:.0} {name}", nanoseconds / unit)
}

fn write_row(out: &mut String, name: &str, histogram: &Histogram, base: f64, scale: &Scale) {
    text(out, "name", (LEFT - 12.0, base - 9.0), Anchor::End, &shorten(name, NAME_CHARACTERS));
    write_shape(out, histogram, base, scale);
    line(out, "base", (LEFT, base), (WIDTH - RIGHT, base));
    let columns = [(0.5, "median", MEDIAN_COLUMN), (0.99, "tail", TAIL_COLUMN)];
    for (fraction, class, column) in columns {
        let Some(value) = histogram.quantile(fraction) else { continue };
        let x = scale.x(value as f64);
        line(out, class, (x, base - SHAPE - 2.0), (x, base));
        text(out, "value", (column, base - 9.0), Anchor::End, &units::duration(value));
    }
}

fn write_shape(out: &mut String, histogram: &Histogram, base: f64, scale: &Scale) {
    let mut counts = vec![0_u64; scale.bins()];
    for (value, count) in histogram.iter() {
        counts[scale.bin(value)] += count;
    }
    let highest = counts.iter().copied().max().unwrap_or(1).max(1) as f64;
    let mut path = format!("M{:.1} {base:.1}", LEFT);
    for (bin, count) in counts.iter().enumerate() {
        let (left, right) = (scale.x(scale.edge(bin)), scale.x(scale.edge(bin + 1)));
        let y = base - SHAPE * *count as f64 / highest;
        let _ = write!(path, "L{left:.1} {y:.1}H{right:.1}");
    }
    let _ = writeln!(out, "<path class=\"ridge\" d=\"{path}V{base:.1}Z\"/>");
}
