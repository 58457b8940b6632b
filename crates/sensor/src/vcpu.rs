//! One vCPU's sensor: from hook hits to records.
//!
//! A call has two hits, entry and exit, on the same physical CPU; Xen does not switch vCPUs inside a hypercall, but
//! for the rare one that waits, and that one is recognised because the current vCPU differs at exit. An
//! inner call of a multicall has a pair of hits of its own inside the outer pair:
//!
//! ```text
//!   PvEntry  multicall              seq 7
//!     InnerEntry update_va_mapping  seq 8, parent 7
//!     InnerExit                     seq 8
//!     InnerEntry mmuext_op          seq 9, parent 7
//!     InnerExit                     seq 9
//!   PvExit                          seq 7
//! ```

use std::sync::LazyLock;

use hypovisor_abi::Width;
use hypovisor_abi::capture::{Plan, Registers};
use hypovisor_abi::xen::XEN;
use hypovisor_event::control::{FrameLayout, HookKind};
use hypovisor_event::injection::{Injected, InjectionStatus};
use hypovisor_event::record::{Caller, CallerMode, Entry, Exit, Kind, Reissue};
use hypovisor_event::ring::Producer;
use hypovisor_event::verdict::Intervention;
use hypovisor_machine::{Gpa, Gva, VirtualMemory};
use hypovisor_mapping::Ram;

use crate::borrow::{Job, Wanted};
use crate::control::Control;
use crate::frame::{Frame, PV_CALL_BYTES, width_of};
use crate::guest::AddressSpace;
use crate::machine::{Register, Vcpu};
use crate::recorder::{Capture, Recorder};
use crate::vmcb::Vmcb;
use crate::who::{Who, WhoCache};

/// `HVM_HCALL_preempted` (Xen arch/x86/include/asm/hvm/support.h): `hvm_hypercall` left the guest's RIP alone.
const HVM_PREEMPTED: u32 = 1;
/// `__HYPERVISOR_iret` (Xen public/xen.h): it does not return to its caller, who so could not issue it again.
const IRET: u64 = 23;
/// A multicall's state lies inside `struct vcpu`; further off than this it does not.
const VCPU_STRUCT_LIMIT: u64 = 1 << 16;

/// The cost of one hook hit in so many is measured (a power of two).
const COST_SAMPLE: u64 = 64;

/// What Xen's calls have to capture.
static PLAN: LazyLock<Plan> = LazyLock::new(|| Plan::new(&XEN));

/// A call that has entered and not returned.
struct Pending {
    sequence: u64,
    /// Whether the entry got into the ring; an exit without one is not written.
    recorded: bool,
    /// The current `struct vcpu` at entry.
    vcpu: u64,
    rip: u64,
    mode: CallerMode,
    number: u64,
    /// What to capture memory by when it returns; `None` if there is nothing to capture.
    captures: Option<Registers>,
    /// Set if the call is not the guest's own.
    job: Option<Box<Job>>,
}

/// What is left to know of an injected call when it returns.
struct BorrowedCall {
    sequence: u64,
    mode: CallerMode,
    rip: u64,
}

/// The sensor of one L1 vCPU. Used on that vCPU's thread only.
pub struct VcpuSensor {
    index: u64,
    control: &'static Control,
    plan: &'static Plan,
    recorder: Recorder,
    /// Where the guest's frame stands in the RAM mapping: the same for every call on this physical CPU.
    frame_at: Option<usize>,
    who: WhoCache,
    vmcb: Option<Vmcb>,
    outer: Option<Pending>,
    inner: Option<Pending>,
    /// From `struct vcpu` to the state of a multicall, in bytes.
    multicall_state: Option<u64>,
    next_sequence: u64,
    hits: u64,
}

impl VcpuSensor {
    /// A sensor for L1's vCPU `index`, writing to `producer`.
    #[must_use]
    pub fn new(index: u64, control: &'static Control, producer: Producer) -> Self {
        Self {
            index,
            control,
            plan: &PLAN,
            recorder: Recorder::new(control, producer),
            frame_at: None,
            who: WhoCache::default(),
            vmcb: None,
            outer: None,
            inner: None,
            multicall_state: None,
            next_sequence: 0,
            hits: 0,
        }
    }

    /// The vCPU stands at a hook of this kind.
    pub fn on_hook(&mut self, kind: HookKind, vcpu: &mut impl Vcpu) {
        self.hits = self.hits.wrapping_add(1);
        if self.hits & (COST_SAMPLE - 1) == 0 {
            self.measured_hit(kind, vcpu);
        } else {
            self.hit(kind, vcpu);
        }
    }

