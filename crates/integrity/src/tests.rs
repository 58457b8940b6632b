//! A made-up L1 of a few pages: what is right is not reported, what is wrong is, and nothing at all makes a check panic.

use std::cell::Cell;
use std::fs;
use std::path::Path;

use hypovisor_machine::{
    DescriptorTable, Gpa, Gva, MemoryError, PhysicalMemory, SystemRegisters, TaskRegister, VirtualMemory,
};
use proptest::prelude::*;

use crate::domains::{self, NoDomains, SeenDomain};
use crate::fuzzing::{Reached, check_damaged};
use crate::made_up::{
    BASE, CONSTANTS, DATA, DOMAIN_HASH, DOMAIN_LINK, DOMAIN_LIST, IDT, IMAGE, L1, Memory, NO_EXECUTE,
    PATCH_PAGE, PAYLOAD_PAGE, SET_AT_BOOT, TEXT, TOP, TSS, cpu, file, gate, guest_page, running, symbols,
};
use crate::{
    Baseline, Finding, Item, Judgement, LivePatches, Reference, Report, Structures, Target, changed_code,
    check, foreign_code, holds,
};

fn report(memory: &Memory, file: &[u8], cpu: SystemRegisters) -> Option<Report> {
    let symbols = symbols();
    let reference = Reference::of_pieces(vec![(Gva(BASE), file)], &symbols).unwrap();
    let target = Target::find(memory, &reference, &[cpu], [])?;
    Some(check(&target, &Structures::default(), &[(Gpa(0), memory.0.len() as u64)]))
}

/// What is found after a change.
fn found(change: impl FnOnce(&mut Memory)) -> Vec<Finding> {
    let file = file();
    let mut memory = running(&file);
    change(&mut memory);
    report(&memory, &file, cpu()).unwrap().findings
}

fn the_only(change: impl FnOnce(&mut Memory)) -> (Item, String) {
    let findings = found(change);
    let [one] = &findings[..] else { panic!("not one finding: {findings:#?}") };
    assert!(one.is_tampering());
    (one.item, one.message.clone())
}

#[test]
fn what_is_right_is_not_reported() {
    assert!(found(|_| {}).is_empty());
    let other_code = found(|memory| memory.put(Memory::physical(TEXT + 0x400), &[0x0f, 0x0b]));
    assert!(other_code.is_empty(), "L1 may put other code there at boot: {other_code:#?}");
    let pointer = |memory: &mut Memory| memory.put_word(Memory::physical(CONSTANTS + 8), TEXT + 0x200);
    assert!(found(pointer).is_empty(), "L1 may set a pointer to a function at boot");
}

#[test]
fn what_is_wrong_is_reported_by_its_name() {
    let text = the_only(|memory| memory.put(Memory::physical(TEXT + 0x208), &[0xcc, 0xcc]));
    assert_eq!(text, (Item::Text, "2 bytes at other+0x8: not as in the file".into()));
    let place = the_only(|memory| memory.put(Memory::physical(TEXT + 0x400), &[0x0f, 0xcc]));
    assert_eq!(place.0, Item::Text, "only the other code may stand there");
    let constant = the_only(|memory| memory.put(Memory::physical(SET_AT_BOOT + 7), &[0xff]));
    assert_eq!(constant.0, Item::Constants);
    let pointer = the_only(|memory| memory.put_word(Memory::physical(CONSTANTS + 8), TEXT + 0x201));
    assert_eq!(pointer.0, Item::Pointers);
    let handler = the_only(|memory| memory.put(Memory::physical(IDT) + 16 * 14, &gate(DATA)));
    assert_eq!(handler.0, Item::Idt);
    assert!(handler.1.contains("vector 0x0e"), "{}", handler.1);
}

#[test]
fn wrong_rights_are_reported() {
    let entry = |page: u64| TOP + 0x3000 + 8 * page;
    let writable = the_only(|memory| memory.put_word(entry(0), Memory::physical(TEXT) | 3));
    assert_eq!(writable, (Item::PageTables, "code may be written: 4096 bytes at _stext".into()));
    let data = the_only(|memory| memory.put_word(entry(4), Memory::physical(DATA) | 3));
    assert!(data.1.starts_with("data may be executed"), "{}", data.1);
    let mut l1 = L1::new();
    l1.memory.put_word(entry(0x40), 0x1_0000 | 1);
    let findings = full(&l1).findings;
    let foreign: Vec<_> = findings.iter().filter(|finding| finding.is_tampering()).collect();
    assert_eq!(foreign.len(), 1, "{findings:#?}");
    assert!(foreign[0].message.starts_with("code may be executed that is not L1's"), "{foreign:#?}");
    let alias = the_only(|memory| memory.put_word(entry(0x40), Memory::physical(TEXT) | 3 | NO_EXECUTE));
    assert!(alias.1.contains("may be written through 0xffff82d040240000"), "{}", alias.1);
    let constant =
        the_only(|memory| memory.put_word(entry(0x40), Memory::physical(SET_AT_BOOT) | 3 | NO_EXECUTE));
    assert!(constant.1.contains("may be written through 0xffff82d040240000"), "{}", constant.1);
    let data = found(|memory| memory.put_word(entry(5), Memory::physical(TEXT) | 3 | NO_EXECUTE));
    let as_data = |finding: &Finding| finding.message.contains("may be written through 0xffff82d040205000");
    assert!(data.iter().any(as_data), "{data:#?}");
}

