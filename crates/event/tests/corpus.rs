//! Replays the seeds of the fuzz target for control messages on a stable toolchain.

#![cfg(not(loom))]

use std::fs;
use std::path::Path;

use hypovisor_event::control::{
    FrameLayout, Hello, Hook, HookKind, Message, PROTOCOL, SensorState, SystemChange, SystemRegister,
};
use hypovisor_event::fuzzing::{decode_message, encode_message};
use hypovisor_event::injection::{Injection, Place, Relocation};
use hypovisor_machine::{Gpa, Gva, RamRange};

/// Set `HYPOVISOR_RENEW` to write the seeds anew.
#[test]
fn every_message_has_a_seed_and_every_seed_is_read() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/decode_message");
    for (name, message) in messages() {
        let path = directory.join(name);
        if std::env::var_os("HYPOVISOR_RENEW").is_some() {
            fs::create_dir_all(&directory).unwrap();
            fs::write(&path, encode_message(&message)).unwrap();
        }
        let seed = fs::read(&path).unwrap_or_else(|_| panic!("no seed {name}: set HYPOVISOR_RENEW"));
        assert_eq!(decode_message(&seed), Some(message), "{name}");
    }
    for entry in fs::read_dir(&directory).unwrap() {
        let _ = decode_message(&fs::read(entry.unwrap().path()).unwrap());
    }
}

fn messages() -> [(&'static str, Message); 21] {
    let change =
        SystemChange { register: SystemRegister::Lstar, before: 0x1000, now: 0x2000, rip: Gva(0x3000) };
    let hello = Hello {
        protocol: PROTOCOL,
        pid: 42,
        plugin_api: 4,
        vcpus: 2,
        ring_bytes: 1 << 20,
        state: SensorState::Watching,
    };
    let layout = FrameLayout {
        processor_id: 200,
        current_vcpu: 208,
        vcpu_id: 0,
        vcpu_domain: 16,
        domain_id: 0,
        multicall_call: 8,
        vcpu_vmcb: 0,
    };
    let rip = Gva(0xffff_82d0_4020_0000);
    let hooks = vec![Hook { kind: HookKind::PvEntry, gva: rip }, Hook { kind: HookKind::Vmrun, gva: rip }];
    let ranges = vec![RamRange { gpa: Gpa(0), len: 4096, file_offset: 0 }];
    let injection = Injection {
        id: 7,
        domain: 1,
        vcpu: Some(0),
        is_64_bit: true,
        number: 17,
        registers: [1, 0, 0, 0, 0, 0],
        memory: vec![0; 16],
        relocations: vec![Relocation { place: Place::Register(1), target: 0 }],
    };
    [
        ("hello", Message::Hello(hello, b"kept".to_vec())),
        ("own_ram", Message::OwnRam(ranges.clone())),
        ("ram_layout", Message::RamLayout { backend: 1, ranges }),
        ("need_hooks", Message::NeedHooks { vcpu: 1, cr3: 0x1000, rip }),
        ("hooks", Message::Hooks(hooks.clone(), None)),
        ("hooks_and_layout", Message::Hooks(hooks, Some(layout))),
        ("need_layout", Message::NeedLayout { vcpu: 0, cr3: 0x1000, frame: Gva(7) }),
        ("layout", Message::Layout(layout)),
        ("ask_again", Message::AskAgain),
        ("refuse", Message::Refuse),
        ("note", Message::Note(b"odd".to_vec())),
        ("rules", Message::Rules { enforce: true, bytes: 4096 }),
        ("inject", Message::Inject(injection)),
        ("cancel_injection", Message::CancelInjection { id: 7 }),
        ("release", Message::Release),
        ("domain_kind", Message::DomainKind { domain: 3, kind: 1 }),
        ("domain_ended", Message::DomainEnded { domain: 3 }),
        ("system_change", Message::SystemChange(change)),
        ("watch_writes", Message::WatchWrites(vec![(Gpa(0x20_0000), 0x1000)])),
        ("written", Message::Written(Gpa(0x20_0000))),
        ("reset", Message::Reset),
    ]
}
