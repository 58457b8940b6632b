//! Plays an attacker who can write L1's memory: writes it from L0, through QEMU.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use hypovisor_engine::inspect::RunningMachine;
use hypovisor_engine::qmp::Qmp;
use hypovisor_l1::SymbolFile;
use hypovisor_machine::{Gpa, Gva, SystemRegisters, VirtualMemory};

/// The upper half of an entry's levels, from the last.
const SHIFTS: [u32; 4] = [39, 30, 21, 12];
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

pub(crate) struct Attacker {
    machine: RunningMachine,
    monitor: PathBuf,
    qemu: File,
    symbols: Vec<u8>,
    pub(crate) cpu: SystemRegisters,
}

impl Attacker {
    /// On the machine whose QEMU's monitor listens here, and that runs the Xen of this symbols file.
    pub(crate) fn new(monitor: &Path, symbols: &Path) -> Self {
        let machine = RunningMachine::open(monitor).unwrap();
        let pid = Qmp::connect(monitor).unwrap().pid().unwrap();
        let qemu = OpenOptions::new().write(true).open(format!("/proc/{pid}/mem")).unwrap();
        let symbols = std::fs::read(symbols).unwrap();
        let start = SymbolFile::parse(&symbols).unwrap().symbols().address_of("_stext").unwrap();
        // A processor that runs a hardware-virtualised guest has that guest's tables.
        let cpu = loop {
            let cpus = machine.registers().unwrap();
            let maps = |cpu: &&SystemRegisters| {
                VirtualMemory::new(machine.memory(), cpu.cr3).translate(start).is_ok()
            };
            if let Some(cpu) = cpus.iter().find(maps) {
                break *cpu;
            }
        };
        Self { machine, monitor: monitor.to_owned(), qemu, symbols, cpu }
    }

    pub(crate) fn address_of(&self, name: &str) -> Gva {
        SymbolFile::parse(&self.symbols).unwrap().symbols().address_of(name).unwrap()
    }

    /// Of a member, in bytes.
    pub(crate) fn offset(&self, structure: &'static str, member: &'static str) -> u64 {
        const WANTED: &[(&str, &[&str])] = &[("domain", &["next_in_list"])];
        let offsets = SymbolFile::parse(&self.symbols).unwrap().offsets(WANTED).unwrap();
        offsets[&(structure, member)].into()
    }

    fn memory(&self) -> VirtualMemory<&(dyn hypovisor_machine::PhysicalMemory + Send)> {
        VirtualMemory::new(self.machine.memory(), self.cpu.cr3)
    }

    pub(crate) fn read(&self, at: Gva, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory().read(at, &mut bytes).unwrap();
        bytes
    }

    pub(crate) fn pointer(&self, at: Gva) -> u64 {
        self.memory().read_u64(at).unwrap()
    }

    pub(crate) fn write(&self, at: Gva, bytes: &[u8]) {
        self.write_physical(self.memory().translate(at).unwrap(), bytes);
    }

    fn write_physical(&self, at: Gpa, bytes: &[u8]) {
        let said = Qmp::connect(&self.monitor).unwrap().human(&format!("gpa2hva {:#x}", at.0)).unwrap();
        let address = said.trim().rsplit("0x").next().unwrap();
        self.qemu.write_all_at(bytes, u64::from_str_radix(address, 16).unwrap()).unwrap();
    }

    /// Where the entry stands that maps this page, and the entry.
    fn entry_of(&self, at: Gva) -> (Gpa, u64) {
        let mut table = self.cpu.cr3 & ADDRESS;
        for shift in SHIFTS {
            let place = Gpa(table + 8 * (at.0 >> shift & 0x1ff));
            let entry = self.machine.memory().read_u64(place).unwrap();
            if shift == 12 || (shift < 39 && entry & 0x80 != 0) {
                return (place, entry);
            }
            table = entry & ADDRESS;
        }
        unreachable!("the last level maps a page")
    }

    /// Flips bits of the entry that maps this page.
    pub(crate) fn flip_entry(&self, at: Gva, bits: u64) {
        let (place, entry) = self.entry_of(at);
        self.write_physical(place, &(entry ^ bits).to_le_bytes());
    }
}
