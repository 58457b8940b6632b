//! An L1 of a few pages, for tests and for fuzzing: its file, and its memory as it runs.
//!
//! ```text
//!   physical   0x1000    tables          virtual  BASE    code, constants, data
//!              0x8000    the image                +512 KiB  guest pages: domains, a live patch, a stack
//!              0x1_1000  guest pages
//! ```

use hypovisor_l1::{Symbol, SymbolKind, SymbolTable};
use hypovisor_machine::{
    DescriptorTable, Gpa, Gva, MemoryError, PAGE_SIZE, PhysicalMemory, SystemRegisters, TaskRegister,
};

use crate::{Reference, Structures, Target};

pub(crate) const BASE: u64 = 0xffff_82d0_4020_0000;
pub(crate) const TEXT: u64 = BASE;
pub(crate) const CONSTANTS: u64 = BASE + 0x2000;
pub(crate) const SET_AT_BOOT: u64 = BASE + 0x3000;
pub(crate) const DATA: u64 = BASE + 0x4000;
pub(crate) const END: u64 = BASE + 0x6000;
pub(crate) const PAGES: u64 = (END - BASE) / PAGE_SIZE;

/// Physical memory: tables first, then the image.
pub(crate) const TOP: u64 = 0x1000;
pub(crate) const IMAGE: u64 = 0x8000;
pub(crate) const IDT: u64 = DATA + 0x1000;

/// Variables of L1's.
pub(crate) const DOMAIN_LIST: u64 = DATA + 0x100;
pub(crate) const DOMAIN_HASH: u64 = DATA + 0x200;
pub(crate) const PAYLOAD_LIST: u64 = DATA + 0xa00;
const PER_CPU_OFFSET: u64 = DATA + 0xb00;
const ONLINE_MAP: u64 = DATA + 0xb40;
const STACK_BASE: u64 = DATA + 0xb80;
const TSS_PAGE: u64 = DATA + 0xc00;
/// The processor's stack, and where its task segment is.
pub(crate) const STACK: u64 = DATA & !0x7fff;
pub(crate) const TSS: u64 = TSS_PAGE + 0x40;

/// Pages that are not the image's: the domains, then one each for a live patch, its code, and a stack.
pub(crate) const DOMAINS: [u16; 3] = [0, 1, 7];
pub(crate) const PAYLOAD_PAGE: u64 = 3;
pub(crate) const PATCH_PAGE: u64 = 4;
const STACK_PAGE: u64 = 5;
const GUEST_PAGES: u64 = 6;
const FIRST_GUEST_PAGE: u64 = 128;
const GUESTS: u64 = 0x1_1000;

/// Where a domain has its members.
pub(crate) const DOMAIN_LINK: u64 = 0x28;
const VCPU_ARRAY: u64 = 0x800;
const VCPUS: [u64; 2] = [0x900, 0xa00];
const CPU_INFO_BYTES: u32 = 232;
const OFFSETS: [(&str, &str, u32); 29] = [
    ("domain", "", 0x1000),
    ("domain", "domain_id", 0),
    ("domain", "vcpu", 0x10),
    ("domain", "max_vcpus", 0x18),
    ("domain", "options", 0x1c),
    ("domain", "is_dying", 0x20),
    ("domain", "next_in_list", DOMAIN_LINK as u32),
    ("domain", "next_in_hashbucket", 0x30),
    ("vcpu", "", 0x100),
    ("vcpu", "vcpu_id", 0),
    ("vcpu", "domain", 8),
    ("vcpu", "processor", 0x10),
    ("vcpu", "is_running", 0x14),
    ("vcpu", "arch.hvm.svm.vmcb_pa", 0x18),
    ("cpu_info", "", CPU_INFO_BYTES),
    ("cpu_info", "current_vcpu", 208),
    ("payload", "", 0x100),
    ("payload", "list", 0),
    ("payload", "text_addr", 0x10),
    ("payload", "text_size", 0x18),
    ("payload", "funcs", 0x20),
    ("payload", "nfuncs", 0x28),
    ("payload", "state", 0x2c),
    ("payload", "name", 0x30),
    ("livepatch_func", "", 0x20),
    ("livepatch_func", "new_addr", 0),
    ("livepatch_func", "old_addr", 8),
    ("livepatch_func", "new_size", 0x10),
    ("livepatch_func", "old_size", 0x14),
];

