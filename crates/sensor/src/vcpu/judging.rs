//! Deciding whether a call may run, before L1 runs it.
//!
//! A call that may not is given a number that no hypercall has: L1 answers -ENOSYS without any handler seeing the call.
//! At the exit hook the guest gets the rule's errno instead, or, if it is to issue the call again, its registers back.

use std::time::Duration;

use hypovisor_abi::capture::{Registers, Segments};
use hypovisor_abi::decode;
use hypovisor_event::record::{Caller, CallerMode, Entry, Kind};
use hypovisor_event::verdict::{Intervention, Verdict};
use hypovisor_mapping::Ram;
use hypovisor_verdict::{Action, Facts, GuestKind, Moment, RuleIndex};

use super::{Fate, IRET, Pending, VcpuSensor, address_space};
use crate::frame::Frame;
use crate::machine::Vcpu;
use crate::recorder::{Capture, Judge};
use crate::verdicts::{InForce, Issue, Waiting};

/// A number that no hypercall has, nor ever will: Xen's tables end below 64, and from 2^31 on a number asks for another
/// ABI (Viridian).
pub(super) const NO_HANDLER: u64 = 0x7fff_ff00;
/// What a guest gets whose call could not wait for L1 to be stopped.
const EPERM: u16 = 1;
/// Domain id of the control domain.
const DOM0: u16 = 0;
/// Between two tries of a call that waits for L1 to be stopped.
const PAUSE_STEP: Duration = Duration::from_millis(1);

/// A call that has just entered.
pub(super) struct Entering {
    pub(super) time_ticks: u64,
    pub(super) caller: Caller,
    pub(super) registers: Registers,
    /// The multicall that it is an inner call of.
    pub(super) parent: Option<Parent>,
    /// Whether it continues a preempted call, if that is known already.
    pub(super) continuation: Option<bool>,
}

/// The multicall of an inner call.
pub(super) struct Parent {
    pub(super) sequence: u64,
    pub(super) injected: bool,
}

/// What the rules say of one call.
struct Judgement<'a> {
    rules: &'a InForce,
    call: &'a Entering,
    pcpu: u32,
    kind: GuestKind,
    continuation: bool,
    decided: Option<(RuleIndex, Action)>,
}

impl Judge for Judgement<'_> {
    fn judge(&mut self, segments: &[u8], cut: bool) -> Intervention {
        let mode = self.call.caller.mode;
        let call =
            decode::Call { registers: self.call.registers, entry: Segments(segments), exit: Segments(&[]) };
        let facts = Facts {
            call: &call,
            caller: self.call.caller,
            pcpu: self.pcpu,
            // PVH and HVM look the same from here: the engine has told which it is.
            kind: if mode.is_pv() { GuestKind::Pv } else { self.kind },
            privileged: self.call.caller.domain == DOM0,
            inner: self.call.parent.is_some(),
            continuation: self.continuation,
            cut,
            end: None,
        };
        let set = &self.rules.set;
        let mut found = None;
        let judged = set.judge(&facts, Moment::Entry, &mut |rule| {
            let action = set.action(rule);
            if action.blocks() && found.is_none() {
                found = Some((rule, action));
            }
        });
        if let Some(rule) = judged.over_budget {
            set.switch_off(rule);
        }
        self.decided = found;
        self.intervention()
    }
}

impl Judgement<'_> {
    fn intervention(&self) -> Intervention {
        let verdict = self.decided.map(|(_, action)| match action {
            _ if !self.rules.enforce => Verdict::WouldDeny,
            Action::Pause => Verdict::Paused,
            Action::Deny { .. } | Action::Alert => Verdict::Denied,
        });
        Intervention { injected: false, verdict, rule: self.decided.map(|(rule, _)| rule.0) }
    }
}

impl VcpuSensor {
    /// Whether there are any rules to judge by.
    #[inline]
    pub(super) fn judges(&mut self) -> bool {
        self.control.verdicts().rules(&mut self.known).is_some()
    }

