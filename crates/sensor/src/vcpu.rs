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

use std::time::Duration;

use hypovisor_abi::capture::{self, Phase, Registers};
use hypovisor_abi::xen::XEN;
use hypovisor_event::control::{FrameLayout, HookKind};
use hypovisor_event::record::{self, Caller, CallerMode, Entry, Exit, Gap, Kind, Reissue};
use hypovisor_event::ring::Producer;
use hypovisor_machine::{Gpa, Gva, VirtualMemory};
use hypovisor_mapping::Ram;

use crate::control::Control;
use crate::frame::{Frame, width_of};
use crate::guest::{AddressSpace, SegmentWriter};
use crate::machine::{Register, Vcpu};
use crate::vmcb::Vmcb;
use crate::who::{Who, WhoCache};

/// Bytes a record with captured memory may take.
const CAPTURE_RECORD_BYTES: usize = 24 * 1024;
/// How long a full ring holds its vCPU back before events are dropped.
const HOLD_BACK: Duration = Duration::from_millis(200);
/// Pause between two looks at a full ring.
const HOLD_BACK_STEP: Duration = Duration::from_micros(50);
/// Length of SYSCALL and of INT n: what Xen takes off a PV guest's RIP to have a preempted call issued again.
const PV_CALL_BYTES: u64 = 2;
/// `HVM_HCALL_preempted` (Xen arch/x86/include/asm/hvm/support.h): `hvm_hypercall` left the guest's RIP alone.
const HVM_PREEMPTED: u32 = 1;
/// Bytes of `struct multicall_entry` (Xen public/xen.h): op, result and six arguments.
const MULTICALL_ENTRY_BYTES: usize = 64;
/// A multicall's state lies inside `struct vcpu`; further off than this it does not.
const VCPU_STRUCT_LIMIT: u64 = 1 << 16;

/// The cost of one hook hit in so many is measured (a power of two).
const COST_SAMPLE: u64 = 64;

/// A call that has entered and not returned.
#[derive(Clone, Copy)]
struct Pending {
    sequence: u64,
    /// Whether the entry got into the ring; an exit without one is not written.
    recorded: bool,
    /// The current `struct vcpu` at entry.
    vcpu: u64,
    rip: u64,
    mode: CallerMode,
    registers: Registers,
}

/// Events that did not get into the ring.
#[derive(Clone, Copy, Default)]
struct Losses {
    calls: u64,
    results: u64,
    /// Of these, what the ring's gap records have told so far.
    told_calls: u64,
    told_results: u64,
    first_sequence: u64,
    waits: u64,
    /// Position of a consumer that did not move for [`HOLD_BACK`]: no use waiting for it again.
    stalled_at: Option<u64>,
}

/// The sensor of one L1 vCPU. Used on that vCPU's thread only.
pub struct VcpuSensor {
    index: u64,
    control: &'static Control,
    producer: Producer,
    /// Where the guest's frame stands in the RAM mapping: the same for every call on this physical CPU.
    frame_at: Option<usize>,
    who: WhoCache,
    vmcb: Option<Vmcb>,
    outer: Option<Pending>,
    inner: Option<Pending>,
    /// From `struct vcpu` to the state of a multicall, in bytes.
    multicall_state: Option<u64>,
    next_sequence: u64,
    losses: Losses,
    hits: u64,
}

