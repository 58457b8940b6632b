//! The crates of the workspace depend on each other only in the direction that `ARCHITECTURE.md` states.
//!
//! Cargo itself refuses circles; this refuses what compiles and is wrong all the same, such as a sensor that parses
//! symbols inside QEMU.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Each package and the packages of ours that it may be built of. A dependency that is allowed and not used is fine,
/// and tests may use more: only what is delivered counts, and what builds it.
const ALLOWED: [(&str, &[&str]); 19] = [
    ("machine", &[]),
    ("mapping", &["machine"]),
    ("abi", &[]),
    ("event", &["machine", "mapping"]),
    ("l1", &["machine"]),
    ("dump", &["machine"]),
    // In QEMU: no symbols, DWARF or instructions, so not `l1`.
    ("verdict", &["abi", "event"]),
    ("campaign", &["abi"]),
    ("sensor", &["machine", "mapping", "abi", "event", "verdict"]),
    ("adapter-tcg", &["machine", "mapping", "event", "sensor"]),
    ("adapter-kvm", &["machine", "mapping", "event", "sensor"]),
    ("adapter-tcg-v4", &["adapter-tcg"]),
    ("adapter-tcg-v7", &["adapter-tcg"]),
    // Not the sensor: they meet in `event` only.
    ("rules", &["abi", "event", "verdict"]),
    ("integrity", &["machine", "l1"]),
    ("engine", &["machine", "mapping", "abi", "event", "l1", "rules", "verdict", "integrity"]),
    ("lab", &[]),
    (
        "hypovisor",
        &[
            "machine",
            "abi",
            "event",
            "l1",
            "dump",
            "integrity",
            "engine",
            "lab",
            "rules",
            "campaign",
            "verdict",
        ],
    ),
    ("xtask", &["machine", "l1"]),
];

#[test]
fn dependencies_point_one_way() {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.into_iter().collect();
    let found = dependencies();
    let names: BTreeSet<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(names, allowed.keys().copied().collect(), "every package has its line in ALLOWED");
    for (package, dependencies) in &found {
        for dependency in dependencies {
            assert!(
                allowed[package.as_str()].contains(&dependency.as_str()),
                "{package} must not depend on {dependency}: see the code map in ARCHITECTURE.md"
            );
        }
    }
}

/// The list itself goes downwards: a package stands below all that it may use.
#[test]
fn what_is_allowed_has_no_circle() {
    for (index, (package, dependencies)) in ALLOWED.iter().enumerate() {
        let above: Vec<&str> = ALLOWED[..index].iter().map(|(name, _)| *name).collect();
        assert!(dependencies.iter().all(|dependency| above.contains(dependency)), "{package}");
    }
}

/// The workspace's packages and those of them that each is built of, by their short names.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--no-deps", "--format-version", "1", "--manifest-path", manifest])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let ours = |dependency: &&serde_json::Value| !dependency["path"].is_null() && dependency["kind"] != "dev";
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap().iter().filter(ours);
            (short(&package["name"]), dependencies.map(|dependency| short(&dependency["name"])).collect())
        })
        .collect()
}

fn short(name: &serde_json::Value) -> String {
    let name = name.as_str().unwrap();
    name.strip_prefix("hypovisor-").unwrap_or(name).to_owned()
}
