//! Rules that no campaign rehearses, with the reason that the campaigns' authors give.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context as _;
use hypovisor_campaign::Campaign;
use hypovisor_rules::Rules;
use serde_json::{Value, json};

/// Beside the campaigns: a table whose rows are a rule and the reason why it is not rehearsed.
const FILE: &str = "not-rehearsed.md";

/// Rules that no campaign rehearses, and why.
#[derive(Debug)]
pub(super) struct NotRehearsed(BTreeMap<String, String>);

impl NotRehearsed {
    /// Of these rules, those that none of these campaigns names. One for which there is no reason is told so: it was
    /// forgotten, not left out.
    pub(super) fn load(dir: &Path, rules: &Rules, campaigns: &[Campaign]) -> anyhow::Result<Self> {
        let path = dir.join(FILE);
        let table = if path.is_file() {
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?
        } else {
            String::new()
        };
        let reasons = reasons(&table);
        let rehearsed: BTreeSet<&str> =
            campaigns.iter().flat_map(|one| &one.rules).map(String::as_str).collect();
        let left = rules.iter().map(|rule| &rule.id).filter(|id| !rehearsed.contains(id.as_str()));
        let why = |id: &String| reasons.get(id.as_str()).copied().unwrap_or("no reason is given");
        Ok(Self(left.map(|id| (id.clone(), why(id).to_owned())).collect()))
    }

    pub(super) fn to_json(&self) -> Value {
        self.0.iter().map(|(rule, why)| json!({ "rule": rule, "why": why })).collect()
    }
}

/// The rows of a table of two columns.
fn reasons(table: &str) -> BTreeMap<&str, &str> {
    table
        .lines()
        .filter_map(|line| line.trim().strip_prefix('|')?.strip_suffix('|')?.split_once('|'))
        .map(|(rule, why)| (rule.trim(), why.trim()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_table_are_reasons() {
        let table = "# Rules\n\n| rule | reason |\n| --- | --- |\n| XSA-1 | Stops the guest. |\n| XSA-2 | As XSA-1. |\n";
        let found = reasons(table);
        assert_eq!((found["XSA-1"], found["XSA-2"]), ("Stops the guest.", "As XSA-1."));
        assert_eq!(found.get("XSA-3"), None);
    }

    #[test]
    fn every_shipped_rule_is_rehearsed_or_has_a_reason_and_not_both() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let rules = Rules::load(&root.join("rules/xen")).unwrap();
        let campaigns = Campaign::load_all(&root.join("attacks")).unwrap();
        let table = std::fs::read_to_string(root.join("attacks").join(FILE)).unwrap();
        let reasons: BTreeSet<&str> =
            reasons(&table).into_keys().filter(|id| rules.index_of(id).is_some()).collect();
        let left = NotRehearsed::load(&root.join("attacks"), &rules, &campaigns).unwrap();
        let left: BTreeSet<&str> = left.0.keys().map(String::as_str).collect();
        assert_eq!(left, reasons);
    }
}
