//! Boots Xen 4.20 with its dom0 in an unmonitored QEMU, and runs a script there. Fetches what it needs on the first run.

use std::time::{Duration, Instant};

use hypovisor_lab::{
    Lab, Machine, Notice, Observer, QemuVersion, Session, Silent, Work, XenVersion, spawn_unmonitored,
};

#[derive(Default)]
struct Record {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    notices: Vec<Notice>,
}

impl Observer for Record {
    fn stdout(&mut self, bytes: &[u8]) {
        self.stdout.extend_from_slice(bytes);
    }

    fn stderr(&mut self, bytes: &[u8]) {
        self.stderr.extend_from_slice(bytes);
    }

    fn notice(&mut self, notice: &Notice) {
        self.notices.push(notice.clone());
    }
}

#[test]
fn xen_boots_and_a_script_runs_in_dom0() {
    let scratch = tempfile::tempdir().unwrap();
    let script = scratch.path().join("script.sh");
    let text =
        "xl info && printf '\\000\\377\\n' && cat /lab/files/inner/note && echo oops >/dev/stderr\nexit 7\n";
    std::fs::write(&script, text).unwrap();
    let files = scratch.path().join("files");
    std::fs::create_dir_all(files.join("inner")).unwrap();
    std::fs::write(files.join("inner/note"), "a note\n").unwrap();

    let prepared = Lab::open().unwrap().prepare(XenVersion::V4_20, QemuVersion::V10_0, &mut Silent).unwrap();
    let work = Work { script: Some(script), files: Some(files), ..Work::default() };
    let mut session = Session::new(&prepared, &Machine::default(), &work).unwrap();
    let mut qemu = spawn_unmonitored(session.command()).unwrap();
    let mut record = Record::default();
    let outcome = qemu.drive(&mut session, &mut record, Instant::now() + Duration::from_secs(120));

    let outcome = outcome.unwrap_or_else(|error| panic!("{error}"));
    println!("{outcome:?}");
    let stdout = String::from_utf8_lossy(&record.stdout);
    assert!(stdout.contains("xen_version            : 4.20"), "{stdout}");
    assert!(record.stdout.windows(3).any(|bytes| bytes == [0, 255, b'\n']), "output is passed byte for byte");
    assert!(stdout.ends_with("a note\n"), "{stdout}");
    assert_eq!(String::from_utf8_lossy(&record.stderr), "oops\n");
    assert_eq!(outcome.exit_code, 7);
    assert!(record.notices.contains(&Notice::Ready));
}
