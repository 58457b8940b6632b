//! QEMU's ioctls that concern the sensor.
#![expect(unsafe_code, reason = "takes QEMU's arguments")]

use core::ffi::{c_int, c_ulong, c_void};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use kvm_bindings::{
    kvm_enable_cap, kvm_guest_debug, kvm_msr_filter, kvm_regs, kvm_sregs, kvm_userspace_memory_region,
};

use crate::first_instruction::FirstInstruction;
use crate::kvm;
use crate::msrs;
use crate::options::Options;
use crate::vcpu::{KvmVcpu, Next};
use crate::vm::{VM, Vm, log};

thread_local! {
    /// The vCPU that this thread ran last.
    static CURRENT: Cell<Option<&'static KvmVcpu>> = const { Cell::new(None) };
}

/// One of KVM's ioctls, made by QEMU.
///
/// # Safety
/// As `ioctl(2)`: `argument` is what the request asks for.
pub(crate) unsafe fn on_ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    if request == kvm::RUN {
        return on_run(fd);
    }
    if request == kvm::SET_GUEST_DEBUG && !argument.is_null() {
        // SAFETY: the request's argument is this structure.
        let wish = unsafe { *argument.cast::<kvm_guest_debug>() };
        if let Some(result) = on_set_guest_debug(fd, &wish) {
            return result;
        }
    }
    if request == kvm::ENABLE_CAP && !argument.is_null() && machine(fd).is_some() {
        // SAFETY: the request's argument is this structure.
        let wish = unsafe { *argument.cast::<kvm_enable_cap>() };
        return kvm::enable_cap(fd, &mut msrs::with_exits(&wish));
    }
    if request == kvm::SET_MSR_FILTER && !argument.is_null() {
        // SAFETY: the request's argument is this structure.
        let wish = unsafe { *argument.cast::<kvm_msr_filter>() };
        if let Some(result) = on_set_msr_filter(fd, &wish) {
            return result;
        }
    }
    // SAFETY: passed on as QEMU gave it.
    let result = unsafe { kvm::ioctl(fd, request, argument) };
    if result >= 0 {
        match request {
            kvm::CREATE_VM => guarded(|| begin(fd, result)),
            kvm::CREATE_VCPU => guarded(|| on_vcpu(fd, result)),
            kvm::SET_REGS if !argument.is_null() => {
                // SAFETY: the request's argument is this structure.
                let registers = unsafe { &*argument.cast::<kvm_regs>() };
                guarded(|| on_registers(fd, |first| first.set_registers(registers)));
            }
            kvm::SET_SREGS | kvm::SET_SREGS2 if !argument.is_null() => {
                // SAFETY: the request's argument is this structure, or has its fields up to the interrupts' base and is longer.
                let registers = unsafe { &*argument.cast::<kvm_sregs>() };
                guarded(|| on_registers(fd, |first| first.set_system_registers(registers)));
            }
            kvm::SET_USER_MEMORY_REGION | kvm::SET_USER_MEMORY_REGION2 if !argument.is_null() => {
                // SAFETY: the request's argument is this structure, or begins with it.
                let region = unsafe { *argument.cast::<kvm_userspace_memory_region>() };
                guarded(|| on_memory(fd, region));
            }
            _ => {}
        }
    }
    result
}

/// Runs what is ours; a panic ends the watching, not QEMU.
fn guarded(body: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(body)).is_err() {
        log("internal error in the sensor; L1 runs on unmonitored");
        if let Some(vm) = VM.get() {
            vm.leave_alone();
        }
    }
}

/// QEMU has made a virtual machine.
fn begin(system: c_int, fd: c_int) {
    let Some(options) = Options::take() else { return };
    if let Err(message) = options.and_then(|options| Vm::start(system, fd, options)) {
        log(&format!("{message}; L1 runs unmonitored"));
    }
}

/// The virtual machine, if the descriptor is its.
fn machine(fd: c_int) -> Option<&'static Vm> {
    VM.get().filter(|vm| vm.is_behind(fd))
}

fn on_vcpu(fd: c_int, vcpu: c_int) {
    if let Some(vm) = machine(fd) {
        vm.add(vcpu);
    }
}

fn on_memory(fd: c_int, region: kvm_userspace_memory_region) {
    if let Some(vm) = machine(fd) {
        vm.set_slot(region);
    }
}

/// QEMU has set registers of a vCPU; they may be those of its first instruction.
fn on_registers(fd: c_int, begins_anew: impl FnOnce(&FirstInstruction) -> bool) {
    if let Some(vm) = VM.get()
        && let Some(vcpu) = vm.find(fd)
        && begins_anew(vcpu.first_instruction())
    {
        vcpu.l1_was_reset(vm);
        if vcpu.is_first() {
            vm.forget_hooks();
        }
    }
}

/// `None`: QEMU's own filter is to be set as it is.
fn on_set_msr_filter(fd: c_int, wish: &kvm_msr_filter) -> Option<c_int> {
    let vm = machine(fd)?;
    let result = msrs::with_ours(wish).map(|mut both| kvm::set_msr_filter(fd, &mut both));
    vm.note_msr_filter(result == Some(0));
    result.filter(|result| *result == 0)
}

/// `None`: nothing that concerns us.
fn on_set_guest_debug(fd: c_int, wish: &kvm_guest_debug) -> Option<c_int> {
    let vcpu = VM.get()?.find(fd)?;
    let mut result = None;
    guarded(|| result = vcpu.set_debugger(wish));
    Some(result.unwrap_or_else(|| {
        log("QEMU's debugger asks for hardware breakpoints, which Hypovisor uses: refused. Use software breakpoints");
        kvm::fail(libc::EBUSY)
    }))
}

fn on_run(fd: c_int) -> c_int {
    let (Some(vm), Some(vcpu)) = (VM.get(), current(fd)) else {
        return kvm::ioctl_number(fd, kvm::RUN, 0);
    };
    loop {
        guarded(|| vcpu.before_run(vm));
        let result = kvm::ioctl_number(fd, kvm::RUN, 0);
        vcpu.after_run();
        if result != 0 {
            return result;
        }
        if who_goes_on(vm, vcpu) == Next::Qemu {
            return result;
        }
    }
}

/// After a panic L1 is left alone, but the exit has to be finished all the same: QEMU would take a breakpoint of ours for its
/// debugger's, and stop the machine.
fn who_goes_on(vm: &'static Vm, vcpu: &'static KvmVcpu) -> Next {
    let mut next = None;
    guarded(|| next = Some(vcpu.on_exit(vm)));
    if next.is_none() {
        guarded(|| next = Some(vcpu.on_exit(vm)));
    }
    next.unwrap_or(Next::Qemu)
}

/// The vCPU behind a descriptor that this thread runs.
fn current(fd: c_int) -> Option<&'static KvmVcpu> {
    if let Some(vcpu) = CURRENT.get().filter(|vcpu| vcpu.fd() == fd) {
        return Some(vcpu);
    }
    let vcpu = VM.get()?.find(fd)?;
    vcpu.runs_on(rustix::thread::gettid().as_raw_nonzero().get());
    CURRENT.set(Some(vcpu));
    Some(vcpu)
}
