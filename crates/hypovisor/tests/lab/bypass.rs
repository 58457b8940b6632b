//! Hypercalls of a hardware-virtualised guest that reach no hook, because Xen was changed in front of it.

use hypovisor_machine::Gva;

use crate::integrity::Scene;
use crate::support::one_machine;

/// Starts a guest that makes one call again and again, for longer than anybody waits, when Xen has been changed: QEMU's translator
/// does not look again at code of L1's that it has translated, and that L0 changes.
const SCRIPT: &str = "set -e
echo ready
sleep 10
xl create /lab/files/null-pvh.cfg 'extra=\"rounds=1000 calls=100000 marks=0\"' >&2
sleep 600
";
/// How far into `svm_vmexit_handler` its call of `hvm_hypercall` is looked for, in bytes.
const SEARCHED: usize = 16 << 10;
/// CALL with a 32-bit displacement, and MOV to EAX of a constant: both have five bytes.
const CALL: u8 = 0xe8;
const COMPLETED: [u8; 5] = [0xb8, 0, 0, 0, 0];

/// Where the handler of VM exits calls that of hypercalls.
fn call_site(scene: &Scene) -> Gva {
    let at = |name: &str| scene.attacker.address_of(name);
    let (handler, target) = (at("svm_vmexit_handler"), at("hvm_hypercall"));
    let code = scene.attacker.read(handler, SEARCHED);
    let leads_there = |index: &usize| {
        let operand: [u8; 4] = code[index + 1..index + 5].try_into().unwrap();
        let behind = handler.offset(*index as u64 + 5).0;
        code[*index] == CALL && behind.wrapping_add_signed(i32::from_le_bytes(operand).into()) == target.0
    };
    handler.offset((0..SEARCHED - 5).find(leads_there).unwrap() as u64)
}

#[test]
fn calls_that_xen_is_made_to_answer_without_its_handler_are_missed() {
    let _machine = one_machine();
    let dir = tempfile::tempdir().unwrap();
    let scene = Scene::new(dir.path(), SCRIPT);
    let site = call_site(&scene);
    assert_eq!(scene.alerts().len(), 0, "nobody did anything yet");
    scene.attacker.write(site, &COMPLETED);
    scene.told(0, "integrity/hypercalls", "VMMCALL of a guest reached no hook");
    drop(scene.run);
}
