//! A recording as one HTML page: no script, nothing to load, light or dark as the reader has it.
//!
//! Names that guests chose are escaped on their way in, in [`markup`].

mod bars;
mod latency;
mod markup;
mod palette;
mod tables;
mod timeline;

use std::fmt::Write as _;

use markup::escape;
use palette::Palette;

use crate::recording::Manifest;
use crate::stats::{Stats, Summary, units};
use crate::utc;

const STYLE: &str = include_str!("style.css");

/// Renders the whole page.
#[must_use]
pub fn html(manifest: &Manifest, stats: &Stats) -> String {
    let summary = stats.summary(manifest);
    let palette = Palette::of(&summary);
    let mut out = String::new();
    write_head(&mut out, manifest);
    write_figures(&mut out, &summary);
    if summary.events == 0 {
        out.push_str("<p>No hypercall was recorded.</p>\n");
    } else {
        write_sections(&mut out, stats, &summary, &palette);
    }
    tables::write_details(&mut out, manifest);
    let version = escape(&manifest.hypovisor_version);
    let _ = write!(out, "<footer>Recorded by Hypovisor {version}</footer>\n</main>\n</body>\n</html>\n");
    out
}

fn xen_name(manifest: &Manifest) -> String {
    if manifest.xen_version.is_empty() {
        "Xen".to_owned()
    } else {
        format!("Xen {}", escape(&manifest.xen_version))
    }
}

fn write_head(out: &mut String, manifest: &Manifest) {
    let xen = xen_name(manifest);
    let _ = write!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Hypercalls of {xen}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>Hypercalls of {xen}</h1>\n<p class=\"lead\">{} to {}</p>\n",
        utc::readable(manifest.start_time_ns),
        utc::readable(manifest.end_time_ns),
    );
}

fn write_figures(out: &mut String, summary: &Summary) {
    let seconds = summary.wall_seconds;
    let rate = if seconds > 0.0 { summary.events as f64 / seconds } else { 0.0 };
    let failed = summary.domains.iter().map(|domain| domain.failed).sum();
    let share = |part| units::percent(part, summary.events);
    let dropped_share = units::percent(summary.dropped, summary.events + summary.dropped);
    out.push_str("<dl class=\"figures\">\n");
    write_figure(out, "Events", &units::count(summary.events), "", false);
    write_figure(out, "Mean rate", &units::short(rate), "/s", false);
    write_figure(out, "Duration", &units::seconds(seconds), "", false);
    write_figure(out, "Failed", &units::count(failed), &share(failed), false);
    write_figure(out, "Dropped", &units::count(summary.dropped), &dropped_share, summary.dropped > 0);
    out.push_str("</dl>\n");
}

fn write_figure(out: &mut String, name: &str, value: &str, note: &str, alarm: bool) {
    let class = if alarm { "figure alarm" } else { "figure" };
    let _ =
        writeln!(out, "<div class=\"{class}\"><dt>{name}</dt><dd>{value} <small>{note}</small></dd></div>");
}

fn write_sections(out: &mut String, stats: &Stats, summary: &Summary, palette: &Palette) {
    out.push_str("<h2>Domains</h2>\n");
    tables::write_domains(out, summary, palette);
    out.push_str(
        "<h2>Hypercalls over time</h2>\n<p class=\"soft\">Events per second, stacked by domain.</p>\n",
    );
    palette.write_legend(out);
    timeline::write(out, &stats.timeline, palette);
    out.push_str(
        "<h2>Most frequent hypercalls</h2>\n\
         <p class=\"soft\">Calls by domain. What Xen preempted and let go on counts once.</p>\n",
    );
    palette.write_legend(out);
    bars::write(out, summary, palette);
    out.push_str(
        "<h2>How long they take</h2>\n<p class=\"soft\">Time from entry to return, on a logarithmic scale, in \
         all domains. Each shape is scaled to its own peak; the solid line is the median, the dashed one the 99th \
         percentile.</p>\n",
    );
    latency::write(out, stats);
    out.push_str("<h2>Failed calls</h2>\n");
    tables::write_failures(out, summary, palette);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{Call, Outcome};
    use crate::domains::{Domain, DomainKind};
    use crate::testing::call;

    const HOSTILE: &str = "</title><script>alert(1)</script>\"'&";

    #[test]
    fn names_of_guests_cannot_leave_their_place() {
        let mut stats = Stats::default();
        stats.add(&call(4711, [0; 6], Outcome::Returned(-1)));
        let manifest = Manifest {
            xen_version: HOSTILE.to_owned(),
            profile_source: HOSTILE.to_owned(),
            qemu_command: vec![HOSTILE.to_owned()],
            domains: vec![Domain { id: 3, name: HOSTILE.to_owned(), kind: DomainKind::Hvm }],
            ..Manifest::default()
        };
        let page = html(&manifest, &stats);
        assert!(!page.contains("<script") && page.contains("&lt;script&gt;"));
        assert_eq!(page.matches("</title>").count(), page.matches("<title>").count());
    }

    #[test]
    fn an_empty_recording_has_a_page() {
        assert!(html(&Manifest::default(), &Stats::default()).contains("No hypercall was recorded."));
    }

    #[test]
    fn any_single_call_can_be_drawn() {
        for duration_ns in [None, Some(0), Some(1), Some(u64::MAX)] {
            for time_ns in [i64::MIN, 0, i64::MAX] {
                let mut stats = Stats::default();
                stats.add(&Call { duration_ns, time_ns, ..call(1, [0; 6], Outcome::Unfinished) });
                let page = html(&Manifest::default(), &stats);
                assert!(!page.contains("NaN") && !page.contains("inf "), "{duration_ns:?} {time_ns}");
            }
        }
    }
}
