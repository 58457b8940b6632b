//! A summary as text in columns.

use std::fmt::Write as _;

use super::summary::{DomainSummary, Summary};
use super::units;

/// Control characters of a guest's name never reach a terminal.
#[must_use]
pub fn printable(name: &str) -> String {
    let shown = |character: char| if character.is_control() { '\u{fffd}' } else { character };
    name.chars().map(shown).collect()
}

/// Renders a summary: one line on the whole, the domains, the hypercalls.
#[must_use]
pub fn table(summary: &Summary) -> String {
    let mut out = String::new();
    let version = if summary.xen_version.is_empty() { "?" } else { &summary.xen_version };
    let _ = writeln!(
        out,
        "Xen {}, {}, {} events, {} dropped\n",
        printable(version),
        units::seconds(summary.wall_seconds),
        units::count(summary.events),
        units::count(summary.dropped),
    );
    write_rows(&mut out, ["DOMAIN", "TYPE", "EVENTS", "FAILED"], "<<>>", domain_rows(summary));
    out.push('\n');
    let heads = ["DOMAIN", "HYPERCALL", "COUNT", "CONTINUED", "FAILED", "P50", "P99"];
    write_rows(&mut out, heads, "<<>>>>>", hypercall_rows(summary));
    out
}

fn domain_label(domain: &DomainSummary) -> String {
    printable(&domain.label())
}

fn domain_rows(summary: &Summary) -> Vec<[String; 4]> {
    let row = |domain: &DomainSummary| {
        let kind = domain.kind.name().to_owned();
        [domain_label(domain), kind, units::count(domain.events), units::count(domain.failed)]
    };
    summary.domains.iter().map(row).collect()
}

fn hypercall_rows(summary: &Summary) -> Vec<[String; 7]> {
    let duration = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), units::duration);
    let mut rows = Vec::new();
    for call in &summary.hypercalls {
        let domain = summary.domains.iter().find(|domain| domain.id == call.domain);
        rows.push([
            domain.map_or_else(|| call.domain.to_string(), domain_label),
            printable(&call.name),
            units::count(call.count),
            units::count(call.continuations),
            units::count(call.failed),
            duration(call.p50_ns),
            duration(call.p99_ns),
        ]);
    }
    rows
}

/// Writes rows under their heads; `align` has one `<` or `>` for each column.
fn write_rows<const N: usize>(out: &mut String, heads: [&str; N], align: &str, rows: Vec<[String; N]>) {
    let mut widths = heads.map(|head| head.chars().count());
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut write_row = |cells: [&str; N]| {
        let mut line = String::new();
        for ((cell, width), side) in cells.into_iter().zip(widths).zip(align.chars()) {
            let _ = match side {
                '<' => write!(line, "{cell:<width$}  "),
                _ => write!(line, "{cell:>width$}  "),
            };
        }
        let _ = writeln!(out, "{}", line.trim_end());
    };
    write_row(heads);
    for row in &rows {
        write_row(row.each_ref().map(String::as_str));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{Call, CallId, Outcome};
    use crate::domains::{Domain, DomainKind};
    use crate::recording::Manifest;
    use crate::stats::Stats;
    use crate::testing::call;

    fn summary() -> Summary {
        let mut stats = Stats::default();
        for _ in 0..1234 {
            stats.add(&call(29, [0; 6], Outcome::Returned(0)));
        }
        let preempted = call(12, [1, 0, 0, 0, 0, 0], Outcome::Preempted);
        stats.add(&preempted);
        let continues = Some(CallId { pcpu: 1, sequence: 7 });
        stats.add(&Call { continues, outcome: Outcome::Returned(-22), ..preempted });
        let domain = Domain { id: 3, name: "evil\u{1b}[31m".to_owned(), kind: DomainKind::Pv };
        let end_time_ns = 12_300_000_000;
        let manifest = Manifest {
            xen_version: "4.17.5".to_owned(),
            domains: vec![domain],
            end_time_ns,
            ..Manifest::default()
        };
        stats.summary(&manifest)
    }

    #[test]
    fn continuations_are_not_calls_of_their_own() {
        let summary = summary();
        let memory_op = summary.hypercalls.iter().find(|call| call.name == "memory_op").unwrap();
        assert_eq!((memory_op.count, memory_op.continuations, memory_op.failed), (1, 1, 1));
        assert_eq!((summary.events, summary.domains[0].events, summary.domains[0].failed), (1236, 1236, 1));
        assert_eq!((&*summary.failures[0].errno, summary.failures[0].count), ("EINVAL", 1));
    }

    #[test]
    fn columns_are_aligned_and_names_harmless() {
        let text = table(&summary());
        assert!(text.starts_with("Xen 4.17.5, 12.3 s, 1,236 events, 0 dropped\n"), "{text}");
        let line = "3 evil\u{fffd}[31m  sched_op   1,234          0       0  14.1 µs  14.1 µs";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn a_summary_survives_json() {
        let summary = summary();
        let text = serde_json::to_string(&summary).unwrap();
        assert_eq!(serde_json::from_str::<Summary>(&text).unwrap(), summary);
    }
}
