//! Messages there and back, and messages that are none.

use hypovisor_machine::Gpa;

use super::wire::kind;
use super::*;
use proptest::prelude::*;

fn layout() -> FrameLayout {
    FrameLayout {
        processor_id: 200,
        current_vcpu: 208,
        vcpu_id: 0,
        vcpu_domain: 16,
        domain_id: 0,
        multicall_call: 8,
        vcpu_vmcb: 0,
    }
}

#[test]
fn every_message_survives_the_trip() {
    let hello = Hello {
        protocol: PROTOCOL,
        pid: 42,
        plugin_api: 4,
        vcpus: 2,
        ring_bytes: 1 << 20,
        state: SensorState::Watching,
    };
    let hook = Hook { kind: HookKind::HvmExit, gva: Gva(0xffff_82d0_4020_0000) };
    let ranges = vec![RamRange { gpa: Gpa(0), len: 4096, file_offset: 0 }];
    let messages = [
        Message::Hello(hello, b"kept".to_vec()),
        Message::OwnRam(ranges.clone()),
        Message::RamLayout { backend: 1, ranges },
        Message::NeedHooks { vcpu: 1, cr3: 0x1000, rip: Gva(5) },
        Message::Hooks(vec![hook], Some(layout())),
        Message::Hooks(vec![hook, hook], None),
        Message::NeedLayout { vcpu: 0, cr3: 0x1000, frame: Gva(7) },
        Message::Layout(layout()),
        Message::AskAgain,
        Message::Refuse,
        Message::Note(b"odd".to_vec()),
        Message::Rules { enforce: true, bytes: 4096 },
        Message::Inject(Injection {
            id: 1,
            domain: 2,
            vcpu: None,
            is_64_bit: true,
            number: 17,
            registers: [0; 6],
            memory: vec![1; 9],
            relocations: Vec::new(),
        }),
        Message::CancelInjection { id: 1 },
        Message::Release,
        Message::DomainKind { domain: 3, kind: 1 },
        Message::DomainEnded { domain: 3 },
        Message::SystemChange(SystemChange {
            register: SystemRegister::Lstar,
            before: 1,
            now: 2,
            rip: Gva(3),
        }),
        Message::WatchWrites(vec![(Gpa(0x20_0000), 0x1000), (Gpa(0x40_0000), 0x2000)]),
        Message::Written(Gpa(0x20_0000)),
    ];
    let (one, other) = net::socketpair(
        net::AddressFamily::UNIX,
        net::SocketType::SEQPACKET,
        net::SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    for message in messages {
        send(&one, &message, &[one.as_fd()]).unwrap();
        let (received, fds) = receive(&other).unwrap();
        assert_eq!((received, fds.len()), (message, 1));
    }
    drop(one);
    assert!(matches!(receive(&other), Err(ControlError::Closed)));
}

#[test]
fn the_longest_note_fits_into_the_hello_that_returns_it() {
    let hello = Hello {
        protocol: PROTOCOL,
        pid: 1,
        plugin_api: 4,
        vcpus: 2,
        ring_bytes: 0,
        state: SensorState::Fresh,
    };
    let returned = |bytes| Message::Hello(hello, vec![b' '; bytes]).encode().len();
    assert_eq!(returned(MAX_NOTE_BYTES), MAX_MESSAGE_BYTES);
    let note = |bytes| Message::decode(&Message::Note(vec![b' '; bytes]).encode());
    assert!(note(MAX_NOTE_BYTES).is_ok());
    assert!(matches!(note(MAX_NOTE_BYTES + 1), Err(ControlError::Malformed(kind::NOTE))));
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_an_error(words in proptest::collection::vec(0u64..20, 0..40), tail in 0usize..8) {
        let mut bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        bytes.extend(vec![0xff; tail]);
        let _ = Message::decode(&bytes);
    }
}
