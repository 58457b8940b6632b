//! One vCPU: KVM_RUN, and what to do when it returns.

use core::ffi::c_int;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use hypovisor_event::control::{Hook, HookKind, SystemRegister};
use hypovisor_machine::{Gva, KERNEL_HALF};
use hypovisor_mapping::Ram;
use hypovisor_sensor::{Entries, Register, VcpuSensor, protections};
use kvm_bindings::{kvm_debug_exit_arch, kvm_guest_debug};

use crate::breakpoints::{Breakpoints, Hooks};
use crate::call_exits::CallExits;
use crate::first_instruction::FirstInstruction;
use crate::kvm;
use crate::msrs;
use crate::run_page::RunPage;
use crate::stack::ReturnAddresses;
use crate::vm::Vm;

/// The exception that breakpoints and single steps raise.
const DEBUG_EXCEPTION: u32 = 1;
/// DR6.BS: a single step has ended (AMD APM vol. 2, §13.1.1.3).
const DR6_SINGLE_STEP: u64 = 1 << 14;

/// What protects L1, in the order of [`RunPage::protections`].
const PROTECTIONS: [SystemRegister; 3] = [SystemRegister::Cr0, SystemRegister::Cr4, SystemRegister::Efer];

/// Who goes on after an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// L1: the exit was only ours.
    L1,
    /// QEMU.
    Qemu,
}

/// One vCPU of the virtual machine.
pub(crate) struct KvmVcpu {
    fd: c_int,
    index: u32,
    /// The thread that runs it, and whether it is inside KVM_RUN or about to be.
    thread: AtomicI32,
    inside: AtomicBool,
    /// The breakpoints are set: L1 does not get past them unseen.
    armed: AtomicBool,
    /// Calls of guests that passed its hooks, and those that the kernel saw.
    entries: Arc<Entries>,
    exits: OnceLock<Option<CallExits>>,
    first_instruction: FirstInstruction,
    state: Mutex<State>,
}

/// What only the vCPU's own thread uses.
struct State {
    page: RunPage,
    sensor: VcpuSensor,
    hooks: Arc<Hooks>,
    breakpoints: Breakpoints,
    returns: ReturnAddresses,
    /// Where the outer call returns to, while an inner one has the breakpoint.
    outer: Option<Hook>,
    /// The protecting bits of CR0, CR4 and EFER at the last call.
    protections: [u64; 3],
}

impl KvmVcpu {
    /// The vCPU that QEMU has just made. `None` if its page cannot be mapped.
    pub(crate) fn new(fd: c_int, index: u32, page_bytes: usize, sensor: VcpuSensor) -> Option<Self> {
        let page = RunPage::map(fd, page_bytes)?;
        page.exchange_registers(true);
        let entries = sensor.entries();
        let state = State {
            page,
            sensor,
            hooks: Arc::default(),
            breakpoints: Breakpoints::new(),
            returns: ReturnAddresses::default(),
            outer: None,
            protections: [0; 3],
        };
        Some(Self {
            fd,
            index,
            thread: AtomicI32::new(0),
            inside: AtomicBool::new(false),
            armed: AtomicBool::new(false),
            entries,
            exits: OnceLock::new(),
            first_instruction: FirstInstruction::default(),
            state: Mutex::new(state),
        })
    }

    pub(crate) const fn fd(&self) -> c_int {
        self.fd
    }

    /// Whether it is the one that boots the machine.
    pub(crate) const fn is_first(&self) -> bool {
        self.index == 0
    }

    pub(crate) const fn first_instruction(&self) -> &FirstInstruction {
        &self.first_instruction
    }

    /// Hypercalls of hardware-virtualised guests: how many passed a hook, how many were made; and how many PV guests made. `None` if
    /// nobody counts.
    pub(crate) fn call_counts(&self) -> Option<[u64; 3]> {
        // First those that passed: a call under way is rather missing than one too many.
        let passed = self.entries.hvm();
        Some([passed, self.exits.get()?.as_ref()?.count(), self.entries.pv()])
    }

    /// This thread runs it from now on.
    pub(crate) fn runs_on(&self, thread: i32) {
        self.thread.store(thread, Ordering::Relaxed);
    }

