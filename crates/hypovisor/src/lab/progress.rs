//! Progress bars for fetching and preparing.

use hypovisor_lab::{Progress, Unit};
use indicatif::{ProgressBar, ProgressStyle};

/// Draws a bar per step on standard error; nothing if that is no terminal.
pub(crate) struct Bars {
    current: Option<ProgressBar>,
}

impl Bars {
    pub(crate) const fn new() -> Self {
        Self { current: None }
    }
}

impl Progress for Bars {
    fn step(&mut self, name: &str, unit: Unit, total: Option<u64>) {
        self.finish();
        let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        let template = match (unit, total) {
            (Unit::Bytes, Some(_)) => "{msg:28} {bar:30} {bytes:>10}/{total_bytes} {bytes_per_sec}",
            (Unit::Bytes, None) => "{msg:28} {spinner} {bytes}",
            (Unit::Items, Some(_)) => "{msg:28} {bar:30} {pos:>6}/{len}",
            (Unit::Items, None) => "{msg:28} {spinner} {pos}",
        };
        // The templates are ours; one that does not parse would only leave the bar in its default style.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(name.to_owned());
        self.current = Some(bar);
    }

    fn done(&mut self, amount: u64) {
        if let Some(bar) = &self.current {
            bar.set_position(amount);
        }
    }

    fn finish(&mut self) {
        if let Some(bar) = self.current.take() {
            bar.finish();
        }
    }
}