impl VcpuSensor {
    /// A sensor for L1's vCPU `index`, writing to `producer`.
    #[must_use]
    pub fn new(index: u64, control: &'static Control, producer: Producer) -> Self {
        Self {
            index,
            control,
            producer,
            frame_at: None,
            who: WhoCache::default(),
            vmcb: None,
            outer: None,
            inner: None,
            multicall_state: None,
            next_sequence: 0,
            losses: Losses::default(),
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
        self.producer.count_cost(vcpu.now_ticks().saturating_sub(start));
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
        let Some((frame, layout)) = self.read_frame(ram, vcpu) else { return };
        let current = frame.word(layout.current_vcpu as usize);
        let who = self.identify(ram, &layout, current, || vcpu.read_register(Register::Cr3));
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
        let registers = Registers { number: frame.rax(), args: frame.args(width), width };
        let sequence = self.take_sequence();
        let (number, args) = (registers.number, registers.args);
        let entry = Entry { sequence, time_ticks, caller, parent: None, number, args };
        let recorded = self.record_entry(ram, Kind::Entry, &entry, &registers, vcpu);
        self.inner = None;
        self.outer = Some(Pending { sequence, recorded, vcpu: current, rip: caller.rip, mode, registers });
    }

    fn leave(&mut self, ram: &Ram, kind: HookKind, vcpu: &mut impl Vcpu) {
        let Some(pending) = self.outer.take() else { return };
        let Some((frame, layout)) = self.read_frame(ram, vcpu) else { return };
        if frame.word(layout.current_vcpu as usize) != pending.vcpu {
            return;
        }
        let preempted = match kind {
            // The function returns an `int`: the upper half of RAX is anything.
            HookKind::HvmExit => {
                vcpu.read_register(Register::Rax).map(|rax| rax as u32) == Some(HVM_PREEMPTED)
            }
            _ => {
                frame.rip() == pending.rip.wrapping_sub(PV_CALL_BYTES)
                    && frame.rax() == pending.registers.number
            }
        };
        let reissue = preempted.then(|| Reissue {
            rip: pending.rip,
            rsp: frame.rsp(),
            number: frame.rax(),
            args: frame.args(pending.registers.width),
        });
        self.record_exit(ram, &pending, frame.rax(), reissue, vcpu);
    }

    fn enter_inner(&mut self, ram: &Ram, vcpu: &mut impl Vcpu) {
        let time_ticks = vcpu.now_ticks();
        let Some(outer) = self.outer else { return };
        let Some(call) = self.read_inner(ram, &outer, vcpu) else { return };
        let (who, mode, cpl) = self.inner_caller(ram, &outer);
        let registers = Registers {
            number: call[0],
            args: call[2..].try_into().unwrap_or([0; 6]),
            width: outer.registers.width,
        };
        let caller = Caller { domain: who.domain, vcpu: who.vcpu, mode, cpl, cs: 0, rip: outer.rip, rsp: 0 };
        let sequence = self.take_sequence();
        let parent = Some(outer.sequence);
        let entry =
            Entry { sequence, time_ticks, caller, parent, number: registers.number, args: registers.args };
        let recorded = self.record_entry(ram, Kind::InnerEntry, &entry, &registers, vcpu);
        self.inner = Some(Pending { sequence, recorded, registers, ..outer });
    }

    fn leave_inner(&mut self, ram: &Ram, vcpu: &mut impl Vcpu) {
        let (Some(pending), Some(outer)) = (self.inner.take(), self.outer) else { return };
        let Some(call) = self.read_inner(ram, &outer, vcpu) else { return };
        self.record_exit(ram, &pending, call[1], None, vcpu);
    }

    /// The frame of the guest that calls, and what is known of L1. Asks the engine the first time.
    fn read_frame(&mut self, ram: &Ram, vcpu: &mut impl Vcpu) -> Option<(Frame, FrameLayout)> {
        let at = match self.frame_at {
            Some(at) => at,
            None => {
                let at = self.locate_frame(ram, vcpu)?;
                *self.frame_at.insert(at)
            }
        };
        let mut frame = Frame::zeroed();
        ram.mapping().copy_out(at, &mut frame.0).then_some(())?;
        Some((frame, *self.control.layout()?))
    }

    #[cold]
    fn locate_frame(&self, ram: &Ram, vcpu: &mut impl Vcpu) -> Option<usize> {
        let frame = Gva(vcpu.read_register(Register::Rdi)?);
        let cr3 = vcpu.read_register(Register::Cr3)?;
        if self.control.layout().is_none() {
            self.control.ask_layout(self.index, cr3, frame)?;
        }
        let gpa = VirtualMemory::new(ram, cr3).translate(frame).ok()?;
        ram.offset_of(gpa, Frame::COPIED_BYTES).ok()
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

    fn mode(&self, ram: &Ram, kind: HookKind, frame: &Frame) -> (CallerMode, u8) {
        if kind == HookKind::PvEntry {
            return (frame.pv_mode(), (frame.cs() & 3) as u8);
        }
        let mode = self.vmcb.and_then(|vmcb| vmcb.mode(ram).ok());
        mode.unwrap_or((CallerMode::Hvm64, 0))
    }

    /// The `struct multicall_entry` that is being run, as 64-bit words: op, result, arguments.
    fn read_inner(&mut self, ram: &Ram, outer: &Pending, vcpu: &mut impl Vcpu) -> Option<[u64; 8]> {
        let state = match self.multicall_state {
            Some(state) => state,
            None => {
                let state = vcpu.read_register(Register::Rdi)?.wrapping_sub(outer.vcpu);
                *self.multicall_state.insert(Some(state).filter(|state| *state < VCPU_STRUCT_LIMIT)?)
            }
        };
        let call = self.control.layout()?.multicall_call as usize;
        let mut bytes = [0; MULTICALL_ENTRY_BYTES];
        let at = self.who.vcpu_offset() + state as usize + call;
        ram.mapping().copy_out(at, &mut bytes).then_some(())?;
        let word = |index: usize, size: usize| {
            let from = bytes.get(index * size..(index + 1) * size).unwrap_or(&[]);
            from.iter().rev().fold(0, |word, byte| (word << 8) | u64::from(*byte))
        };
        let size = outer.registers.width.word_bytes() as usize;
        Some(std::array::from_fn(|index| word(index, size)))
    }

    fn inner_caller(&mut self, ram: &Ram, outer: &Pending) -> (Who, CallerMode, u8) {
        let layout = self.control.layout().copied();
        let who = layout.map_or(Who::UNKNOWN, |layout| self.identify(ram, &layout, outer.vcpu, || None));
        let cpl = if outer.mode.is_pv() { 3 } else { 0 };
        let cpl = self
            .vmcb
            .filter(|_| !outer.mode.is_pv())
            .and_then(|vmcb| vmcb.mode(ram).ok())
            .map_or(cpl, |(_, cpl)| cpl);
        (who, outer.mode, cpl)
    }

    fn take_sequence(&mut self) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.producer.show_sequence(self.next_sequence);
        sequence
    }

    fn address_space(&self, ram: &Ram, mode: CallerMode, vcpu: &mut impl Vcpu) -> Option<AddressSpace> {
        if mode.is_pv() {
            let cr3 = vcpu.read_register(Register::Cr3)?;
            return Some(AddressSpace::Pv { cr3 });
        }
        self.vmcb?.paging(ram).ok().map(AddressSpace::Hvm)
    }

    fn record_entry(
        &mut self,
        ram: &Ram,
        kind: Kind,
        entry: &Entry,
        registers: &Registers,
        vcpu: &mut impl Vcpu,
    ) -> bool {
        let caller = &entry.caller;
        let space = capture::wants(&XEN, registers, Phase::Entry)
            .then(|| self.address_space(ram, caller.mode, vcpu))
            .flatten();
        let wanted = if space.is_some() { CAPTURE_RECORD_BYTES } else { record::ENTRY_BYTES };
        if !self.make_room(wanted, entry.time_ticks) {
            self.losses.lose_call(entry.sequence);
            self.producer.show_losses(self.losses.calls, self.losses.results);
            return false;
        }
        let Some(buf) = self.producer.reserve(wanted) else { return false };
        let Some((fixed, rest)) = buf.split_first_chunk_mut() else { return false };
        record::write_entry(fixed, entry);
        let (used, cut) = space.map_or((0, false), |space| {
            let mut writer = SegmentWriter::new(ram, space, rest);
            capture::capture(&XEN, registers, Phase::Entry, &mut writer);
            writer.finish()
        });
        let len = record::ENTRY_BYTES + used;
        let flags = if cut { record::flag::CUT } else { 0 };
        record::finish(buf, record::head(len, kind, flags, caller.mode, caller.cpl));
        self.producer.publish(len);
        true
    }

    fn record_exit(
        &mut self,
        ram: &Ram,
        pending: &Pending,
        rax: u64,
        reissue: Option<Reissue>,
        vcpu: &mut impl Vcpu,
    ) {
        let time_ticks = vcpu.now_ticks();
        if !pending.recorded {
            return;
        }
        let result = if pending.mode.is_64_bit() { rax as i64 } else { i64::from(rax as i32) };
        let exit = Exit { sequence: pending.sequence, time_ticks, result, reissue };
        let space = (reissue.is_none() && capture::wants(&XEN, &pending.registers, Phase::Exit))
            .then(|| self.address_space(ram, pending.mode, vcpu))
            .flatten();
        let wanted = if space.is_some() { CAPTURE_RECORD_BYTES } else { record::PREEMPTED_BYTES };
        if !self.make_room(wanted, time_ticks) {
            self.losses.lose_result(pending.sequence);
            self.producer.show_losses(self.losses.calls, self.losses.results);
            return;
        }
        let Some(buf) = self.producer.reserve(wanted) else { return };
        let Some(fixed) = buf.first_chunk_mut() else { return };
        let start = record::write_exit(fixed, &exit);
        let (used, cut) = space.map_or((0, false), |space| {
            let mut writer = SegmentWriter::new(ram, space, buf.get_mut(start..).unwrap_or(&mut []));
            capture::capture(&XEN, &pending.registers, Phase::Exit, &mut writer);
            writer.finish()
        });
        let preempted = if reissue.is_some() { record::flag::PREEMPTED } else { 0 };
        let flags = preempted | if cut { record::flag::CUT } else { 0 };
        let len = start + used;
        record::finish(buf, record::head(len, Kind::Exit, flags, pending.mode, 0));
        self.producer.publish(len);
    }

    /// Sees to it that `len` bytes are free, holding the vCPU back for a bounded time; tells of earlier losses first.
    fn make_room(&mut self, len: usize, time_ticks: u64) -> bool {
        let with_gap = if self.losses.untold() { len + record::GAP_BYTES } else { len };
        if self.producer.reserve(with_gap).is_none() && !self.hold_back(with_gap) {
            return false;
        }
        if self.losses.untold() {
            self.tell_losses(time_ticks);
        }
        true
    }

    #[cold]
    fn hold_back(&mut self, len: usize) -> bool {
        let tail = self.producer.tail();
        if !self.control.engine_attached() || self.losses.stalled_at == Some(tail) {
            return false;
        }
        self.losses.waits += 1;
        self.producer.show_waits(self.losses.waits);
        for _ in 0..HOLD_BACK.as_nanos() / HOLD_BACK_STEP.as_nanos() {
            std::thread::sleep(HOLD_BACK_STEP);
            if self.producer.reserve(len).is_some() {
                self.losses.stalled_at = None;
                return true;
            }
            if !self.control.engine_attached() {
                return false;
            }
        }
        self.losses.stalled_at = Some(self.producer.tail());
        false
    }

    #[cold]
    fn tell_losses(&mut self, time_ticks: u64) {
        let losses = &mut self.losses;
        let gap = Gap {
            first_sequence: losses.first_sequence,
            time_ticks,
            calls: losses.calls - losses.told_calls,
            results: losses.results - losses.told_results,
        };
        let buf = self.producer.reserve(record::GAP_BYTES).and_then(|buf| buf.first_chunk_mut());
        if let Some(buf) = buf {
            record::write_gap(buf, &gap);
            losses.told_calls = losses.calls;
            losses.told_results = losses.results;
            self.producer.publish(record::GAP_BYTES);
        }
    }
}

impl Losses {
    const fn untold(&self) -> bool {
        self.calls != self.told_calls || self.results != self.told_results
    }

    fn note_first(&mut self, sequence: u64) {
        if !self.untold() {
            self.first_sequence = sequence;
        }
    }

    fn lose_call(&mut self, sequence: u64) {
        self.note_first(sequence);
        self.calls += 1;
    }

    fn lose_result(&mut self, sequence: u64) {
        self.note_first(sequence);
        self.results += 1;
    }
}
