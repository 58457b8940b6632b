//! The evaluation, for people.

use std::fmt::Write as _;
use std::io::Write as _;

use serde_json::Value;

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#1b1f24}\
    table{border-collapse:collapse;margin:.5rem 0 1.5rem}td,th{padding:.25rem .7rem;border-bottom:1px solid #d5d9de;text-align:left}\
    td.n{text-align:right;font-variant-numeric:tabular-nums}.bad{color:#b42318;font-weight:600}.good{color:#17643a}\
    @media(prefers-color-scheme:dark){body{background:#14171a;color:#e4e7ea}td,th{border-color:#333a41}}";

/// One file that opens anywhere.
pub(crate) fn html(score: &Value) -> String {
    let mut out = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Hypovisor: evaluation</title><style>{STYLE}</style>\
         <h1>How good is the detection?</h1><p>Xen {}, {} rules (fingerprint {}), {} hypercalls seen, {} dropped.</p>",
        escape(&text(&score["xen_version"])),
        score["rules"]["count"],
        escape(&text(&score["rules"]["fingerprint"])),
        score["calls"],
        score["dropped"],
    );
    out.push_str("<h2>In short</h2><table>");
    for (what, value) in facts(score) {
        let _ = write!(out, "<tr><th>{}</th><td>{}</td></tr>", escape(&what), escape(&value));
    }
    out.push_str(
        "</table><h2>Benign workloads</h2><table><tr><th>workload<th>seconds<th>false alerts<th>problem</tr>",
    );
    for workload in items(&score["workloads"]) {
        let seconds = format!("{:.1}", workload["seconds"].as_f64().unwrap_or(0.0));
        row(
            &mut out,
            &[text(&workload["name"]), seconds, text(&workload["false_alerts"]), text(&workload["problem"])],
        );
    }
    out.push_str("</table><h2>Campaigns</h2><table><tr><th>campaign<th>kind<th>class<th>rules<th>also alerted<th>verdict</tr>");
    for campaign in items(&score["campaigns"]) {
        write_campaign(&mut out, campaign);
    }
    out.push_str("</table><h2>Rules</h2><table><tr><th>rule<th>true +<th>false −<th>false +<th>true −</tr>");
    for (id, counts) in score["rule_results"].as_object().into_iter().flatten() {
        let count = |key: &str| text(&counts[key]);
        row(
            &mut out,
            &[
                id.clone(),
                count("true_positives"),
                count("false_negatives"),
                count("false_positives"),
                count("true_negatives"),
            ],
        );
    }
    out.push_str("</table><h2>Not detected, and why</h2><table><tr><th>campaign or rule<th>what became of it<th>why</tr>");
    for (what, became, why) in undetected(score) {
        row(&mut out, &[what, became.to_owned(), why]);
    }
    out.push_str("</table><h2>Versions</h2><table>");
    for bundle in ["xen_packages", "qemu_packages"] {
        for (package, version) in score["versions"][bundle].as_object().into_iter().flatten() {
            row(&mut out, &[package.clone(), text(version)]);
        }
    }
    out.push_str("</table>");
    out
}

/// Attacks that were missed, campaigns that were not made, rules that no campaign rehearses.
fn undetected(score: &Value) -> Vec<(String, &'static str, String)> {
    let missed = items(&score["campaigns"]).filter(|campaign| !campaign["why_missed"].is_null());
    let missed = missed.map(|campaign| (text(&campaign["id"]), "missed", text(&campaign["why_missed"])));
    let skipped = items(&score["skipped"]);
    let skipped = skipped.map(|one| (text(&one["campaign"]), "not made", text(&one["why"])));
    let silent = items(&score["not_rehearsed"]);
    let silent = silent.map(|one| (text(&one["rule"]), "not rehearsed", text(&one["why"])));
    missed.chain(skipped).chain(silent).collect()
}

fn write_campaign(out: &mut String, campaign: &Value) {
    let join = |key: &str| items(&campaign[key]).map(text).collect::<Vec<_>>().join(", ");
    let rules: Vec<String> = items(&campaign["rules"]).map(text).collect();
    let also: Vec<String> = items(&campaign["alerts"]).map(text).filter(|id| !rules.contains(id)).collect();
    let (class, verdict) = verdict(campaign);
    let _ = write!(
        out,
        "<tr><td>{}<td>{}<td>{}<td>{}<td>{}<td class=\"{class}\">{}</tr>",
        escape(&text(&campaign["id"])),
        escape(&text(&campaign["kind"])),
        escape(&text(&campaign["class"])),
        escape(&join("rules")),
        escape(&also.join(", ")),
        escape(&verdict),
    );
}

fn verdict(campaign: &Value) -> (&'static str, String) {
    let missed: Vec<String> = items(&campaign["missed"]).map(text).collect();
    if !missed.is_empty() {
        return ("bad", format!("missed: {}", missed.join(", ")));
    }
    if campaign["kind"] == "benign" && items(&campaign["alerts"]).next().is_some() {
        return ("bad", "false alert".to_owned());
    }
    let odd = if campaign["as_expected"] == true { "" } else { " (Xen answered otherwise than expected)" };
    ("good", if campaign["kind"] == "benign" { format!("quiet{odd}") } else { format!("detected{odd}") })
}

fn row(out: &mut String, cells: &[String]) {
    out.push_str("<tr>");
    for (index, cell) in cells.iter().enumerate() {
        let class = if index > 0 && cell.parse::<f64>().is_ok() { " class=\"n\"" } else { "" };
        let _ = write!(out, "<td{class}>{}", escape(cell));
    }
    out.push_str("</tr>");
}

/// What matters most.
fn facts(score: &Value) -> Vec<(String, String)> {
    let mut facts = Vec::new();
    for (class, counts) in score["classes"].as_object().into_iter().flatten() {
        facts.push((
            format!("class {class}"),
            format!("{} of {} campaigns detected", counts["detected"], counts["campaigns"]),
        ));
    }
    let false_alerts = &score["false_alerts"];
    facts.push((
        "false alerts".to_owned(),
        format!(
            "{} ({:.2} per million calls), {} of severity high or critical",
            false_alerts["count"],
            false_alerts["per_million_calls"].as_f64().unwrap_or(0.0),
            false_alerts["high_or_critical"]
        ),
    ));
    if let Some(ratio) = score["cost"]["ratio_of_medians"].as_f64() {
        let best = score["cost"]["ratio_of_best_rounds"].as_f64().unwrap_or(0.0);
        let text = format!("a null hypercall takes {ratio:.2} times as long ({best:.2} in best rounds)");
        facts.push(("cost of the rules".to_owned(), text));
    }
    let milliseconds = |key: &str| score["latency"][key].as_f64().unwrap_or(0.0) / 1e6;
    facts.push((
        "call to alert".to_owned(),
        format!("median {:.2} ms, 99 % within {:.2} ms", milliseconds("median_ns"), milliseconds("p99_ns")),
    ));
    facts
}

/// The table on standard output.
pub(crate) fn print(score: &Value) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for (what, value) in facts(score) {
        writeln!(out, "{what:>20}  {value}")?;
    }
    for campaign in items(&score["campaigns"]) {
        let (class, verdict) = verdict(campaign);
        if class == "bad" {
            writeln!(out, "{:>20}  {verdict}", text(&campaign["id"]))?;
        }
    }
    for (rule, count) in score["false_alerts"]["by_rule"].as_object().into_iter().flatten() {
        writeln!(out, "{:>20}  {count} false alerts", rule)?;
    }
    Ok(())
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
