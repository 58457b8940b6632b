//! A made-up L1 of a few pages: what is right is not reported, what is wrong is, and nothing at all makes a check panic.

use hypovisor_l1::{Symbol, SymbolKind, SymbolTable};
use hypovisor_machine::{
    DescriptorTable, Gpa, Gva, MemoryError, PAGE_SIZE, PhysicalMemory, SystemRegisters, VirtualMemory,
};
use proptest::prelude::*;

use crate::{Finding, Item, Reference, Report, Structures, Target, check};

const BASE: u64 = 0xffff_82d0_4020_0000;
const TEXT: u64 = BASE;
const CONSTANTS: u64 = BASE + 0x2000;
const SET_AT_BOOT: u64 = BASE + 0x3000;
const DATA: u64 = BASE + 0x4000;
const END: u64 = BASE + 0x6000;
const PAGES: u64 = (END - BASE) / PAGE_SIZE;

/// Physical memory: tables first, then the image.
const TOP: u64 = 0x1000;
const IMAGE: u64 = 0x8000;
const IDT: u64 = DATA + 0x1000;

const NO_EXECUTE: u64 = 1 << 63;

struct Memory(Vec<u8>);

impl PhysicalMemory for Memory {
    fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), MemoryError> {
        let start = usize::try_from(gpa.0).map_err(|_| MemoryError::NoRam(gpa))?;
        let end = start.checked_add(buf.len()).ok_or(MemoryError::NoRam(gpa))?;
        buf.copy_from_slice(self.0.get(start..end).ok_or(MemoryError::NoRam(gpa))?);
        Ok(())
    }
}

impl Memory {
    fn put(&mut self, at: u64, bytes: &[u8]) {
        self.0[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    }

    fn put_word(&mut self, at: u64, word: u64) {
        self.put(at, &word.to_le_bytes());
    }

    /// Where a page of the image stands in memory.
    fn physical(gva: u64) -> u64 {
        IMAGE + (gva - BASE)
    }
}

fn symbols() -> SymbolTable {
    let named = |(name, at, kind): (&str, u64, SymbolKind)| Symbol {
        address: Gva(at),
        kind,
        global: true,
        size: 0,
        name: name.into(),
    };
    use SymbolKind::{Data, Text};
    SymbolTable::new(
        [
            ("_stext", TEXT, Text),
            ("handler", TEXT + 0x100, Text),
            ("other", TEXT + 0x200, Text),
            ("_etext", TEXT + 0x2000, Text),
            ("_srodata", CONSTANTS, Data),
            ("__ro_after_init_start", CONSTANTS, Data),
            ("__ro_after_init_end", SET_AT_BOOT, Data),
            ("_erodata", DATA, Data),
            ("__alt_instructions", DATA + 0x10, Data),
            ("__alt_instructions_end", DATA + 0x10 + 14, Data),
            ("_end", END, Data),
        ]
        .map(named),
    )
}

/// The file: code that is 0x90 throughout, constants that count up, one record of other code.
fn file() -> Vec<u8> {
    let mut bytes = vec![0x90; (END - BASE) as usize];
    bytes[(CONSTANTS - BASE) as usize..].fill(0);
    for (index, byte) in bytes[(SET_AT_BOOT - BASE) as usize..(DATA - BASE) as usize].iter_mut().enumerate() {
        *byte = index as u8;
    }
    let record = (DATA + 0x10 - BASE) as usize;
    let place = (TEXT + 0x400).wrapping_sub(DATA + 0x10) as i32;
    let other = (TEXT + 0x600).wrapping_sub(DATA + 0x14) as i32;
    bytes[record..record + 4].copy_from_slice(&place.to_le_bytes());
    bytes[record + 4..record + 8].copy_from_slice(&other.to_le_bytes());
    bytes[record + 10..record + 12].copy_from_slice(&[2, 2]);
    bytes[0x600..0x602].copy_from_slice(&[0x0f, 0x0b]);
    bytes
}

/// The running L1: tables, the image as in the file, gates that lead to `handler`.
fn running(file: &[u8]) -> Memory {
    let mut memory = Memory(vec![0; 0x2_0000]);
    let index = |shift: u32| 8 * (BASE >> shift & 0x1ff);
    memory.put_word(TOP + index(39), (TOP + 0x1000) | 3);
    memory.put_word(TOP + 0x1000 + index(30), (TOP + 0x2000) | 3);
    memory.put_word(TOP + 0x2000 + index(21), (TOP + 0x3000) | 3);
    for page in 0..PAGES {
        let at = BASE + page * PAGE_SIZE;
        let rights = if at < CONSTANTS {
            1
        } else if at < DATA {
            1 | NO_EXECUTE
        } else {
            3 | NO_EXECUTE
        };
        memory.put_word(TOP + 0x3000 + 8 * page, Memory::physical(at) | rights);
    }
    memory.put(IMAGE, file);
    for vector in 0..256 {
        memory.put(Memory::physical(IDT) + 16 * vector, &gate(TEXT + 0x100));
    }
    memory
}

fn gate(handler: u64) -> [u8; 16] {
    let mut gate = [0; 16];
    gate[..2].copy_from_slice(&(handler as u16).to_le_bytes());
    gate[5] = 0x8e;
    gate[6..8].copy_from_slice(&((handler >> 16) as u16).to_le_bytes());
    gate[8..12].copy_from_slice(&((handler >> 32) as u32).to_le_bytes());
    gate
}

fn cpu() -> SystemRegisters {
    SystemRegisters {
        rip: Gva(TEXT + 0x100),
        rsp: Gva(DATA + 0x800),
        cr0: 0x8005_0033,
        cr3: TOP,
        idt: DescriptorTable { base: Gva(IDT), limit: 0xfff },
        gdt: DescriptorTable { base: Gva(DATA), limit: 0xff },
        ..SystemRegisters::default()
    }
}

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
    let foreign = the_only(|memory| memory.put_word(entry(0x40), 0x1_0000 | 1));
    assert!(foreign.1.starts_with("code may be executed that is not L1's"), "{}", foreign.1);
    let alias = the_only(|memory| memory.put_word(entry(0x40), Memory::physical(TEXT) | 3 | NO_EXECUTE));
    assert!(alias.1.contains("may be written through 0xffff82d040240000"), "{}", alias.1);
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