    /// The thread that runs it; `None` before the first time.
    pub(crate) fn thread(&self) -> Option<i32> {
        Some(self.thread.load(Ordering::Relaxed)).filter(|thread| *thread != 0)
    }

    /// The thread to be told that there are breakpoints to set, if it may run L1 without them.
    pub(crate) fn runs_unarmed(&self) -> Option<i32> {
        let unarmed = self.inside.load(Ordering::SeqCst) && !self.armed.load(Ordering::SeqCst);
        unarmed.then(|| self.thread.load(Ordering::Relaxed))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // After a panic in between, the vCPU is left alone; see `qemu::guarded`.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// L1 is about to run.
    pub(crate) fn before_run(&self, vm: &Vm) {
        // First this, then the look at the hooks: who sets the hooks looks at this behind them.
        self.inside.store(true, Ordering::SeqCst);
        if vm.is_watching() && !self.armed.load(Ordering::Relaxed) {
            self.arm(vm);
        }
    }

    /// KVM_RUN has returned.
    pub(crate) fn after_run(&self) {
        self.inside.store(false, Ordering::Relaxed);
    }

    #[cold]
    fn arm(&self, vm: &Vm) {
        let mut state = self.state();
        match vm.hooks().filter(|_| !vm.is_dead()) {
            Some(hooks) => {
                self.exits.get_or_init(CallExits::of_this_thread);
                state.breakpoints.place(&hooks);
                state.hooks = hooks;
                if !self.set_breakpoints(&state) {
                    state.breakpoints.clear();
                    vm.give_up("KVM refuses hardware breakpoints (KVM_SET_GUEST_DEBUG)");
                }
            }
            None => state.page.exchange_registers(false),
        }
        self.armed.store(true, Ordering::SeqCst);
    }

    /// The vCPU begins anew, without hooks. Called on the vCPU's own thread, as all of QEMU's settings are.
    pub(crate) fn l1_was_reset(&self, vm: &Vm) {
        let mut state = self.state();
        state.sensor.l1_was_reset();
        state.outer = None;
        state.protections = [0; 3];
        if self.armed.swap(false, Ordering::SeqCst) && state.breakpoints.any() {
            state.breakpoints.clear();
            if !self.set_breakpoints(&state) {
                vm.give_up("KVM refuses to take hardware breakpoints back (KVM_SET_GUEST_DEBUG)");
            }
        }
        state.page.exchange_registers(!vm.is_dead());
    }

    fn set_breakpoints(&self, state: &State) -> bool {
        let mut wish = state.breakpoints.to_kvm();
        kvm::set_guest_debug(self.fd, &mut wish) == 0
    }

    /// KVM_RUN has returned without an error: who goes on?
    pub(crate) fn on_exit(&self, vm: &'static Vm) -> Next {
        let mut state = self.state();
        if let Some((number, value)) = state.page.denied_wrmsr()
            && let Some(register) = msrs::handed_over(number)
        {
            self.wrmsr(vm, &state.page, register, number, value);
            return Next::L1;
        }
        if !self.armed.load(Ordering::Relaxed) {
            self.probe(vm, &state.page);
            return Next::Qemu;
        }
        let Some(exit) = state.page.debug_exit().filter(|_| state.breakpoints.any()) else {
            return Next::Qemu;
        };
        self.on_debug_exit(vm, &mut state, &exit)
    }

    /// Does the WRMSR that KVM has handed over, and tells if L1 should not have made it.
    #[cold]
    fn wrmsr(&self, vm: &Vm, page: &RunPage, register: SystemRegister, number: u32, value: u64) {
        // A guest of L1 with hardware virtualisation has such registers of its own.
        if !vm.is_dead() && page.is_l1_kernel() && vm.is_l1(page.register(Register::Cr3)) {
            vm.l1_sets(register, value, Gva(page.register(Register::Rip)));
        }
        page.finish_wrmsr(kvm::set_msr(self.fd, number, value));
    }

    /// The first code in the kernel half: time to ask what to hook.
    fn probe(&self, vm: &'static Vm, page: &RunPage) {
        let rip = page.register(Register::Rip);
        if rip >= KERNEL_HALF && page.is_l1_kernel() {
            vm.ask(self.index, page.register(Register::Cr3), Gva(rip));
        }
    }

    fn on_debug_exit(&self, vm: &Vm, state: &mut State, exit: &kvm_debug_exit_arch) -> Next {
        let steps = exit.dr6 & DR6_SINGLE_STEP != 0 && state.breakpoints.debugger_is_there();
        let ours = exit.exception == DEBUG_EXCEPTION && !steps;
        let Some(kind) = state.breakpoints.at(exit.pc).filter(|_| ours) else {
            // L1's own, which QEMU passes on to it, or the debugger's.
            state.page.hide_breakpoints();
            return Next::Qemu;
        };
        if vm.is_dead() {
            state.breakpoints.clear();
            self.set_breakpoints(state);
        } else if state.page.is_l1_kernel() {
            // A guest may jump to the address as well; it faults there, as it does without us.
            self.hit(vm, state, kind);
        }
        state.page.step_over_breakpoint();
        Next::L1
    }

    fn hit(&self, vm: &Vm, state: &mut State, kind: HookKind) {
        let Some(ram) = vm.ram() else { return };
        match kind {
            HookKind::PvEntry | HookKind::HvmEntry => {
                state.notice_protections(vm);
                let exit = if kind == HookKind::PvEntry { HookKind::PvExit } else { HookKind::HvmExit };
                state.outer = self.expect_return(vm, state, ram, exit);
                if state.outer.is_none() {
                    let frame = Gva(state.page.register(Register::Rdi));
                    return state.sensor.tell_foreign_call(ram, frame, &mut &state.page);
                }
            }
            HookKind::InnerEntry => {
                if self.expect_return(vm, state, ram, HookKind::InnerExit).is_none() {
                    return;
                }
            }
            HookKind::PvExit | HookKind::HvmExit | HookKind::InnerExit | HookKind::Vmrun => {}
        }
        if !vm.only_hooks() {
            state.sensor.on_hook(kind, &mut &state.page);
        }
        if kind == HookKind::InnerExit
            && let Some(outer) = state.outer
        {
            self.move_result(vm, state, outer);
        }
    }

    /// Sets the breakpoint where the call that has just been entered returns to. Without it the call is left alone: what
    /// is changed at its entry is put right at its exit.
    fn expect_return(&self, vm: &Vm, state: &mut State, ram: &Ram, kind: HookKind) -> Option<Hook> {
        let (cr3, rsp) = (state.page.register(Register::Cr3), state.page.register(Register::Rsp));
        let State { returns, hooks, .. } = &mut *state;
        let Some(hook) = returns.find(ram, cr3, rsp, |word| hooks.returns_to(kind, word)) else {
            vm.note_unknown_return();
            return None;
        };
        self.move_result(vm, state, hook).then_some(hook)
    }

    fn move_result(&self, vm: &Vm, state: &mut State, hook: Hook) -> bool {
        let set = !state.breakpoints.move_result(hook) || self.set_breakpoints(state);
        if !set {
            vm.give_up("KVM refuses to move a hardware breakpoint (KVM_SET_GUEST_DEBUG)");
        }
        set
    }

    /// QEMU sets what its own debugger wants. What KVM answered, or `None` if it asks for breakpoints that are in use.
    pub(crate) fn set_debugger(&self, wish: &kvm_guest_debug) -> Option<c_int> {
        let mut state = self.state();
        if !state.breakpoints.set_debugger(*wish) {
            return None;
        }
        let mut both = state.breakpoints.to_kvm();
        Some(kvm::set_guest_debug(self.fd, &mut both))
    }
}

impl State {
    /// What protects L1 is seen at every call, and compared if it is not as at the last one.
    fn notice_protections(&mut self, vm: &Vm) {
        let values = self.page.protections();
        let bits = |index: usize| protections(PROTECTIONS[index]).unwrap_or(u64::MAX);
        let now = std::array::from_fn(|index| values[index] & bits(index));
        if self.protections == now {
            return;
        }
        self.protections = now;
        vm.learn_l1(self.page.register(Register::Cr3));
        for (register, value) in PROTECTIONS.into_iter().zip(values) {
            vm.l1_sets(register, value, Gva(0));
        }
    }
}
