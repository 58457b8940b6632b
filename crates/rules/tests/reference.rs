//! The committed reference is what the loader checks by.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::path::Path;

use hypovisor_rules::reference;

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