#[test]
fn what_page_tables_show_elsewhere_is_told() {
    let l1 = L1::new();
    let reference = l1.reference();
    let target = L1::target(l1.memory.clone(), &reference, L1::cpu()).unwrap();
    let baseline = Baseline::take(&target);
    assert_eq!(baseline.remapped(&target), []);
    let mut copied = L1::new();
    let copy = L1::physical(guest_page(0));
    let page = l1.memory.0[IMAGE as usize..IMAGE as usize + 0x1000].to_vec();
    copied.memory.put(copy, &page);
    copied.memory.put_word(TOP + 0x3000, copy | 1);
    let target = L1::target(copied.memory, &reference, L1::cpu()).unwrap();
    assert!(baseline.compare(&target, &LivePatches::default()).findings.is_empty(), "it is as it was");
    let findings = baseline.remapped(&target);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert!(findings[0].is_tampering() && findings[0].bytes == 0x1000, "{findings:#?}");
    let patches = LivePatches::read(&target, &l1.structures);
    let foreign = |at| foreign_code(&target, &baseline, &patches, Gva(at), &[0xc3, 0, 0, 0, 0, 0, 0, 0]);
    assert!(foreign(TEXT + 8).is_some());
}

#[test]
fn registers_are_judged() {
    let file = file();
    let memory = running(&file);
    let of = |cpu| report(&memory, &file, cpu).unwrap().findings;
    let writable = of(SystemRegisters { cr0: 0x8004_0033, ..cpu() });
    assert!(writable.len() == 1 && writable[0].message.contains("CR0.WP is off"), "{writable:?}");
    let stops = of(SystemRegisters { breakpoints: Some(([TEXT, 0, 0, 0], 0x401)), ..cpu() });
    assert!(stops.len() == 1 && !stops[0].is_tampering(), "a debug register is no proof: {stops:?}");
}

#[test]
fn stacks_of_interrupts_are_judged() {
    let interrupt_stack = |memory: &mut Memory| memory.put_word(Memory::physical(TSS + 36), DATA + 0x9000);
    let (item, message) = the_only(interrupt_stack);
    assert_eq!(item, Item::Tss);
    assert!(message.starts_with("CPU 0 IST1 in the task segment"), "{message}");
    let no_stack = |memory: &mut Memory| memory.put_word(Memory::physical(TSS + 4), 0x8600_1111_1111_1111);
    assert!(the_only(no_stack).1.starts_with("CPU 0 RSP0"), "it may not be poisoned");
    let file = file();
    let leading_to = |base: u64| {
        let task = TaskRegister { base: Gva(base), ..cpu().task };
        report(&running(&file), &file, SystemRegisters { task, ..cpu() }).unwrap().findings
    };
    let elsewhere = leading_to(guest_page(0));
    assert!(elsewhere[0].message.contains("not to L1's own segment"), "{elsewhere:?}");
    assert!(leading_to(0xffff_fe00_0000_3000).is_empty(), "a guest's");
}

