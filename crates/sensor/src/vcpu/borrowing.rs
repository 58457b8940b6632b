//! Borrowing a vCPU for an injection, and giving it back.

use hypovisor_event::injection::{Injected, InjectionStatus};
use hypovisor_event::record::{Caller, CallerMode};
use hypovisor_mapping::Ram;

use super::{IRET, VcpuSensor, address_space, result_of};
use crate::borrow::{Job, Wanted};
use crate::frame::{Frame, width_of};
use crate::machine::Vcpu;

/// What is left to know of an injected call when it returns.
pub(super) struct BorrowedCall {
    pub(super) sequence: u64,
    pub(super) mode: CallerMode,
    pub(super) rip: u64,
}

impl VcpuSensor {
    /// Borrows the vCPU for an injection, if one waits for it.
    #[cold]
    pub(super) fn borrow(
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
    pub(super) fn give_back(
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
}