    /// Records a call that has just entered, and decides what becomes of it.
    #[inline]
    pub(super) fn judge_and_record(
        &mut self,
        ram: &Ram,
        call: &Entering,
        mut pending: Pending,
        vcpu: &mut impl Vcpu,
    ) -> Pending {
        let settled = if self.control.verdicts().is_pausing() { self.wait_for_pause(call) } else { None };
        pending.fate = settled.unwrap_or(Fate::Run);
        if pending.fate == Fate::IssuedAgain {
            return pending;
        }
        pending.sequence = self.take_sequence();
        let mut entry = Entry {
            sequence: pending.sequence,
            time_ticks: call.time_ticks,
            caller: call.caller,
            parent: call.parent.as_ref().map(|parent| parent.sequence),
            number: call.registers.number,
            args: call.registers.args,
            intervention: Intervention::default(),
        };
        entry.intervention.injected =
            pending.job.is_some() || call.parent.as_ref().is_some_and(|parent| parent.injected);
        let wanted = self.plan.wanted(&call.registers);
        let mode = call.caller.mode;
        let space = wanted.entry.then(|| address_space(ram, mode, self.vmcb, vcpu)).flatten();
        let capture = space.map(|space| Capture { registers: &call.registers, space });
        let kind = if call.parent.is_some() { Kind::InnerEntry } else { Kind::Entry };
        let number = call.registers.number;
        let rules = self.control.verdicts().rules(&mut self.known);
        match rules.filter(|rules| rules.set.concerns(&call.registers) && number != IRET && settled.is_none())
        {
            None => pending.recorded = self.recorder.entry(ram, kind, &mut entry, capture.as_ref(), None),
            Some(rules) => {
                let continuation =
                    call.continuation.unwrap_or_else(|| self.control.verdicts().continues(&issue_of(call)));
                self.inner_continues = continuation;
                let pcpu = self.index as u32;
                let guest = self.control.verdicts().kind(call.caller.domain);
                let mut judgement = Judgement { rules, call, pcpu, kind: guest, continuation, decided: None };
                let judge: &mut dyn Judge = &mut judgement;
                pending.recorded = self.recorder.entry(ram, kind, &mut entry, capture.as_ref(), Some(judge));
                let decided = judgement.decided.filter(|_| rules.enforce);
                pending.fate = decided.map_or(Fate::Run, |(_, action)| self.fate_of(action, call, &pending));
            }
        }
        pending.captures = (wanted.exit && pending.fate == Fate::Run).then_some(call.registers);
        pending
    }

    /// An inner call and an injected one cannot be issued again: while L1 is being stopped they are refused.
    #[cold]
    fn fate_of(&self, action: Action, call: &Entering, pending: &Pending) -> Fate {
        match action {
            Action::Alert => Fate::Run,
            Action::Deny { errno } => Fate::Denied(errno),
            Action::Pause if call.parent.is_none() && pending.job.is_none() => {
                self.control.verdicts().begin_pause(issue_of(call));
                Fate::IssuedAgain
            }
            Action::Pause => Fate::Denied(EPERM),
        }
    }

    /// What becomes of a call while L1 is being stopped for it; `None` if that is not so.
    #[cold]
    fn wait_for_pause(&self, call: &Entering) -> Option<Fate> {
        match self.control.verdicts().waiting(&issue_of(call)) {
            Waiting::No => None,
            Waiting::Pass => Some(Fate::Run),
            Waiting::Refuse => Some(Fate::Denied(EPERM)),
            Waiting::Again => {
                std::thread::sleep(PAUSE_STEP);
                Some(Fate::IssuedAgain)
            }
        }
    }

    /// Sees to it that no handler sees the call.
    #[cold]
    pub(super) fn keep_from_running(&mut self, frame: &Frame<'_>) {
        self.kept = frame.save();
        frame.set_rax(NO_HANDLER);
    }

    /// At the exit of a call that was kept from running: what the guest is to find.
    #[inline]
    pub(super) fn settle(&self, frame: &Frame<'_>, fate: Fate, mode: CallerMode) {
        match fate {
            Fate::Run => {}
            Fate::Denied(errno) => frame.set_rax(-i64::from(errno) as u64),
            Fate::IssuedAgain => {
                frame.restore(&self.kept);
                frame.issue_again(mode);
            }
        }
    }
}

fn issue_of(call: &Entering) -> Issue {
    let Caller { domain, rip, rsp, .. } = call.caller;
    Issue { domain, rip, rsp, number: call.registers.number, args: call.registers.args }
}