#[test]
fn code_that_was_executed_is_judged() {
    let l1 = L1::new();
    let reference = l1.reference();
    let target = L1::target(l1.memory.clone(), &reference, L1::cpu()).unwrap();
    let patches = LivePatches::read(&target, &l1.structures);
    let baseline = Baseline::take(&target);
    let foreign = |at| foreign_code(&target, &baseline, &patches, Gva(at), &[0xc3, 0, 0, 0, 0, 0, 0, 0]);
    assert!(foreign(TEXT + 0x1ff0).is_some(), "a page that is watched was not where the sensor saw it");
    assert_eq!(foreign(guest_page(PATCH_PAGE) + 8), None, "a live patch's");
    let finding = foreign(DATA + 0x20).unwrap();
    assert!(finding.is_tampering() && finding.found[0].ends_with("ret"), "{finding:?}");
    let changed = changed_code(&target, Gva(TEXT + 0x200), &[0x90; 8], &[0xe9, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!((changed.bytes, changed.expected.len(), changed.found.len()), (8, 1, 1));
    assert!(changed.message.contains("executed at other,"), "{}", changed.message);
}

#[test]
fn only_a_change_that_still_stands_there_explains_what_was_executed() {
    let (genuine, at) = ([0xb8, 0xff, 0xff, 0xff, 0xff, 0x90, 0x90, 0x90], TEXT + 0x208);
    let zeroed = [0xb8, 0, 0, 0, 0, 0x90, 0x90, 0x90];
    let after = |bytes: &[u8], executed: &[u8; 8]| {
        let mut l1 = L1::new();
        l1.put(at, bytes);
        let reference = l1.reference();
        let target = L1::target(l1.memory.clone(), &reference, L1::cpu()).unwrap();
        holds(&target, Gva(at), &genuine, executed)
    };
    assert!(after(&zeroed, &zeroed));
    assert!(!after(&genuine, &zeroed), "it was put back");
    assert!(!after(&genuine, &genuine), "it was changed further behind");
}

#[test]
fn another_program_is_not_taken_for_l1() {
    let file = file();
    let mut memory = running(&file);
    memory.put(IMAGE, &[0x55; 0x2000]);
    assert_eq!(report(&memory, &file, cpu()), None);
    assert_eq!(VirtualMemory::new(&memory, TOP).translate(Gva(TEXT)), Ok(Gpa(IMAGE)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn damaged_memory_never_panics(
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u64>()), 0..32),
        cpu_words: [u64; 5],
    ) {
        let file = file();
        let mut memory = running(&file);
        for (at, word) in damage {
            let at = at.index(memory.0.len() - 8) as u64;
            memory.put_word(at & !7, word);
        }
        let [rsp, idt, gdt, cr0, cr4] = cpu_words;
        let odd = SystemRegisters {
            rsp: Gva(rsp),
            idt: DescriptorTable { base: Gva(idt), limit: 0xffff },
            gdt: DescriptorTable { base: Gva(gdt), limit: 0xffff },
            cr0,
            cr4,
            ..cpu()
        };
        let _ = report(&memory, &file, odd);
        let _ = report(&memory, &file, cpu());
    }
}

/// What a full look at an L1 with guests says.
fn full(l1: &L1) -> Report {
    let reference = l1.reference();
    let target = L1::target(l1.memory.clone(), &reference, L1::cpu()).unwrap();
    check(&target, &l1.structures, &l1.ram())
}

fn domains_of(l1: &L1) -> Vec<SeenDomain> {
    let reference = l1.reference();
    let target = L1::target(l1.memory.clone(), &reference, L1::cpu()).unwrap();
    domains::find(&target, &l1.structures, &l1.ram()).unwrap()
}

#[test]
fn guests_and_live_patches_are_no_tampering() {
    let l1 = L1::new();
    let findings = full(&l1).findings;
    let mended = |finding: &&Finding| finding.judgement == Judgement::LivePatch { name: "mended".into() };
    assert_eq!(findings.iter().filter(mended).count(), 2, "{findings:#?}");
    assert_eq!(findings.len(), 2, "{findings:#?}");
    let domains = domains_of(&l1);
    let seen: Vec<(u16, bool, bool, usize)> = domains
        .iter()
        .map(|domain| (domain.id, domain.is_listed, domain.is_indexed, domain.vcpus.len()))
        .collect();
    assert_eq!(seen, [(0, true, true, 2), (1, true, true, 2), (7, true, true, 2)]);
}

#[test]
fn a_domain_out_of_the_list_is_hidden_and_a_patch_that_leads_elsewhere_is_none() {
    let mut l1 = L1::new();
    l1.put_word(guest_page(0) + DOMAIN_LINK, guest_page(2));
    let hidden: Vec<Finding> =
        full(&l1).findings.into_iter().filter(|finding| finding.item == Item::Domains).collect();
    assert_eq!(hidden.len(), 1);
    assert!(hidden[0].is_tampering() && hidden[0].message.starts_with("domain 1 lives"), "{hidden:#?}");

    let mut l1 = L1::new();
    l1.put(TEXT + 0x201, &0x1000_u32.to_le_bytes());
    let text: Vec<Finding> = full(&l1).findings.into_iter().filter(Finding::is_tampering).collect();
    assert_eq!(text.len(), 1, "{text:#?}");
    assert_eq!(text[0].item, Item::Text);
}

#[test]
fn what_could_be_a_live_patch_is_unknown_without_debug_information() {
    let (l1, none) = (L1::new(), Structures::default());
    let reference = l1.reference();
    let target = L1::target(l1.memory.clone(), &reference, L1::cpu()).unwrap();
    let findings = check(&target, &none, &[]).findings;
    assert_eq!(findings.len(), 2, "the jump into the patch, and its code: {findings:#?}");
    assert!(
        findings.iter().all(|finding| matches!(finding.judgement, Judgement::Unknown { .. })),
        "{findings:#?}"
    );
    let mut l1 = L1::new();
    l1.put(TEXT + 0x201, &0x1000_u32.to_le_bytes());
    let target = L1::target(l1.memory.clone(), &reference, L1::cpu()).unwrap();
    assert!(check(&target, &none, &[]).is_tampered(), "a jump to elsewhere is none");
}

#[test]
fn without_debug_information_there_are_no_domains() {
    let (l1, none) = (L1::new(), Structures::default());
    let reference = l1.reference();
    let target = L1::target(l1.memory.clone(), &reference, L1::cpu()).unwrap();
    let found: Result<_, NoDomains> = domains::find(&target, &none, &[]);
    assert!(found.is_err());
}

/// Memory that counts how often it is read.
struct Counted<'a>(&'a Memory, Cell<u64>);

impl PhysicalMemory for Counted<'_> {
    fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), MemoryError> {
        self.1.set(self.1.get() + 1);
        self.0.read(gpa, buf)
    }
}

