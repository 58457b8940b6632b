//! A policy as YAML with comments, for people.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use hypovisor_abi::Hypercall;
use hypovisor_abi::xen::XEN;

use super::{Entry, Limits, Matcher, Policy};
use crate::profile::Operation;

const PREFACE: &str = "\
# Which hypercalls each domain uses, written by `hypovisor policy`. With `--policy FILE` whatever is not listed here
# raises an alert; with `--enforce deny` it is refused as well. A domain that no entry is for is left alone.
#
# To be edited: a call that is taken out is no longer allowed; `memory_op: {}` allows all of memory_op; a limit that is
# taken out limits nothing. `max` is the largest number, size or order, `flags` are the flags that may be set; paths are
# those of conditions in rules, and `[]` stands for every element of a list.
";

impl Policy {
    /// As YAML, with comments that say how often each call was made and what was never used.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        let mut out = PREFACE.to_owned();
        let _ = writeln!(
            out,
            "\nversion: 1\n# Made from so many recordings:\nrecordings: {}\nentries:",
            self.recordings
        );
        if self.entries.is_empty() {
            out.push_str("  []\n");
        }
        self.entries.iter().for_each(|entry| write_entry(&mut out, entry));
        out
    }
}

fn write_entry(out: &mut String, entry: &Entry) {
    let (domains, calls) = (entry.domains, entry.calls);
    let used: BTreeSet<u64> =
        entry.allowed.keys().filter_map(|name| Some(Operation::parse(name)?.number)).collect();
    let unused: Vec<&str> =
        known_calls().filter(|call| !used.contains(&call.number)).map(|call| call.name).collect();
    let _ =
        writeln!(out, "\n  # {domains} {}, {calls} calls.", if domains == 1 { "domain" } else { "domains" });
    let _ = match &entry.matcher {
        Matcher::Kind(kind) => writeln!(out, "  - kind: {}", kind.name()),
        Matcher::Name(name) => writeln!(out, "  - name: {}", quoted(name)),
    };
    if !unused.is_empty() {
        let _ = writeln!(
            out,
            "    # Never used, could be switched off, {} of {} hypercalls:",
            unused.len(),
            known_calls().count()
        );
        write_list(out, "    #   ", &unused);
    }
    out.push_str("    calls:\n");
    if entry.allowed.is_empty() {
        out.push_str("      {}\n");
    }
    let mut last = None;
    for (name, limits) in &entry.allowed {
        let number = Operation::parse(name).map(|operation| operation.number);
        if number != last
            && let Some(number) = number
        {
            write_unused_sub_ops(out, entry, number);
        }
        last = number;
        write_allowed(out, name, limits);
    }
}

fn write_unused_sub_ops(out: &mut String, entry: &Entry, number: u64) {
    let Some(call) = XEN.call(number) else { return };
    let Some(ops) = call.sub_ops.map(|sub_ops| sub_ops.ops) else { return };
    let listed = |name: &str| entry.allowed.contains_key(&format!("{}/{name}", call.name));
    let unused: Vec<&str> = ops.iter().map(|op| op.name).filter(|name| !listed(name)).collect();
    if !unused.is_empty() && !entry.allowed.contains_key(call.name) {
        let _ = writeln!(out, "      # {}: {} of {} sub-ops never used:", call.name, unused.len(), ops.len());
        write_list(out, "      #   ", &unused);
    }
}

fn write_allowed(out: &mut String, name: &str, limits: &Limits) {
    let count = if limits.calls == 1 { "1 call".to_owned() } else { format!("{} calls", limits.calls) };
    if limits.max.is_empty() && limits.flags.is_empty() {
        let _ = writeln!(out, "      {name}: {{}}  # {count}");
        return;
    }
    let _ = writeln!(out, "      {name}:  # {count}");
    if !limits.max.is_empty() {
        let max: Vec<String> =
            limits.max.iter().map(|(path, most)| format!("{}: {most}", key(path))).collect();
        let _ = writeln!(out, "        max: {{{}}}", max.join(", "));
    }
    if !limits.flags.is_empty() {
        let flags = limits.flags.iter().map(|(path, names)| format!("{}: [{}]", key(path), names.join(", ")));
        let _ = writeln!(out, "        flags: {{{}}}", flags.collect::<Vec<_>>().join(", "));
    }
}

/// Names, as many on a line as fit.
fn write_list(out: &mut String, indent: &str, names: &[&str]) {
    const WIDTH: usize = 118;
    let mut column = WIDTH;
    for (at, name) in names.iter().enumerate() {
        let comma = if at + 1 < names.len() { "," } else { "" };
        if column + name.len() + 2 > WIDTH {
            if at > 0 {
                out.push('\n');
            }
            out.push_str(indent);
            column = indent.len();
        } else {
            out.push(' ');
            column += 1;
        }
        let _ = write!(out, "{name}{comma}");
        column += name.len() + comma.len();
    }
    out.push('\n');
}

/// A path as a key: brackets have a meaning in YAML.
fn key(path: &str) -> String {
    if path.contains('[') { format!("'{path}'") } else { path.to_owned() }
}

/// Foreign text, in double quotes.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

fn known_calls() -> impl Iterator<Item = &'static Hypercall> {
    XEN.calls.iter().copied().flatten()
}
