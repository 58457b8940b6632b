//! Every campaign that ships is detected on a real Xen, and nothing benign raises an alert.

use std::path::Path;

use serde_json::Value;

use crate::support::{hypovisor, one_machine, run, text};

#[test]
fn every_rehearsed_attack_is_detected_and_no_look_alike_is() {
    let _machine = one_machine();
    let dir = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut command = hypovisor();
    command.args(["eval", "--quick", "--rules"]).arg(root.join("rules/xen"));
    command.arg("--campaigns").arg(root.join("attacks")).arg("-o").arg(dir.path().join("eval"));
    let output = run(&mut command, 0);
    let score: Value =
        serde_json::from_slice(&std::fs::read(dir.path().join("eval/eval.json")).unwrap()).unwrap();
    assert_eq!(score["passed"], true, "{}", text(&output.stdout));
    assert_eq!((&score["dropped"], &score["false_alerts"]["count"]), (&0.into(), &0.into()));
    for (class, least) in [("A", 30), ("B", 20), ("generic", 30)] {
        let counts = &score["classes"][class];
        assert_eq!(counts["campaigns"], counts["detected"]);
        assert!(counts["campaigns"].as_u64().unwrap() >= least, "class {class}: {counts}");
    }
    let html = std::fs::read_to_string(dir.path().join("eval/eval.html")).unwrap();
    assert!(html.contains("How good is the detection?") && !html.contains("src="));
}