    fn measured_hit(&mut self, kind: HookKind, vcpu: &mut impl Vcpu) {
        let start = vcpu.now_ticks();
        self.hit(kind, vcpu);
        self.recorder.count_cost(vcpu.now_ticks().saturating_sub(start));
    }

    fn hit(&mut self, kind: HookKind, vcpu: &mut impl Vcpu) {
        let Some(ram) = self.control.ram() else { return };
        match kind {
            HookKind::PvEntry | HookKind::HvmEntry => self.enter(ram, kind, vcpu),
            HookKind::PvExit | HookKind::HvmExit => self.leave(ram, kind, vcpu),
            HookKind::InnerEntry => self.enter_inner(ram, vcpu),
            HookKind::InnerExit => self.leave_inner(ram, vcpu),
            HookKind::Vmrun => self.vmcb = vcpu.read_register(Register::Rax).map(|rax| Vmcb(Gpa(rax))),
        }
    }

    /// The VMCB of the last VMRUN on this physical CPU.
    #[must_use]
    pub const fn vmcb(&self) -> Option<Vmcb> {
        self.vmcb
    }

    fn enter(&mut self, ram: &Ram, kind: HookKind, vcpu: &mut impl Vcpu) {
        let time_ticks = vcpu.now_ticks();
        let Some((frame, layout)) = self.frame(ram, vcpu) else { return };
        let current = frame.word(layout.current_vcpu as usize);
        let who = self.identify(ram, layout, current, || vcpu.read_register(Register::Cr3));
        if who == Who::UNKNOWN {
            // L1 may have been reset and keep its stacks elsewhere now: look again at the next call.
            self.frame_at = None;
        }
        let (mode, cpl) = self.mode(ram, kind, &frame);
        let caller = Caller {
            domain: who.domain,
            vcpu: who.vcpu,
            mode,
            cpl,
            cs: if mode.is_pv() { frame.cs() } else { 0 },
            rip: frame.rip(),
            rsp: frame.rsp(),
        };
        let width = width_of(mode);
        let job = if self.control.injections().any() {
            self.borrow(ram, &frame, &caller, time_ticks, vcpu)
        } else {
            None
        };
        let registers = Registers { number: frame.rax(), args: frame.args(width), width };
        let sequence = self.take_sequence();
        let (number, args) = (registers.number, registers.args);
        let intervention = Intervention { injected: job.is_some(), verdict: None, rule: None };
        let entry = Entry { sequence, time_ticks, caller, parent: None, number, args, intervention };
        let (recorded, captures) = self.record_entry(ram, Kind::Entry, &entry, &registers, vcpu);
        let rip = caller.rip;
        self.inner = None;
        self.outer = Some(Pending { sequence, recorded, vcpu: current, rip, mode, number, captures, job });
    }

    fn leave(&mut self, ram: &Ram, kind: HookKind, vcpu: &mut impl Vcpu) {
        let Some((frame, layout)) = self.frame(ram, vcpu) else { return };
        let Some(pending) = self.outer.take() else { return };
        if frame.word(layout.current_vcpu as usize) != pending.vcpu {
            return;
        }
        let rax = frame.rax();
        let preempted = preempted(kind, &pending, &frame, vcpu);
        let reissue = preempted.then(|| reissue(&pending, &frame));
        record_exit(&mut self.recorder, ram, &pending, rax, reissue, self.vmcb, vcpu);
        if let Some(job) = pending.job {
            let call = BorrowedCall { sequence: pending.sequence, mode: pending.mode, rip: pending.rip };
            self.give_back(ram, &frame, job, &call, preempted, vcpu.now_ticks());
        }
    }

    /// Borrows the vCPU for an injection, if one waits for it.
    #[cold]
    fn borrow(
        &mut self,
        ram: &Ram,
        frame: &Frame<'_>,
        caller: &Caller,
        now_ticks: u64,
        vcpu: &mut impl Vcpu,
    ) -> Option<Box<Job>> {
        let Caller { domain, vcpu: number_of_vcpu, mode, rip, rsp, .. } = *caller;
        let number = frame.rax();
        let may_be_borrowed = number != IRET && (mode.is_pv() || caller.cpl == 0);
        let args = frame.args(width_of(mode));
        let wanted = Wanted { domain, vcpu: number_of_vcpu, mode, rip, rsp, number, args, may_be_borrowed };
        let mut job = self.control.injections().take(&wanted)?;
        let space = address_space(ram, mode, self.vmcb, vcpu);
        if job.begin(ram, frame, space, now_ticks) {
            return Some(job);
        }
        if let Some(job) = self.control.injections().put_back(job) {
            self.tell_end(&job, InjectionStatus::NoRoom, 0, 0, now_ticks);
        }
        None
    }