/// A chain of "domains" eight bytes apart, which every bucket of the index leads into at another place, each with as many vCPUs as
/// a number can say.
#[test]
fn a_hostile_list_costs_no_more_than_a_long_one() {
    let mut l1 = L1::new();
    let chain = guest_page(0);
    for at in (0..0x3000_u64).step_by(8) {
        l1.put_word(chain + at, chain + (at + 8) % 0x3000);
    }
    for bucket in 0..256 {
        l1.put_word(DOMAIN_HASH + 8 * bucket, chain + 40 * bucket);
    }
    let reference = l1.reference();
    let memory = Counted(&l1.memory, Cell::new(0));
    let target = Target::find(&memory, &reference, &[L1::cpu()], []).unwrap();
    memory.1.set(0);
    let found = domains::find(&target, &l1.structures, &l1.ram()).unwrap();
    // 1,536 places, of each a few fields and 65,536 vCPUs in all; each read takes four steps through the page tables.
    let reads = memory.1.get();
    assert!(found.len() > 1000 && reads < 20 * (1 << 16) + 200_000, "{} domains, {reads} reads", found.len());
}

/// Changes of words, as the fuzz target takes them.
fn changes(registers: [u64; 4], words: &[(u64, u64)]) -> Vec<u8> {
    let mut data: Vec<u8> = registers.iter().flat_map(|word| word.to_le_bytes()).collect();
    for (at, word) in words {
        data.extend(&at.to_le_bytes()[..3]);
        data.extend(word.to_le_bytes());
    }
    data
}

/// A seed's name, what it is, and how far it has to get.
fn seeds() -> [(&'static str, Vec<u8>, Reached); 5] {
    let usual = Reached { is_found: true, domains: 3, patches: 1, ..Reached::default() };
    let list = Memory::physical(DOMAIN_LIST);
    let (payload, physical) = (guest_page(PAYLOAD_PAGE), L1::physical(guest_page(PAYLOAD_PAGE)));
    [
        ("clean", Vec::new(), usual),
        ("registers", changes([1 << 63, 1, u64::MAX, 1], &[]), Reached { tampering: 2, ..usual }),
        ("text", changes([0; 4], &[(IMAGE + 0x108, 0)]), Reached { tampering: 1, changes: 1, ..usual }),
        ("no_list", changes([0; 4], &[(list, 0)]), Reached { tampering: 3, ..usual }),
        ("endless_patches", changes([0; 4], &[(physical, payload)]), Reached { patches: 64, ..usual }),
    ]
}

#[test]
fn every_seed_gets_as_far_as_it_should() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/integrity_checks");
    let seeds = seeds();
    if std::env::var_os("HYPOVISOR_RENEW").is_some() {
        fs::create_dir_all(&directory).unwrap();
        seeds.iter().for_each(|(name, seed, _)| fs::write(directory.join(name), seed).unwrap());
    }
    for (name, _, expected) in &seeds {
        assert_eq!(check_damaged(&fs::read(directory.join(name)).unwrap()), *expected, "{name}");
    }
    for entry in fs::read_dir(&directory).unwrap().map(Result::unwrap) {
        let _ = check_damaged(&fs::read(entry.path()).unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_damage_is_looked_at(data in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = check_damaged(&data);
    }
}
