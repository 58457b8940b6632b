//! Plays an attacker who can write L1's memory: writes it from L0, through QEMU.

use std::io::IoSlice;
use std::path::{Path, PathBuf};

use hypovisor_engine::inspect::RunningMachine;
use hypovisor_engine::qmp::Qmp;
use hypovisor_l1::SymbolFile;
use hypovisor_machine::{Gpa, Gva, SystemRegisters, VirtualMemory};
use nix::sys::uio::{RemoteIoVec, process_vm_writev};
use nix::unistd::Pid;

/// The upper half of an entry's levels, from the last.
const SHIFTS: [u32; 4] = [39, 30, 21, 12];
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

pub(crate) struct Attacker {
    machine: RunningMachine,
    monitor: PathBuf,
    qemu: Pid,
    symbols: Vec<u8>,
    /// Where Xen's code begins.
    start: Gva,
    pub(crate) cpu: SystemRegisters,
}

/// A processor whose page tables have Xen: one that runs a hardware-virtualised guest has that guest's.
fn in_xen(machine: &RunningMachine, start: Gva) -> SystemRegisters {
    loop {
        // QEMU may be slow to answer.
        let cpus = machine.registers().unwrap_or_default();
        let maps =
            |cpu: &&SystemRegisters| VirtualMemory::new(machine.memory(), cpu.cr3).translate(start).is_ok();
        if let Some(cpu) = cpus.iter().find(maps) {
            return *cpu;
        }
    }
}

impl Attacker {
    /// On the machine whose QEMU's monitor listens here, and that runs the Xen of this symbols file.
    pub(crate) fn new(monitor: &Path, symbols: &Path) -> Self {
        let machine = RunningMachine::open(monitor).unwrap();
        let pid = Qmp::connect(monitor).unwrap().pid().unwrap();
        let qemu = Pid::from_raw(pid);
        let symbols = std::fs::read(symbols).unwrap();
        let start = SymbolFile::parse(&symbols).unwrap().symbols().address_of("_stext").unwrap();
        let cpu = in_xen(&machine, start);
        Self { machine, monitor: monitor.to_owned(), qemu, symbols, start, cpu }
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
        VirtualMemory::new(self.machine.memory(), self.tables())
    }

    /// Page tables that are in use now: those of a moment ago may be gone, with the program that they were of.
    fn tables(&self) -> u64 {
        in_xen(&self.machine, self.start).cr3
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
        let base = usize::from_str_radix(address, 16).unwrap();
        // Not by /proc/PID/mem, which has no patience with write-protected pages (see docs/integrity.md).
        let there = RemoteIoVec { base, len: bytes.len() };
        assert_eq!(process_vm_writev(self.qemu, &[IoSlice::new(bytes)], &[there]), Ok(bytes.len()));
    }

    /// Where the entry stands that maps this page, and the entry.
    fn entry_of(&self, at: Gva) -> (Gpa, u64) {
        let mut table = self.tables() & ADDRESS;
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
