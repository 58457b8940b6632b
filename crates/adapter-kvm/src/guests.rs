//! What L1's guests do that no hook sees, found by a thread that looks ten times a second.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hypovisor_event::control::{SystemChange, SystemRegister};
use hypovisor_machine::Gva;
use hypovisor_sensor::Account;

use crate::breakpoints::Hooks;
use crate::trace_event::TraceEvent;
use crate::vm::{Vm, log};
use crate::vm_entries::{self, Entry, Told, VmEntries};

/// Between two looks.
const PERIOD: Duration = Duration::from_millis(100);

impl Vm {
    /// Begins to look.
    pub(crate) fn watch_guests(&'static self) {
        let work = || {
            let mut calls = Calls::default();
            let mut entries = Entries::default();
            while !self.is_dead() {
                std::thread::sleep(PERIOD);
                calls.look(self);
                self.control().tell_written();
                if self.watches_l1() {
                    entries.look(self);
                }
            }
        };
        if std::thread::Builder::new().name("hypovisor-guests".into()).spawn(work).is_err() {
            log("cannot start a thread: what guests do without passing a hook is not looked for");
        }
    }
}

/// Hypercalls that passed hooks, and those that were made.
#[derive(Default)]
struct Calls {
    account: Option<Account>,
    /// How often the machine had been reset at the last look.
    resets: u64,
}

impl Calls {
    fn look(&mut self, vm: &Vm) {
        let vcpus = vm.vcpus().clone();
        let counts: Option<Vec<_>> = vcpus.iter().map(|vcpu| vcpu.call_counts()).collect();
        // A vCPU that has not run yet counts from its first run on.
        let Some(counts) = counts else { return };
        let account = self.account.get_or_insert_with(|| Account::new(vcpus.len() as u64));
        let resets = vm.control().resets();
        if resets != self.resets {
            self.resets = resets;
            account.start_anew();
        }
        let sum = |index: usize| counts.iter().map(|vcpu| vcpu[index]).sum::<u64>();
        let [passed, made, pv] = [0, 1, 2].map(sum);
        if let Some(now) = account.look(passed, made, made + pv) {
            let register = SystemRegister::Vmmcalls;
            vm.control().l1_does(SystemChange { register, before: 0, now, rip: Gva(0) });
        }
    }
}

/// VMRUNs, by the thread that makes them.
#[derive(Default)]
struct Entries {
    /// What L1's own VMRUNs were taken from.
    hooks: Arc<Hooks>,
    threads: HashMap<i32, VmEntries>,
    told: Told,
    /// They cannot be seen.
    is_blind: bool,
}

impl Entries {
    fn look(&mut self, vm: &Vm) {
        let Some(hooks) = vm.hooks().filter(|hooks| !self.is_blind && !hooks.vmruns.is_empty()) else {
            return;
        };
        if hooks.vmruns != self.hooks.vmruns {
            self.threads.clear();
        }
        self.hooks = hooks;
        if self.open(vm).is_none() {
            self.is_blind = true;
            self.threads.clear();
            return log("KVM's trace events cannot be read: VMRUNs that are not L1's own are not looked for");
        }
        let now = Instant::now();
        for entries in self.threads.values() {
            entries.elsewhere(|entry| tell(vm, SystemRegister::Vmcb, entry));
            entries.own(|entry| {
                // Without an engine there is nobody who would look for its owner.
                if vm.control().engine_attached() && self.told.is_due(entry.vmcb, now) {
                    tell(vm, SystemRegister::UsedVmcb, entry);
                }
            });
        }
        let quiet = self.told.quiet(now);
        self.threads.values_mut().for_each(|entries| entries.leave_out(&self.hooks.vmruns, &quiet));
    }

    /// Has the kernel tell of vCPUs that are new.
    fn open(&mut self, vm: &Vm) -> Option<()> {
        let threads: Vec<i32> = vm.vcpus().iter().filter_map(|vcpu| vcpu.thread()).collect();
        for thread in threads {
            if !self.threads.contains_key(&thread) {
                let event = TraceEvent::find(&vm_entries::EVENTS)?;
                self.threads.insert(thread, VmEntries::open(&event, thread, &self.hooks.vmruns)?);
            }
        }
        Some(())
    }
}

/// L1 has none where it was, or it is not known whose block this is.
fn tell(vm: &Vm, register: SystemRegister, entry: Entry) {
    vm.control().l1_does(SystemChange { register, before: 0, now: entry.vmcb, rip: entry.rip });
}