/// What L1 sets pointers to that are not to be used.
const POISON: u64 = 0x8600_1111_1111_1111;
pub(crate) const NO_EXECUTE: u64 = 1 << 63;

#[derive(Clone)]
pub(crate) struct Memory(pub(crate) Vec<u8>);

impl PhysicalMemory for Memory {
    fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), MemoryError> {
        let start = usize::try_from(gpa.0).map_err(|_| MemoryError::NoRam(gpa))?;
        let end = start.checked_add(buf.len()).ok_or(MemoryError::NoRam(gpa))?;
        buf.copy_from_slice(self.0.get(start..end).ok_or(MemoryError::NoRam(gpa))?);
        Ok(())
    }
}

impl Memory {
    pub(crate) fn put(&mut self, at: u64, bytes: &[u8]) {
        self.0[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn put_word(&mut self, at: u64, word: u64) {
        self.put(at, &word.to_le_bytes());
    }

    /// Where a page of the image stands in memory.
    pub(crate) fn physical(gva: u64) -> u64 {
        IMAGE + (gva - BASE)
    }
}

pub(crate) fn symbols() -> SymbolTable {
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
            ("domain_list", DOMAIN_LIST, Data),
            ("domain_hash", DOMAIN_HASH, Data),
            ("payload_list", PAYLOAD_LIST, Data),
            ("__per_cpu_offset", PER_CPU_OFFSET, Data),
            ("cpu_online_map", ONLINE_MAP, Data),
            ("per_cpu__tss_page", TSS_PAGE, Data),
            ("stack_base", STACK_BASE, Data),
            ("__alt_instructions", DATA + 0x10, Data),
            ("__alt_instructions_end", DATA + 0x10 + 14, Data),
            ("_end", END, Data),
        ]
        .map(named),
    )
}

