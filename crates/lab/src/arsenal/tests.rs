//! The built payloads are what Xen's loader takes (docs/misc/livepatch.pandoc). These tests run the C compiler.

use std::collections::HashSet;
use std::fs;

use object::elf::{R_X86_64_64, R_X86_64_PC32, R_X86_64_PLT32, SHF_EXECINSTR, SHF_WRITE};
use object::{
    Object as _, ObjectSection as _, ObjectSymbol as _, RelocationFlags, SectionFlags, SymbolSection,
};

use super::*;

const XEN: [u8; 20] = *b"the build id of Xen!";
/// `struct livepatch_func`, public/sysctl.h, payload version 2.
const FUNC_BYTES: u64 = 104;

fn built(check: impl Fn(Payload, &object::File<'_>)) {
    let dir = tempfile::tempdir().unwrap();
    let arsenal = Arsenal::build(dir.path(), &BuildId::from(XEN), &Options::default()).unwrap();
    assert!(
        arsenal.int3().exists() && arsenal.time_calls().exists() && arsenal.dir().join("try.sh").exists()
    );
    for payload in Payload::ALL {
        let bytes = fs::read(arsenal.payload(payload)).unwrap();
        check(payload, &object::File::parse(&*bytes).unwrap());
    }
}

fn hooks(file: &object::File<'_>) -> Vec<(String, u64)> {
    let hook = |name: &str| name.starts_with(".livepatch.hooks.").then(|| name.to_owned());
    file.sections().filter_map(|section| Some((hook(section.name().ok()?)?, section.size()))).collect()
}

#[test]
fn every_payload_names_the_xen_it_is_for_and_itself() {
    built(|payload, file| {
        let mut note = b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0".to_vec();
        note.extend(XEN);
        for section in [".livepatch.depends", ".livepatch.xen_depends"] {
            let data = file.section_by_name(section).unwrap().data().unwrap();
            assert_eq!(data, note, "{payload:?} {section}");
        }
        assert_eq!(file.build_id().unwrap().map(<[u8]>::len), Some(20), "{payload:?}");
    });
}

#[test]
fn no_two_payloads_have_the_same_build_id() {
    let ids = std::cell::RefCell::new(HashSet::new());
    built(|payload, file| {
        assert!(ids.borrow_mut().insert(file.build_id().unwrap().map(<[u8]>::to_vec)), "{payload:?}");
    });
}

#[test]
fn attacks_have_hooks_and_the_live_patch_has_a_function() {
    built(|payload, file| {
        let funcs = file.section_by_name(".livepatch.funcs").map(|section| section.size());
        let hooks = hooks(file);
        assert!(hooks.iter().all(|(_, bytes)| *bytes == 8), "{payload:?} {hooks:?}");
        if payload == Payload::Benign {
            assert_eq!((funcs, hooks.len()), (Some(FUNC_BYTES), 0));
        } else {
            assert!(funcs.is_none() && !hooks.is_empty(), "{payload:?}");
        }
    });
}

#[test]
fn there_are_no_relocations_that_xen_does_not_know() {
    built(|payload, file| {
        for section in file.sections() {
            for (at, relocation) in section.relocations() {
                let RelocationFlags::Elf { r_type } = relocation.flags() else { panic!("not ELF") };
                let known = [R_X86_64_64, R_X86_64_PC32, R_X86_64_PLT32];
                assert!(known.contains(&r_type), "{payload:?} {:?}+{at:#x}: {r_type}", section.name());
            }
        }
    });
}

#[test]
fn no_section_is_both_writable_and_executable() {
    built(|payload, file| {
        for section in file.sections() {
            let SectionFlags::Elf { sh_flags, .. } = section.flags() else { panic!("not ELF") };
            assert!(!sh_flags.contains(SHF_WRITE | SHF_EXECINSTR), "{payload:?} {:?}", section.name());
        }
    });
}

/// Xen refuses a payload that defines a symbol which another one defines too.
#[test]
fn payloads_define_no_symbols() {
    built(|payload, file| {
        for symbol in file.symbols() {
            let name = symbol.name().unwrap();
            let defined = matches!(symbol.section(), SymbolSection::Section(_));
            let counts = defined && !name.starts_with('.') && !name.is_empty();
            assert!(!counts, "{payload:?} defines {name}");
        }
    });
}

#[test]
fn a_build_id_is_read_from_what_the_linker_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let arsenal = Arsenal::build(dir.path(), &BuildId::from(XEN), &Options::default()).unwrap();
    let id = BuildId::read(&arsenal.payload(Payload::Benign)).unwrap();
    assert_eq!(id.to_string().len(), 40);
    let error = BuildId::read(&dir.path().join("try.sh")).unwrap_err();
    assert!(error.to_string().contains("try.sh is no ELF file"), "{error}");
}
