//! An image of a machine's memory, taken by QEMU, is judged as the machine is.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hypovisor_engine::qmp::Qmp;
use serde_json::json;

use crate::integrity::Scene;
use crate::support::{hypovisor, one_machine, run, text};

const SCRIPT: &str = "set -e
xl create /lab/files/hold-pv.cfg >&2
echo ready
sleep 600
";
/// How long QEMU may take to write the machine's memory.
const DUMP_TIMEOUT: Duration = Duration::from_secs(300);

/// QEMU's ELF dump of the machine.
fn dump(scene: &Scene, to: PathBuf) -> PathBuf {
    let mut qmp = Qmp::connect(&scene.monitor).unwrap();
    let arguments = json!({ "paging": false, "protocol": format!("file:{}", to.display()), "detach": true });
    qmp.execute("dump-guest-memory", arguments).unwrap();
    let start = Instant::now();
    loop {
        let status = qmp.execute("query-dump", json!({})).unwrap();
        match status["status"].as_str() {
            Some("completed") => return to,
            Some("failed") => panic!("{status}"),
            _ => assert!(start.elapsed() < DUMP_TIMEOUT, "{status}"),
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// What `hypovisor COMMAND --dump` says, which has to end with this code.
fn judged(command: &str, image: &Path, scene: &Scene, code: i32) -> (String, String) {
    let args = [command.as_ref(), "--dump".as_ref(), image.as_os_str(), "--symbols".as_ref()];
    let output = run(hypovisor().args(args).arg(&scene.symbols), code);
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_memory_image_is_judged_as_the_machine_is() {
    let _machine = one_machine();
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::new(dir.path(), SCRIPT);
    let image = dump(&scene, dir.path().join("clean"));
    assert!(judged("check", &image, &scene, 0).0.contains("no tampering was found"));
    let domains = judged("ls", &image, &scene, 0).0;
    assert!(domains.contains("    0  PV    yes") && domains.contains("    1  PV    yes"), "{domains}");
    let length = std::fs::metadata(&image).unwrap().len();
    OpenOptions::new().write(true).open(&image).unwrap().set_len(length / 2).unwrap();
    let (_, complaint) = judged("check", &image, &scene, 2);
    assert!(complaint.contains("was cut short"), "{complaint}");
    std::fs::remove_file(image).unwrap();

    scene.attacker.write(scene.attacker.address_of("do_console_io").offset(16), &[0xcc]);
    let image = dump(&scene, dir.path().join("tampered"));
    let (report, _) = judged("check", &image, &scene, 1);
    assert!(report.contains("TAMPERED     text") && report.contains("do_console_io+0x10"), "{report}");
    drop(scene.run);
}
