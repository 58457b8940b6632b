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

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use hypovisor_abi::capture::{Plan, Registers};
use hypovisor_abi::xen::XEN;
use hypovisor_event::control::{FrameLayout, HookKind, SystemChange, SystemRegister};
use hypovisor_event::record::{Caller, CallerMode, Exit, Reissue};
use hypovisor_event::ring::Producer;
use hypovisor_machine::{Gpa, Gva, VirtualMemory};
use hypovisor_mapping::Ram;

use crate::borrow::Job;
use crate::control::Control;
use crate::entries::Entries;
use crate::frame::{Frame, PV_CALL_BYTES, SavedFrame, width_of};
use crate::guest::AddressSpace;
use crate::machine::{Register, Vcpu};
use crate::recorder::{Capture, Recorder};
use crate::verdicts::{Issue, Known};
use crate::vmcb::Vmcb;
use crate::who::{Who, WhoCache};

use self::borrowing::BorrowedCall;
use self::frame_place::FramePlace;
use self::judging::Entering;

mod borrowing;
mod frame_place;
mod inner;
mod judging;

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
    domain: u16,
    rip: u64,
    mode: CallerMode,
    number: u64,
    /// What to capture memory by when it returns; `None` if there is nothing to capture.
    captures: Option<Registers>,
    fate: Fate,
    /// Set if the call is not the guest's own.
    job: Option<Box<Job>>,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// L1 runs it.
    Run,
    /// Its handler does not see it, and the guest gets this errno (positive).
    Denied(u16),
    /// Its handler does not see it, and the guest issues it again.
    IssuedAgain,
}

