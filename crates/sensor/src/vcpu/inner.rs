//! The inner calls of a multicall.

use std::sync::atomic::Ordering;

use hypovisor_abi::Width;
use hypovisor_abi::capture::Registers;
use hypovisor_event::record::{Caller, CallerMode};
use hypovisor_mapping::Ram;

use super::judging::{Entering, NO_HANDLER, Parent};
use super::{Fate, Pending, VCPU_STRUCT_LIMIT, VcpuSensor, record_exit};
use crate::frame::width_of;
use crate::machine::{Register, Vcpu};
use crate::who::Who;

impl VcpuSensor {
    #[inline(never)]
    pub(super) fn enter_inner(&mut self, ram: &Ram, vcpu: &mut impl Vcpu) {
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
        let pending = Pending {
            sequence: 0,
            recorded: false,
            vcpu: outer_vcpu,
            domain: who.domain,
            rip,
            mode,
            number,
            captures: None,
            fate: Fate::Run,
            job: None,
        };
        let parent = Some(Parent { sequence: parent, injected });
        let continuation = Some(std::mem::take(&mut self.inner_continues));
        let call = Entering { time_ticks, caller, registers, parent, continuation };
        let pending = self.judge_and_record(ram, &call, pending, vcpu);
        if pending.fate != Fate::Run {
            self.write_inner(ram, width, NO_HANDLER, 0);
        }
        self.inner = Some(pending);
    }

    #[inline(never)]
    pub(super) fn leave_inner(&mut self, ram: &Ram, vcpu: &mut impl Vcpu) {
        let Some(pending) = self.inner.take() else { return };
        if let Fate::Denied(errno) = pending.fate {
            self.write_inner(ram, width_of(pending.mode), pending.number, -i64::from(errno) as u64);
        }
        let Some(call) = self.read_inner(ram, pending.vcpu, width_of(pending.mode), vcpu) else { return };
        record_exit(&mut self.recorder, ram, &pending, call[1], None, self.vmcb, vcpu);
    }

    /// The `struct multicall_entry` that is being run, as 64-bit words: op, result, arguments.
    fn read_inner(
        &mut self,
        ram: &Ram,
        outer_vcpu: u64,
        width: Width,
        vcpu: &mut impl Vcpu,
    ) -> Option<[u64; 8]> {
        if self.multicall_state.is_none() {
            let state = vcpu.read_register(Register::Rdi)?.wrapping_sub(outer_vcpu);
            self.multicall_state = Some(state).filter(|state| *state < VCPU_STRUCT_LIMIT);
        }
        let at = self.inner_at()?;
        let word = |index: usize| ram.mapping().word(at + 8 * index).unwrap_or(0);
        Some(match width {
            Width::Bits64 => std::array::from_fn(word),
            Width::Bits32 => std::array::from_fn(|index| word(index / 2) >> (32 * (index % 2)) & 0xffff_ffff),
        })
    }

    /// Writes call number and result of the `struct multicall_entry` that is being run.
    #[cold]
    fn write_inner(&self, ram: &Ram, width: Width, op: u64, result: u64) {
        let Some(at) = self.inner_at() else { return };
        let word = |index: usize| ram.mapping().counter(at + 8 * index);
        match width {
            Width::Bits64 => {
                for (index, value) in [op, result].into_iter().enumerate() {
                    if let Some(word) = word(index) {
                        word.store(value, Ordering::Relaxed);
                    }
                }
            }
            Width::Bits32 => {
                if let Some(word) = word(0) {
                    word.store(op & 0xffff_ffff | result << 32, Ordering::Relaxed);
                }
            }
        }
    }

    /// Where the entry stands in the RAM mapping, once [`VcpuSensor::read_inner`] has found it.
    fn inner_at(&self) -> Option<usize> {
        let call = self.control.layout()?.multicall_call as usize;
        Some(self.who.vcpu_offset() + self.multicall_state? as usize + call)
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
}