    /// The injected call has returned or was preempted: the guest goes on with what is its own.
    #[cold]
    fn give_back(
        &mut self,
        ram: &Ram,
        frame: &Frame<'_>,
        mut job: Box<Job>,
        call: &BorrowedCall,
        preempted: bool,
        now_ticks: u64,
    ) {
        if preempted {
            job.suspend(ram, frame, call.mode, call.rip);
            return self.control.injections().suspend(job);
        }
        let rax = frame.rax();
        job.end(ram, frame, call.mode);
        self.tell_end(&job, InjectionStatus::Done, result_of(call.mode, rax), call.sequence, now_ticks);
    }

    fn tell_end(&mut self, job: &Job, status: InjectionStatus, result: i64, sequence: u64, time_ticks: u64) {
        let duration_ticks = time_ticks.saturating_sub(job.started_ticks());
        let injected = Injected { id: job.id(), time_ticks, status, result, sequence, duration_ticks };
        self.recorder.injected(&injected, job.memory());
    }

    #[inline(never)]
    fn enter_inner(&mut self, ram: &Ram, vcpu: &mut impl Vcpu) {
        let time_ticks = vcpu.now_ticks();
        let Some(outer) = &self.outer else { return };
        let (parent, outer_vcpu, mode, rip) = (outer.sequence, outer.vcpu, outer.mode, outer.rip);
        let injected = outer.job.is_some();
        let width = width_of(mode);
        let Some(call) = self.read_inner(ram, outer_vcpu, width, vcpu) else { return };
        let who = self.inner_caller(ram, outer_vcpu);
        let cpl = self.inner_cpl(ram, mode);
        let [number, _, args @ ..] = call;
        let registers = Registers { number, args, width };
        let caller = Caller { domain: who.domain, vcpu: who.vcpu, mode, cpl, cs: 0, rip, rsp: 0 };
        let sequence = self.take_sequence();
        let intervention = Intervention { injected, verdict: None, rule: None };
        let entry = Entry { sequence, time_ticks, caller, parent: Some(parent), number, args, intervention };
        let (recorded, captures) = self.record_entry(ram, Kind::InnerEntry, &entry, &registers, vcpu);
        let vcpu = outer_vcpu;
        self.inner = Some(Pending { sequence, recorded, vcpu, rip, mode, number, captures, job: None });
    }

    #[inline(never)]
    fn leave_inner(&mut self, ram: &Ram, vcpu: &mut impl Vcpu) {
        let Some(pending) = self.inner.take() else { return };
        let Some(call) = self.read_inner(ram, pending.vcpu, width_of(pending.mode), vcpu) else { return };
        record_exit(&mut self.recorder, ram, &pending, call[1], None, self.vmcb, vcpu);
    }

