//! The rules that ship have no errors.

use std::path::Path;

use hypovisor_rules::{Enforce, Rules};

#[test]
fn the_pack_for_xen_loads() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../rules/xen");
    if !directory.exists() {
        return;
    }
    let rules = Rules::load(&directory).unwrap_or_else(|error| panic!("{error}"));
    assert!(!rules.is_empty());
    for enforce in [Enforce::Observe, Enforce::WouldDeny, Enforce::Deny] {
        rules.for_sensor(enforce).unwrap_or_else(|error| panic!("{error}"));
    }
}
