//! What code inside Xen can tell of being watched, without a clock: under TCG nothing, under KVM that its breakpoints do not fire.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::Path;

use crate::arsenal::build;
use crate::support::{LabRun, is_kvm, one_machine};

/// The detector kit looks at Xen as it is, and at a Xen whose text somebody changed.
const SCRIPT: &str = "set -e
xl create /lab/files/hold-pvh.cfg >&2
sleep 3
sh /lab/files/look.sh
echo looked
xen-livepatch load /lab/files/text_patch.livepatch >&2
sh /lab/files/look.sh --nodeps
echo looked
";

/// So many findings the kit has, one guest's control block among them.
const FINDINGS: usize = 37;

/// What the detector found by name.
type Seen = BTreeMap<String, String>;

/// Boots a machine and has the detector look twice.
fn look(dir: &Path, args: &[&OsStr]) -> [Seen; 2] {
    build(&dir.join("files"));
    let conring = [OsStr::new("--xen-option"), OsStr::new("conring_size=256k")];
    let mut run = LabRun::start(dir, SCRIPT, &[&conring[..], args].concat());
    let mut findings = || {
        let mut seen = Seen::new();
        loop {
            let line = run.next_line("");
            match line.split_once("detector: saw ").and_then(|(_, finding)| finding.split_once(' ')) {
                Some((name, value)) => seen.insert(name.to_owned(), value.to_owned()),
                None if line == "looked" => return seen,
                None => None,
            };
        }
    };
    let seen = [findings(), findings()];
    assert!(seen.iter().all(|seen| seen.len() == FINDINGS), "{seen:#?}");
    assert!(run.wait().success());
    seen
}

/// The names of what is not the same.
fn different<'a>(one: &'a Seen, other: &'a Seen) -> BTreeSet<&'a str> {
    let names = one.keys().chain(other.keys());
    names.filter(|name| one.get(*name) != other.get(*name)).map(String::as_str).collect()
}

#[test]
fn without_a_clock_a_watched_xen_looks_like_any_other() {
    let _machine = one_machine();
    let dir = tempfile::tempdir().unwrap();
    let alerts = dir.path().join("alerts.json");
    let watched_by = ["--integrity".as_ref(), "--alerts".as_ref(), alerts.as_os_str()];
    let [unwatched, changed] = look(&dir.path().join("unwatched"), &["--unmonitored".as_ref()]);
    let [watched, _] = look(&dir.path().join("watched"), &watched_by);

    // Under KVM the processor's debug registers are in use, which L1 sees by its own breakpoint alone.
    let expected = if is_kvm() { BTreeSet::from(["own_breakpoint"]) } else { BTreeSet::new() };
    assert_eq!(different(&unwatched, &watched), expected, "{unwatched:#?} {watched:#?}");
    if is_kvm() {
        assert_eq!(watched["own_breakpoint"], "0");
    }

    // Nothing changes while it looks.
    for seen in [&unwatched, &watched] {
        assert_eq!(seen["text"], seen["text_a_while_later"]);
        assert_eq!(seen["constants"], seen["constants_a_while_later"]);
    }

    // The detector is no blind one: its own breakpoint fires, and four changed bytes of text it sees.
    assert_eq!(unwatched["own_breakpoint"], "1");
    assert_eq!(different(&unwatched, &changed), BTreeSet::from(["text", "text_a_while_later"]));
}
