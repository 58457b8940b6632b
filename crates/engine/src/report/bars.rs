//! The most frequent hypercalls as bars, coloured by domain.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::markup::{Anchor, WIDTH, close_svg, escape, open_svg, shorten, text};
use super::palette::Palette;
use crate::stats::{Summary, units};

const SHOWN: usize = 14;
const LEFT: f64 = 212.0;
const RIGHT: f64 = 132.0;
const ROW: f64 = 27.0;
const BAR: f64 = 17.0;
const NAME_CHARACTERS: usize = 26;

struct Row<'a> {
    name: &'a str,
    /// Counts by place in the palette.
    counts: Vec<u64>,
    total: u64,
}

pub(super) fn write(out: &mut String, summary: &Summary, palette: &Palette) {
    let rows = rows(summary, palette);
    let all: u64 = rows.iter().map(|row| row.total).sum();
    let longest = rows.first().map_or(1, |row| row.total.max(1));
    let shown = rows.len().min(SHOWN);
    open_svg(out, shown as f64 * ROW + 6.0, "The most frequent hypercalls by domain");
    for (index, row) in rows.iter().take(SHOWN).enumerate() {
        let scale = (WIDTH - LEFT - RIGHT) / longest as f64;
        write_row(out, row, index as f64 * ROW, scale, all, palette);
    }
    close_svg(out);
    if rows.len() > shown {
        let rest: u64 = rows.iter().skip(SHOWN).map(|row| row.total).sum();
        let _ = writeln!(
            out,
            "<p class=\"soft\">{} further hypercalls make up the remaining {} calls.</p>",
            rows.len() - shown,
            units::count(rest)
        );
    }
}

fn rows<'a>(summary: &'a Summary, palette: &Palette) -> Vec<Row<'a>> {
    let mut by_name: HashMap<&str, Vec<u64>> = HashMap::new();
    for call in &summary.hypercalls {
        let counts = by_name.entry(&call.name).or_insert_with(|| vec![0; palette.len()]);
        counts[palette.place(call.domain)] += call.count;
    }
    let row = |(name, counts): (&'a str, Vec<u64>)| Row { name, total: counts.iter().sum(), counts };
    let mut rows: Vec<Row<'a>> = by_name.into_iter().map(row).collect();
    rows.sort_by(|a, b| b.total.cmp(&a.total).then_with(|| a.name.cmp(b.name)));
    rows
}

fn write_row(out: &mut String, row: &Row<'_>, top: f64, scale: f64, all: u64, palette: &Palette) {
    let baseline = top + BAR / 2.0 + 5.0;
    text(out, "name", (LEFT - 12.0, baseline), Anchor::End, &shorten(row.name, NAME_CHARACTERS));
    let mut x = LEFT;
    for (place, count) in row.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let width = *count as f64 * scale;
        let about = format!("{}: {} calls", escape(palette.label(place)), units::count(*count));
        let class = palette.class(place);
        let _ = writeln!(
            out,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{BAR}\"><title>{about}</title></rect>",
            width.max(0.6)
        );
        x += width;
    }
    let value = format!("{} · {}", units::count(row.total), units::percent(row.total, all));
    text(out, "value", (x + 9.0, baseline), Anchor::Start, &value);
}