    /// The frame of the guest that calls, and what is known of L1. Asks the engine the first time.
    fn frame<'a>(&mut self, ram: &'a Ram, vcpu: &mut impl Vcpu) -> Option<(Frame<'a>, &'static FrameLayout)> {
        let at = match self.frame_at {
            Some(at) => at,
            None => {
                let at = self.locate_frame(ram, vcpu)?;
                *self.frame_at.insert(at)
            }
        };
        Some((Frame::new(ram.mapping(), at)?, self.control.layout()?))
    }

    #[cold]
    fn locate_frame(&self, ram: &Ram, vcpu: &mut impl Vcpu) -> Option<usize> {
        let frame = Gva(vcpu.read_register(Register::Rdi)?);
        let cr3 = vcpu.read_register(Register::Cr3)?;
        if self.control.layout().is_none() {
            self.control.ask_layout(self.index, cr3, frame)?;
        }
        let gpa = VirtualMemory::new(ram, cr3).translate(frame).ok()?;
        ram.offset_of(gpa, Frame::BYTES).ok().filter(|at| at.is_multiple_of(8))
    }

    fn identify(
        &mut self,
        ram: &Ram,
        layout: &FrameLayout,
        current: u64,
        cr3: impl FnMut() -> Option<u64>,
    ) -> Who {
        self.who.identify(ram, layout, current, cr3).unwrap_or(Who::UNKNOWN)
    }

    fn mode(&self, ram: &Ram, kind: HookKind, frame: &Frame<'_>) -> (CallerMode, u8) {
        if kind == HookKind::PvEntry {
            return (frame.pv_mode(), (frame.cs() & 3) as u8);
        }
        let mode = self.vmcb.and_then(|vmcb| vmcb.mode(ram).ok());
        mode.unwrap_or((CallerMode::Hvm64, 0))
    }

    /// The `struct multicall_entry` that is being run, as 64-bit words: op, result, arguments.
    fn read_inner(
        &mut self,
        ram: &Ram,
        outer_vcpu: u64,
        width: Width,
        vcpu: &mut impl Vcpu,
    ) -> Option<[u64; 8]> {
        let state = match self.multicall_state {
            Some(state) => state,
            None => {
                let state = vcpu.read_register(Register::Rdi)?.wrapping_sub(outer_vcpu);
                *self.multicall_state.insert(Some(state).filter(|state| *state < VCPU_STRUCT_LIMIT)?)
            }
        };
        let call = self.control.layout()?.multicall_call as usize;
        let at = self.who.vcpu_offset() + state as usize + call;
        let word = |index: usize| ram.mapping().word(at + 8 * index).unwrap_or(0);
        Some(match width {
            Width::Bits64 => std::array::from_fn(word),
            Width::Bits32 => std::array::from_fn(|index| word(index / 2) >> (32 * (index % 2)) & 0xffff_ffff),
        })
    }

    fn inner_caller(&mut self, ram: &Ram, outer_vcpu: u64) -> Who {
        let layout = self.control.layout();
        layout.map_or(Who::UNKNOWN, |layout| self.identify(ram, layout, outer_vcpu, || None))
    }

    fn inner_cpl(&self, ram: &Ram, mode: CallerMode) -> u8 {
        if mode.is_pv() {
            return 3;
        }
        self.vmcb.and_then(|vmcb| vmcb.mode(ram).ok()).map_or(0, |(_, cpl)| cpl)
    }

    fn take_sequence(&mut self) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.recorder.show_sequence(self.next_sequence);
        sequence
    }

    /// Whether the entry got into the ring, and what to capture memory by when the call returns.
    fn record_entry(
        &mut self,
        ram: &Ram,
        kind: Kind,
        entry: &Entry,
        registers: &Registers,
        vcpu: &mut impl Vcpu,
    ) -> (bool, Option<Registers>) {
        let wanted = self.plan.wanted(registers);
        let space = wanted.entry.then(|| address_space(ram, entry.caller.mode, self.vmcb, vcpu)).flatten();
        let capture = space.map(|space| Capture { registers, space });
        let recorded = self.recorder.entry(ram, kind, entry, capture.as_ref());
        (recorded, wanted.exit.then_some(*registers))
    }
}

/// Whether the call did not finish and Xen will have the guest issue it again.
fn preempted(kind: HookKind, pending: &Pending, frame: &Frame<'_>, vcpu: &mut impl Vcpu) -> bool {
    if kind == HookKind::HvmExit {
        // The function returns an `int`: the upper half of RAX is anything.
        return vcpu.read_register(Register::Rax).map(|rax| rax as u32) == Some(HVM_PREEMPTED);
    }
    frame.rip() == pending.rip.wrapping_sub(PV_CALL_BYTES) && frame.rax() == pending.number
}

/// The registers that a preempted call will be issued again with.
#[cold]
fn reissue(pending: &Pending, frame: &Frame<'_>) -> Reissue {
    let args = frame.args(width_of(pending.mode));
    Reissue { rip: pending.rip, rsp: frame.rsp(), number: frame.rax(), args }
}

fn record_exit(
    recorder: &mut Recorder,
    ram: &Ram,
    pending: &Pending,
    rax: u64,
    reissue: Option<Reissue>,
    vmcb: Option<Vmcb>,
    vcpu: &mut impl Vcpu,
) {
    if !pending.recorded {
        return;
    }
    let time_ticks = vcpu.now_ticks();
    let result = result_of(pending.mode, rax);
    let exit = Exit { sequence: pending.sequence, time_ticks, result, reissue };
    let registers = pending.captures.as_ref().filter(|_| exit.reissue.is_none());
    let capture = registers.and_then(|registers| {
        address_space(ram, pending.mode, vmcb, vcpu).map(|space| Capture { registers, space })
    });
    recorder.exit(ram, &exit, pending.mode, capture.as_ref());
}

const fn result_of(mode: CallerMode, rax: u64) -> i64 {
    if mode.is_64_bit() { rax as i64 } else { rax as i32 as i64 }
}

fn address_space(
    ram: &Ram,
    mode: CallerMode,
    vmcb: Option<Vmcb>,
    vcpu: &mut impl Vcpu,
) -> Option<AddressSpace> {
    if mode.is_pv() {
        let cr3 = vcpu.read_register(Register::Cr3)?;
        return Some(AddressSpace::Pv { cr3 });
    }
    vmcb?.paging(ram).ok().map(AddressSpace::Hvm)
}
