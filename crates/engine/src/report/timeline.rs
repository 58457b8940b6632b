//! Hypercalls over time, stacked by domain.

use std::fmt::Write as _;

use super::markup::{Anchor, WIDTH, close_svg, escape, line, open_svg, step, text};
use super::palette::Palette;
use crate::stats::{Timeline, units};

const BINS: usize = 140;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 8.0;
const TOP: f64 = 14.0;
const PLOT_HEIGHT: f64 = 220.0;
const HEIGHT: f64 = TOP + PLOT_HEIGHT + 46.0;
const PLOT_WIDTH: f64 = WIDTH - LEFT - RIGHT;
/// A last bin that covers less than this share of its width counts as covering it.
const LEAST_COVER: f64 = 0.25;

/// Rates by bin and place in the palette.
struct Rates {
    bins: Vec<Vec<f64>>,
    /// Seconds in a bin.
    width: f64,
    /// Seconds in all.
    span: f64,
    highest: f64,
}

pub(super) fn write(out: &mut String, timeline: &Timeline, palette: &Palette) {
    let rates = rates(timeline, palette);
    open_svg(out, HEIGHT, "Hypercalls per second over time, stacked by domain");
    write_axes(out, &rates);
    let mut floor = vec![0.0; rates.bins.len()];
    for place in 0..palette.len() {
        write_layer(out, &rates, place, palette.class(place), &mut floor);
    }
    line(out, "base", (LEFT, TOP + PLOT_HEIGHT), (LEFT + PLOT_WIDTH, TOP + PLOT_HEIGHT));
    write_hovers(out, &rates, palette);
    close_svg(out);
}

fn rates(timeline: &Timeline, palette: &Palette) -> Rates {
    let (width_ns, domains) = timeline.bins(BINS);
    let (first, last) = timeline.span();
    let width = width_ns as f64 / 1e9;
    let count = domains.values().map(Vec::len).max().unwrap_or(0);
    let span = ((last as f64 - first as f64) / 1e9).max(width * LEAST_COVER);
    let mut bins = vec![vec![0.0; palette.len()]; count];
    for (domain, counts) in &domains {
        for (index, calls) in counts.iter().enumerate() {
            let covered = (span - index as f64 * width).clamp(width * LEAST_COVER, width);
            bins[index][palette.place(*domain)] += *calls as f64 / covered;
        }
    }
    let highest = bins.iter().map(|bin| bin.iter().sum::<f64>()).fold(0.0, f64::max);
    Rates { bins, width, span, highest }
}

impl Rates {
    fn x(&self, seconds: f64) -> f64 {
        LEFT + PLOT_WIDTH * (seconds / self.span).clamp(0.0, 1.0)
    }

    /// The highest rate that the plot has room for.
    fn top(&self) -> f64 {
        self.highest.max(f64::MIN_POSITIVE) * 1.04
    }

    fn y(&self, rate: f64) -> f64 {
        TOP + PLOT_HEIGHT * (1.0 - rate / self.top())
    }

    fn bin_edges(&self, index: usize) -> (f64, f64) {
        let begin = index as f64 * self.width;
        (self.x(begin), self.x(begin + self.width))
    }
}

fn write_axes(out: &mut String, rates: &Rates) {
    let distance = step(rates.top(), 5.0);
    let mut rate = 0.0;
    while rate <= rates.top() {
        let y = rates.y(rate);
        line(out, "grid", (LEFT, y), (LEFT + PLOT_WIDTH, y));
        text(out, "tick value", (LEFT - 8.0, y + 4.0), Anchor::End, &units::short(rate));
        rate += distance;
    }
    let below = TOP + PLOT_HEIGHT;
    let (unit, name) = time_unit(rates.span);
    let distance = step(rates.span / unit, 8.0);
    for tick in 0..=20 {
        let at = f64::from(tick) * distance;
        // A label too near the end would hang over the edge.
        if at * unit > rates.span * 0.995 {
            break;
        }
        let x = rates.x(at * unit);
        line(out, "base", (x, below), (x, below + 5.0));
        text(out, "tick value", (x, below + 20.0), Anchor::Middle, &number(at));
    }
    let title = format!("{name} since the first event");
    text(out, "axis", (LEFT + PLOT_WIDTH / 2.0, below + 40.0), Anchor::Middle, &title);
}

fn time_unit(span: f64) -> (f64, &'static str) {
    match span {
        span if span < 2e-3 => (1e-6, "Microseconds"),
        span if span < 2.0 => (1e-3, "Milliseconds"),
        span if span < 300.0 => (1.0, "Seconds"),
        span if span < 4.0 * 3600.0 => (60.0, "Minutes"),
        _ => (3600.0, "Hours"),
    }
}

/// A tick's number, without digits that say nothing.
fn number(value: f64) -> String {
    let rounded = (value * 1e6).round() / 1e6;
    format!("{rounded}")
}

/// Draws one domain as a stepped area on top of `floor`, and raises that.
fn write_layer(out: &mut String, rates: &Rates, place: usize, class: &str, floor: &mut [f64]) {
    let mut upper = String::new();
    let mut lower = Vec::new();
    for (index, bin) in rates.bins.iter().enumerate() {
        let (left, right) = rates.bin_edges(index);
        let Some(base) = floor.get_mut(index) else { continue };
        lower.push((left, right, rates.y(*base)));
        *base += bin.get(place).copied().unwrap_or(0.0);
        let y = rates.y(*base);
        let command = if index == 0 { 'M' } else { 'L' };
        let _ = write!(upper, "{command}{left:.1} {y:.1}H{right:.1}");
    }
    for (left, right, y) in lower.into_iter().rev() {
        let _ = write!(upper, "L{right:.1} {y:.1}H{left:.1}");
    }
    let _ = writeln!(out, "<path class=\"{class}\" d=\"{upper}Z\"/>");
}

/// Invisible columns that tell their numbers when pointed at.
fn write_hovers(out: &mut String, rates: &Rates, palette: &Palette) {
    for (index, bin) in rates.bins.iter().enumerate() {
        let (left, right) = rates.bin_edges(index);
        let begin = units::seconds(index as f64 * rates.width);
        let mut about = format!("{begin} after the first event");
        for (place, rate) in bin.iter().enumerate().filter(|(_, rate)| **rate > 0.0) {
            let _ = write!(about, "\n{}: {}/s", escape(palette.label(place)), units::short(*rate));
        }
        let _ = writeln!(
            out,
            "<rect class=\"hover\" x=\"{left:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{PLOT_HEIGHT}\"><title>{about}</title></rect>",
            right - left
        );
    }
}