/// The file: code that is 0x90 throughout, constants that count up, one record of other code.
pub(crate) fn file() -> Vec<u8> {
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
pub(crate) fn running(file: &[u8]) -> Memory {
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
    memory.put_word(Memory::physical(ONLINE_MAP), 1);
    memory.put_word(Memory::physical(STACK_BASE), STACK);
    let stacks = [STACK + 0x7fe8, POISON, POISON, 0, STACK + 0x1000, STACK + 0x2000, POISON];
    for (at, pointer) in (0..).zip(stacks) {
        memory.put_word(Memory::physical(TSS + 4 + 8 * at), pointer);
    }
    for at in 0..4 {
        memory.put_word(Memory::physical(TSS + 60 + 8 * at), POISON);
    }
    memory
}

pub(crate) fn gate(handler: u64) -> [u8; 16] {
    let mut gate = [0; 16];
    gate[..2].copy_from_slice(&(handler as u16).to_le_bytes());
    gate[5] = 0x8e;
    gate[6..8].copy_from_slice(&((handler >> 16) as u16).to_le_bytes());
    gate[8..12].copy_from_slice(&((handler >> 32) as u32).to_le_bytes());
    gate
}

pub(crate) fn cpu() -> SystemRegisters {
    SystemRegisters {
        rip: Gva(TEXT + 0x100),
        rsp: Gva(DATA + 0x800),
        cr0: 0x8005_0033,
        cr3: TOP,
        idt: DescriptorTable { base: Gva(IDT), limit: 0xfff },
        gdt: DescriptorTable { base: Gva(DATA), limit: 0xff },
        task: TaskRegister { selector: 0xe040, base: Gva(TSS), limit: 0x67 },
        ..SystemRegisters::default()
    }
}

/// The virtual address of a page that is not the image's.
pub(crate) const fn guest_page(page: u64) -> u64 {
    BASE + (FIRST_GUEST_PAGE + page) * PAGE_SIZE
}

/// An L1 with guests and a live patch.
pub(crate) struct L1 {
    pub(crate) file: Vec<u8>,
    pub(crate) memory: Memory,
    pub(crate) symbols: SymbolTable,
    pub(crate) structures: Structures,
}

impl L1 {
    pub(crate) fn new() -> Self {
        let file = file();
        let mut memory = running(&file);
        for page in 0..GUEST_PAGES {
            let rights = if page == PATCH_PAGE { 1 } else { 3 | NO_EXECUTE };
            memory
                .put_word(TOP + 0x3000 + 8 * (FIRST_GUEST_PAGE + page), (GUESTS + page * PAGE_SIZE) | rights);
        }
        let mut l1 = Self { file, memory, symbols: symbols(), structures: Structures::made_up(&OFFSETS) };
        l1.add_domains();
        l1.add_live_patch();
        l1
    }

    /// Where a byte of the image or of a guest page stands in memory.
    pub(crate) fn physical(at: u64) -> u64 {
        let page = at.wrapping_sub(guest_page(0));
        if page < GUEST_PAGES * PAGE_SIZE { GUESTS + page } else { Memory::physical(at) }
    }

    pub(crate) fn put(&mut self, at: u64, bytes: &[u8]) {
        self.memory.put(Self::physical(at), bytes);
    }

    pub(crate) fn put_word(&mut self, at: u64, word: u64) {
        self.put(at, &word.to_le_bytes());
    }

    fn add_domains(&mut self) {
        let mut link = DOMAIN_LIST;
        for (page, id) in (0..).zip(DOMAINS) {
            let domain = guest_page(page);
            self.put_word(link, domain);
            self.put_word(DOMAIN_HASH + 8 * u64::from(id), domain);
            self.put(domain, &id.to_le_bytes());
            self.put_word(domain + 0x10, domain + VCPU_ARRAY);
            self.put(domain + 0x18, &(VCPUS.len() as u32).to_le_bytes());
            for (number, vcpu) in (0_u32..).zip(VCPUS) {
                self.put_word(domain + VCPU_ARRAY + 8 * u64::from(number), domain + vcpu);
                self.put(domain + vcpu, &number.to_le_bytes());
                self.put_word(domain + vcpu + 8, domain);
            }
            link = domain + DOMAIN_LINK;
        }
        let info = guest_page(STACK_PAGE + 1) - u64::from(CPU_INFO_BYTES);
        self.put_word(info + 208, guest_page(1) + VCPUS[0]);
    }

    /// `other` jumps into the patch.
    fn add_live_patch(&mut self) {
        let (payload, code, old) = (guest_page(PAYLOAD_PAGE), guest_page(PATCH_PAGE), TEXT + 0x200);
        let function = payload + 0x200;
        self.put_word(PAYLOAD_LIST, payload);
        self.put_word(payload, PAYLOAD_LIST);
        self.put_word(payload + 0x10, code);
        self.put_word(payload + 0x18, PAGE_SIZE);
        self.put_word(payload + 0x20, function);
        self.put(payload + 0x28, &1_u32.to_le_bytes());
        self.put(payload + 0x2c, &2_u32.to_le_bytes());
        self.put(payload + 0x30, b"mended");
        self.put_word(function, code);
        self.put_word(function + 8, old);
        self.put(function + 0x14, &0x10_u32.to_le_bytes());
        let distance = (code.wrapping_sub(old + 5) as u32).to_le_bytes();
        self.put(old, &[&[0xe9][..], &distance].concat());
    }

    pub(crate) fn reference(&self) -> Reference<'_> {
        // The symbols above have every border.
        Reference::of_pieces(vec![(Gva(BASE), &self.file)], &self.symbols).unwrap_or_else(|_| unreachable!())
    }

    /// A processor on the stack of a domain's vCPU.
    pub(crate) fn cpu() -> SystemRegisters {
        SystemRegisters { rsp: Gva(guest_page(STACK_PAGE) + 0x100), ..cpu() }
    }

    pub(crate) fn ram(&self) -> [(Gpa, u64); 1] {
        [(Gpa(0), self.memory.0.len() as u64)]
    }

    /// `None` if nothing is left of it.
    pub(crate) fn target<'a>(
        memory: Memory,
        reference: &'a Reference<'a>,
        cpu: SystemRegisters,
    ) -> Option<Target<'a, Memory>> {
        Target::find(memory, reference, &[cpu], [])
    }
}