/// The sensor of one L1 vCPU. Used on that vCPU's thread only.
pub struct VcpuSensor {
    index: u64,
    control: &'static Control,
    plan: &'static Plan,
    recorder: Recorder,
    /// The rules in force.
    known: Known,
    /// Whether the first inner call of this multicall continues one of a preempted multicall.
    inner_continues: bool,
    /// Registers of a guest whose call does not run.
    kept: SavedFrame,
    /// Where the guest's frame stands: the same for every call on this physical CPU.
    frame_place: Option<FramePlace>,
    /// Where the frame of the call under way is in RAM.
    call_frame: usize,
    /// The address where it was found last, since L1 has begun.
    last_frame: Option<u64>,
    /// Where the handler of PV calls returned to when its frame was last found where it should be.
    usual_return: Option<u64>,
    /// When a call that no guest made was told last.
    foreign_told: Option<Instant>,
    /// When another stack was told last.
    stack_told: Option<Instant>,
    who: WhoCache,
    vmcb: Option<Vmcb>,
    outer: Option<Pending>,
    inner: Option<Pending>,
    /// From `struct vcpu` to the state of a multicall, in bytes.
    multicall_state: Option<u64>,
    next_sequence: u64,
    hits: u64,
    entries: Arc<Entries>,
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
            known: Known::default(),
            inner_continues: false,
            kept: SavedFrame::default(),
            frame_place: None,
            call_frame: 0,
            last_frame: None,
            usual_return: None,
            foreign_told: None,
            stack_told: None,
            who: WhoCache::default(),
            vmcb: None,
            outer: None,
            inner: None,
            multicall_state: None,
            next_sequence: 0,
            hits: 0,
            entries: Arc::default(),
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
        self.control.tell_waiting();
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
            HookKind::Vmrun => self.enter_guest(ram, vcpu),
        }
    }

    /// L1 is about to run a guest: it should be the one of the vCPU that it says it runs.
    fn enter_guest(&mut self, ram: &Ram, vcpu: &mut impl Vcpu) {
        self.vmcb = vcpu.read_register(Register::Rax).map(|rax| Vmcb(Gpa(rax)));
        let (Some(Vmcb(found)), Some(own)) = (self.vmcb, self.own_vmcb(ram, vcpu)) else { return };
        if found != own {
            let rip = Gva(vcpu.read_register(Register::Rip).unwrap_or(0));
            let register = SystemRegister::Vmcb;
            self.control.l1_does(SystemChange { register, before: own.0, now: found.0, rip });
        }
    }

    /// The VMCB of the vCPU that L1 says this physical CPU runs.
    fn own_vmcb(&self, ram: &Ram, vcpu: &mut impl Vcpu) -> Option<Gpa> {
        let layout = self.control.layout().filter(|layout| layout.vcpu_vmcb != 0)?;
        let current = ram.mapping().word(self.frame_place?.at.checked_add(layout.current_vcpu as usize)?)?;
        let memory = VirtualMemory::new(ram, vcpu.read_register(Register::Cr3)?);
        memory.read_u64(Gva(u64::from_le(current)).offset(layout.vcpu_vmcb.into())).ok().map(Gpa)
    }

    /// Which vCPU it is.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// Calls of guests that have passed a hook of this vCPU; to be read by anybody.
    #[must_use]
    pub fn entries(&self) -> Arc<Entries> {
        Arc::clone(&self.entries)
    }

    /// The VMCB of the last VMRUN on this physical CPU, or of its last HVM hypercall.
    #[must_use]
    pub const fn vmcb(&self) -> Option<Vmcb> {
        self.vmcb
    }

    /// Has the frame looked for again at the next call: L1 may keep its stacks elsewhere now.
    pub const fn forget_frame(&mut self) {
        self.frame_place = None;
        self.usual_return = None;
    }

    /// L1 begins anew: calls under way do not return, and nothing stands where it stood.
    pub fn l1_was_reset(&mut self) {
        self.outer = None;
        self.inner = None;
        self.who = WhoCache::default();
        self.vmcb = None;
        self.forget_frame();
        self.last_frame = None;
    }

    fn enter(&mut self, ram: &Ram, kind: HookKind, vcpu: &mut impl Vcpu) {
        let time_ticks = vcpu.now_ticks();
        if !self.is_guests_call(ram, kind, vcpu) {
            return;
        }
        let Some((frame, layout)) = self.frame(ram, vcpu) else { return };
        let current = frame.word(layout.current_vcpu as usize);
        let who = self.identify(ram, layout, current, || vcpu.read_register(Register::Cr3));
        if who == Who::UNKNOWN {
            // L1 may have been reset.
            self.forget_frame();
        } else if kind == HookKind::HvmEntry && layout.vcpu_vmcb != 0 {
            self.vmcb = self.who.vmcb(ram, layout);
        }
        self.entries.count(kind, &frame);
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
        let pending = Pending {
            sequence: 0,
            recorded: false,
            vcpu: current,
            domain: caller.domain,
            rip: caller.rip,
            mode,
            number: registers.number,
            captures: None,
            fate: Fate::Run,
            job,
        };
        self.inner_continues = false;
        let call = Entering { time_ticks, caller, registers, parent: None, continuation: None };
        self.inner = None;
        self.outer = Some(self.judge_and_record(ram, &call, pending, vcpu));
        if let Some(pending) = &self.outer
            && pending.fate != Fate::Run
        {
            self.keep_from_running(&frame);
        }
    }

    fn leave(&mut self, ram: &Ram, kind: HookKind, vcpu: &mut impl Vcpu) {
        // A machine that was saved amid a call leaves it without having been seen to enter it.
        let Some(pending) = self.outer.take() else { return };
        let Some((frame, layout)) = self.frame_of_call(ram) else { return };
        if frame.word(layout.current_vcpu as usize) != pending.vcpu {
            return;
        }
        self.settle(&frame, pending.fate, pending.mode);
        let rax = frame.rax();
        let by_l1 = pending.fate == Fate::Run && preempted(kind, &pending, &frame, vcpu);
        let preempted = by_l1 || pending.fate == Fate::IssuedAgain;
        let reissue = preempted.then(|| reissue(&pending, &frame));
        record_exit(&mut self.recorder, ram, &pending, rax, reissue, self.vmcb, vcpu);
        if by_l1 && self.judges() {
            self.control.verdicts().note_preempted(issue(&pending, &frame));
        }
        if let Some(job) = pending.job {
            let call = BorrowedCall { sequence: pending.sequence, mode: pending.mode, rip: pending.rip };
            self.give_back(ram, &frame, job, &call, preempted, vcpu.now_ticks());
        }
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

    fn take_sequence(&mut self) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.recorder.show_sequence(self.next_sequence);
        sequence
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

/// What a preempted call will be known by when it is issued again.
fn issue(pending: &Pending, frame: &Frame<'_>) -> Issue {
    let args = frame.args(width_of(pending.mode));
    Issue { domain: pending.domain, rip: pending.rip, rsp: frame.rsp(), number: frame.rax(), args }
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
