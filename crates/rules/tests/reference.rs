//! The committed reference is what the loader checks by, and what is said of the shipped rules is so.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::path::Path;

use hypovisor_rules::{Rules, reference};

#[test]
fn the_committed_reference_is_up_to_date() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    for (name, generated) in
        [("rules.md", reference::markdown()), ("rules.schema.json", reference::json_schema())]
    {
        let committed = std::fs::read_to_string(docs.join(name)).unwrap_or_default();
        assert!(committed == generated, "docs/{name} is stale: cargo run -p hypovisor-rules --example docs");
    }
}

/// The example at its beginning is a rule.
#[test]
fn the_example_loads() {
    let text = reference::markdown();
    let example = text.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(support::load(example).len(), 1);
}

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn the_packs_tables_are_up_to_date() {
    let rules = Rules::load(&root().join("rules/xen")).unwrap();
    let readme = std::fs::read_to_string(root().join("rules/xen/README.md")).unwrap();
    assert!(
        reference::renew_pack(&readme, &rules) == readme,
        "rules/xen/README.md is stale: cargo run -p hypovisor-rules --example docs"
    );
    for rule in rules.iter() {
        assert!(readme.contains(&format!("| [{}](", rule.id)), "{} is in no table", rule.id);
    }
}

/// Every rule that names an advisory is a row's, and what the page leads to is there.
#[test]
fn the_coverage_is_of_the_rules_that_are_there() {
    let coverage = std::fs::read_to_string(root().join("docs/coverage.md")).unwrap();
    let rules = Rules::load(&root().join("rules/xen")).unwrap();
    for rule in rules.iter().filter(|rule| !rule.id.starts_with("GEN-")) {
        assert!(coverage.contains(&format!("[{}](", rule.id)), "docs/coverage.md does not have {}", rule.id);
    }
    assert!(coverage.contains(&format!("All {} rules", rules.len())));
    for link in coverage.split("](").skip(1).filter_map(|rest| rest.split_once(')')) {
        assert!(root().join("docs").join(link.0).exists(), "docs/coverage.md leads to {}", link.0);
    }
}
