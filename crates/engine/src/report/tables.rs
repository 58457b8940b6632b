//! The report's tables.

use std::fmt::Write as _;

use super::markup::escape;
use super::palette::Palette;
use crate::recording::Manifest;
use crate::stats::{FailureSummary, Summary, units};

const SHOWN_FAILURES: usize = 40;
/// Characters of an example that are shown.
const EXAMPLE_CHARACTERS: usize = 400;

pub(super) fn write_domains(out: &mut String, summary: &Summary, palette: &Palette) {
    out.push_str(
        "<div class=\"scroll\"><table>\n<tr><th>Domain</th><th>Type</th><th class=\"number\">Events</th>\
         <th class=\"number\">Share</th><th class=\"number\">Failed</th></tr>\n",
    );
    for domain in &summary.domains {
        let class = palette.class(palette.place(domain.id));
        let _ = writeln!(
            out,
            "<tr><td><span class=\"swatch {class}\"></span>{}</td><td>{}</td><td class=\"number\">{}</td>\
             <td class=\"number\">{}</td><td class=\"number\">{}</td></tr>",
            escape(&domain.label()),
            domain.kind.name(),
            units::count(domain.events),
            units::percent(domain.events, summary.events),
            units::count(domain.failed),
        );
    }
    out.push_str("</table></div>\n");
}

pub(super) fn write_failures(out: &mut String, summary: &Summary, palette: &Palette) {
    if summary.failures.is_empty() {
        out.push_str("<p>No call returned an error.</p>\n");
        return;
    }
    out.push_str(
        "<p class=\"soft\">Calls that returned an errno, with the first of each kind.</p>\n\
         <div class=\"scroll\"><table>\n<tr><th>Domain</th><th>Call</th><th>Error</th>\
         <th class=\"number\">Count</th><th>First such call</th></tr>\n",
    );
    for failure in summary.failures.iter().take(SHOWN_FAILURES) {
        write_failure(out, failure, palette);
    }
    out.push_str("</table></div>\n");
    let rest = summary.failures.len().saturating_sub(SHOWN_FAILURES);
    if rest > 0 {
        let _ = writeln!(out, "<p class=\"soft\">{rest} rarer kinds of failure are left out.</p>");
    }
}

fn write_failure(out: &mut String, failure: &FailureSummary, palette: &Palette) {
    let class = palette.class(palette.place(failure.domain));
    let _ = writeln!(
        out,
        "<tr><td class=\"nowrap\"><span class=\"swatch {class}\"></span>{}</td><td class=\"mono example nowrap\">{}</td><td>{}</td>\
         <td class=\"number\">{}</td><td class=\"mono example\">{}</td></tr>",
        failure.domain,
        escape(failure.sub_op.as_deref().unwrap_or(&failure.hypercall)),
        escape(&failure.errno),
        units::count(failure.count),
        escape(&super::markup::shorten(&failure.example, EXAMPLE_CHARACTERS)),
    );
}

/// What few readers need, folded away.
pub(super) fn write_details(out: &mut String, manifest: &Manifest) {
    out.push_str("<details><summary>About this recording</summary>\n<table>\n");
    let command = manifest.qemu_command.join(" ");
    let adapter = match manifest.plugin_api {
        0 => "KVM".to_owned(),
        level => format!("TCG (QEMU plugin API {level})"),
    };
    let vcpus = manifest.vcpus.to_string();
    let rows = [
        ("Description of Xen", manifest.profile_source.as_str()),
        ("Accelerator", &adapter),
        ("CPUs of Xen", &vcpus),
        ("QEMU command line", &command),
    ];
    for (name, value) in rows {
        let _ = writeln!(out, "<tr><th>{name}</th><td class=\"example\">{}</td></tr>", escape(value));
    }
    out.push_str("</table>\n");
    write_counters(out, manifest);
    out.push_str("</details>\n");
}

fn write_counters(out: &mut String, manifest: &Manifest) {
    out.push_str(
        "<table>\n<tr><th>CPU</th><th class=\"number\">Events</th><th class=\"number\">Lost events</th>\
         <th class=\"number\">Lost results</th><th class=\"number\">Waits</th></tr>\n",
    );
    for (pcpu, counters) in manifest.pcpus.iter().enumerate() {
        let _ = write!(out, "<tr><td>{pcpu}</td>");
        for value in [counters.calls, counters.lost_calls, counters.lost_results, counters.waits] {
            let _ = write!(out, "<td class=\"number\">{}</td>", units::count(value));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table>\n");
}
