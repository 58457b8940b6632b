//! A processor that is added while L1 runs is given what the others have, and is not taken for a reset.

use hypovisor_engine::qmp::Qmp;
use serde_json::{Value, json};

use crate::integrity;
use crate::resets::{marks, monitor};
use crate::support::{Driven, one_machine, text};

const SCRIPT: &str = "set -e
echo ready
sleep 10
/lab/files/hcall --loop 100 29 0x48590007
";

#[test]
#[ignore = "needs KVM: `cargo xtask test --l0 kvm` runs it"]
fn a_processor_may_be_added() {
    let _machine = one_machine();
    let dir = tempfile::tempdir().unwrap();
    let machine = Driven::new(dir.path(), SCRIPT);
    let [recording, socket, alerts] =
        ["recording", "monitor", "alerts.json"].map(|name| dir.path().join(name));
    let mut args = monitor(&socket).to_vec();
    args.extend(["-smp".to_owned(), "1,maxcpus=2".to_owned()]);
    std::thread::scope(|scope| {
        let args: Vec<_> = args.into_iter().map(Into::into).collect();
        let engine = machine.start_guarded(&recording, &alerts, &args);
        let driver = scope.spawn(|| machine.drive());
        machine.wait_for("ready");
        let mut qmp = Qmp::connect(&socket).unwrap();
        let places = qmp.execute("query-hotpluggable-cpus", json!({})).unwrap();
        let free = places.as_array().unwrap().iter().find(|place| place.get("qom-path").is_none()).unwrap();
        let mut device = free["props"].clone();
        device["driver"] = free["type"].clone();
        device["id"] = "added".into();
        qmp.execute("device_add", device).unwrap();
        let cpus: Value = qmp.execute("query-cpus-fast", json!({})).unwrap();
        assert_eq!(cpus.as_array().unwrap().len(), 2);
        drop(qmp);
        driver.join().unwrap().expect("the machine goes on to its own end");
        let output = engine.wait_with_output().unwrap();
        let said = text(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("the hypervisor itself is watched"), "{said}");
        assert!(!said.contains("reset"), "{said}");
    });
    assert_eq!(marks(&recording, 7), 100);
    assert_eq!(integrity::alerts(&alerts), Vec::<Value>::new(), "an added processor is no tampering");
}
