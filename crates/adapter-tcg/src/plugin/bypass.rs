//! Hypercalls that a guest made and that passed no hook: instructions that make them are counted where guests execute them.
//!
//! SYSCALLs count, on both sides, in the kernel half of the address space only: user programs of PV guests execute them as well, and
//! they lead to their own kernel. (A guest can have its programs execute some there too, so that missing ones are no proof.) Calls of 32-bit
//! PV guests are not counted.

use core::ffi::{c_uint, c_void};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hypovisor_event::control::{SystemChange, SystemRegister};
use hypovisor_machine::{Gva, KERNEL_HALF};
use hypovisor_sensor::{Account, Entries};

use super::{Plugin, guarded};
use crate::sys::{Block, Counter, Info, Instruction, log};
use crate::system::{CallInstruction, MAX_BYTES};

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(100);
/// QEMU has counters for so many vCPUs from the start, and moves them when there are more.
const COUNTERS: u32 = 16;

/// What is counted.
pub(super) struct Bypass {
    vcpus: u32,
    /// SYSCALLs, by whoever executes them.
    syscalls: Counter,
    /// VMMCALLs of guests with hardware virtualisation.
    vmmcalls: AtomicU64,
    passed: Mutex<Vec<Arc<Entries>>>,
}

extern "C" fn on_vmmcall(vcpu: c_uint, _: *mut c_void) {
    guarded(|plugin| plugin.count_vmmcall(vcpu));
}

impl Bypass {
    /// `None` if QEMU may move its counters while they are read.
    pub(super) fn new(info: &Info) -> Option<Self> {
        (info.max_vcpus() <= COUNTERS || !info.can_grow()).then(|| Self {
            vcpus: info.max_vcpus(),
            syscalls: Counter::new(),
            vmmcalls: AtomicU64::new(0),
            passed: Mutex::default(),
        })
    }

    /// A vCPU has come up, whose hooks count here.
    pub(super) fn add(&self, entries: Arc<Entries>) {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner).push(entries);
    }

    /// Counts an instruction if it makes hypercalls.
    pub(super) fn watch(&self, instruction: Instruction, bytes: &[u8]) {
        match CallInstruction::read(bytes) {
            Some(CallInstruction::Syscall) if instruction.address() < KERNEL_HALF => {}
            Some(CallInstruction::Syscall) => instruction.count(&self.syscalls),
            Some(CallInstruction::Vmmcall) => instruction.on_execute(on_vmmcall, 0),
            None => {}
        }
    }

    /// As [`Bypass::watch`], for all of a block.
    pub(super) fn watch_block(&self, block: Block) {
        let mut bytes = [0; MAX_BYTES];
        block.instructions().for_each(|instruction| self.watch(instruction, instruction.bytes(&mut bytes)));
    }

    fn passed(&self, of: fn(&Entries) -> u64) -> u64 {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|entries| of(entries)).sum()
    }
}

impl Plugin {
    /// L1 itself, or a program of a PV guest, that executes VMMCALL makes no call but an error.
    fn count_vmmcall(&self, index: c_uint) {
        let Some(bypass) = &self.bypass else { return };
        if !self.is_l1(index) {
            bypass.vmmcalls.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Begins to compare, on a thread of its own.
    pub(super) fn account_for_calls(&'static self) {
        let Some(bypass) = &self.bypass else {
            return log("QEMU may add vCPUs: hypercalls that pass no hook are not looked for");
        };
        let thread = std::thread::Builder::new().name("hypovisor-calls".into());
        if thread.spawn(|| self.compare_calls(bypass)).is_err() {
            log("cannot start a thread: hypercalls that pass no hook are not looked for");
        }
    }

    fn compare_calls(&self, bypass: &Bypass) {
        let account = || Account::new(bypass.vcpus.into());
        let (mut pv, mut hvm, mut resets) = (account(), account(), 0);
        while !self.dead.load(Ordering::Relaxed) {
            std::thread::sleep(PERIOD);
            if resets != self.control.resets() {
                resets = self.control.resets();
                pv.start_anew();
                hvm.start_anew();
            }
            // First those that passed: a call under way is rather missing than one too many.
            let [passed_pv, passed_hvm] = [Entries::pv, Entries::hvm].map(|of| bypass.passed(of));
            let (made_pv, made_hvm) = (bypass.syscalls.sum(), bypass.vmmcalls.load(Ordering::Relaxed));
            let done = made_pv + made_hvm;
            if let Some(missing) = pv.look(passed_pv, made_pv, done) {
                self.tell_missing(SystemRegister::Syscalls, missing);
            }
            if let Some(missing) = hvm.look(passed_hvm, made_hvm, done) {
                self.tell_missing(SystemRegister::Vmmcalls, missing);
            }
        }
    }

    fn tell_missing(&self, register: SystemRegister, now: u64) {
        self.control.l1_does(SystemChange { register, before: 0, now, rip: Gva(0) });
    }
}
