//! Compares our recording with Xen's trace: the same hypercalls, in the same order, on every pCPU.
//!
//! Both are cut to what lies between two marks on a pCPU, and the two sequences have to be equal, element by element:
//! number, whether it is an entry of a multicall, which mark it is. One element too few is something that we missed.
//!
//! Where the two count alike, so that nothing has to be explained away:
//!
//! * A call that Xen interrupts and continues is issued again by the guest (PV: RIP is moved back; PVH: not moved on). Both
//!   see each issue as a call. An interrupted multicall is issued again for its remaining entries, an interrupted entry
//!   once more with them.
//! * `iret`, and calls with numbers that do not exist, are calls to both: Xen records them before it looks at the number.
//!   (Xen before 4.17 refused unknown numbers first. It is not among those tried.)
//! * Interrupts, faults and instructions that Xen emulates for PV domains are calls to neither.
//! * A pCPU runs no guest while it is in Xen, so the order of calls on it is the same wherever in Xen one looks.
//!
//! Where they differ:
//!
//! * Number: Xen's record keeps 20 bits of a PV call's number and 32 of a VMMCALL's. That is what is compared.
//! * HVM and PVH: Xen traces VMMCALL, with EAX only, so that no marks are seen from them; and only when the mask has
//!   [`MASK`](super::MASK)'s HVM bits. With [`MASK_WITHOUT_HVM`](super::MASK_WITHOUT_HVM) the caller leaves out those domains'
//!   own calls, but not the entries of their multicalls, which are traced like everybody's.
//! * Calls by 32-bit PV domains through `int $0x82` are traced like others; whether they are recorded is for the caller to
//!   know. The lab has none.
//! * Calls that Xen makes on a guest's behalf inside itself are in neither.
//! * Lost records: Xen says so, and then the window proves nothing ([`Agreement::lost_records`]).

use std::collections::BTreeMap;

use super::{NUMBER_MASK, PcpuTrace, Trace, TracedCall, Via};

/// How far ahead a common continuation is looked for after a difference, and how long it has to be.
const LOOK_AHEAD: usize = 64;
const RUN: usize = 6;

/// After so many differences on a pCPU the rest counts as different.
const DIFFERENCES_MAX: usize = 1000;

/// A call as we recorded it. For each pCPU they come in the order of their entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordedCall {
    /// The pCPU of Xen's, which is QEMU's vCPU of that number.
    pub pcpu: u32,
    /// The call's number.
    pub number: u64,
    /// Whether it is an entry of a multicall.
    pub is_inner: bool,
    /// The mark that it is, if it is one (`guests::mark_number` of its first argument).
    pub mark: Option<u16>,
}

/// A side of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Xen's trace.
    Trace,
    /// Our recording.
    Recording,
}

/// The first place where the two sequences differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The pCPU.
    pub pcpu: u32,
    /// How many calls of the window agree before it.
    pub position: usize,
    /// What Xen's trace has there; nothing if its window has ended.
    pub traced: Option<TracedCall>,
    /// What our recording has there.
    pub recorded: Option<RecordedCall>,
}

/// How far trace and recording agree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// Calls in Xen's trace between the marks, over all pCPUs.
    pub window_calls: usize,
    /// Calls that are in both, in order.
    pub matched: usize,
    /// Calls that are in the trace only: we missed them.
    pub missing: usize,
    /// Calls that are in the recording only.
    pub extra: usize,
    /// Records that Xen lost inside the window. Unless 0, it is not a valid witness.
    pub lost_records: u64,
    /// The first difference, of the lowest pCPU that has one.
    pub first_difference: Option<Difference>,
}

impl Agreement {
    /// Whether the trace is whole and the recording is exactly the same.
    pub fn is_exact(&self) -> bool {
        self.lost_records == 0 && self.missing == 0 && self.extra == 0
    }
}

/// There is nothing to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompareError {
    /// The trace names no pCPU.
    #[error("the trace is empty")]
    Empty,
    /// A pCPU has no window.
    #[error("mark {mark} is not in the {side:?} of pCPU {pcpu}")]
    NoMark {
        /// Where it was looked for.
        side: Side,
        /// The pCPU.
        pcpu: u32,
        /// The mark.
        mark: u16,
    },
}

/// Compares a trace with a recording between two marks, on every pCPU that the trace names. The window of a pCPU is from
/// the first `marks.0` to the first `marks.1` after it, and does not include them.
///
/// # Errors
///
/// When a pCPU lacks its marks on either side.
pub fn compare(
    trace: &Trace,
    recorded: impl IntoIterator<Item = RecordedCall>,
    marks: (u16, u16),
) -> Result<Agreement, CompareError> {
    if trace.pcpus.is_empty() {
        return Err(CompareError::Empty);
    }
    let mut recordings: BTreeMap<u32, Vec<RecordedCall>> = BTreeMap::new();
    for call in recorded {
        recordings.entry(call.pcpu).or_default().push(call);
    }
    let mut agreement = Agreement::default();
    for (&pcpu, traced) in &trace.pcpus {
        let recorded = recordings.get(&pcpu).map_or(&[][..], Vec::as_slice);
        let (from, to) = window(Side::Trace, pcpu, traced.calls.iter().map(TracedCall::mark), marks)?;
        let ours = window(Side::Recording, pcpu, recorded.iter().map(|call| call.mark), marks)?;
        agreement.lost_records += lost_within(traced, from, to);
        agreement.add(pcpu, &traced.calls[from..to], &recorded[ours.0..ours.1]);
    }
    Ok(agreement)
}

/// The positions of the first call behind the first mark, and of the second mark.
fn window(
    side: Side,
    pcpu: u32,
    calls: impl Iterator<Item = Option<u16>>,
    marks: (u16, u16),
) -> Result<(usize, usize), CompareError> {
    let missing = |mark| CompareError::NoMark { side, pcpu, mark };
    let mut calls = calls.enumerate();
    let begin = calls.find(|(_, mark)| *mark == Some(marks.0)).ok_or(missing(marks.0))?;
    let end = calls.find(|(_, mark)| *mark == Some(marks.1)).ok_or(missing(marks.1))?;
    Ok((begin.0 + 1, end.0))
}

fn lost_within(traced: &PcpuTrace, from: usize, to: usize) -> u64 {
    let within = traced.losses.iter().filter(|loss| (from..=to).contains(&loss.before_call));
    within.map(|loss| u64::from(loss.records)).sum()
}

/// Whether these are the same call, as far as the trace can tell.
fn agree(traced: &TracedCall, recorded: &RecordedCall) -> bool {
    let kept = match traced.via {
        Via::Vmmcall => u64::from(u32::MAX),
        Via::Pv | Via::Multicall => NUMBER_MASK,
    };
    u64::from(traced.number) == recorded.number & kept
        && (traced.via == Via::Multicall) == recorded.is_inner
        && (traced.via != Via::Pv || traced.mark() == recorded.mark)
}

impl Agreement {
    /// Adds a pCPU's window: steps through both, and after each difference goes on where they agree again.
    fn add(&mut self, pcpu: u32, traced: &[TracedCall], recorded: &[RecordedCall]) {
        self.window_calls += traced.len();
        let (mut t, mut r, mut differences) = (0, 0, 0);
        loop {
            let same = traced[t..].iter().zip(&recorded[r..]).take_while(|(a, b)| agree(a, b)).count();
            (t, r, self.matched) = (t + same, r + same, self.matched + same);
            if t == traced.len() && r == recorded.len() {
                return;
            }
            self.first_difference.get_or_insert_with(|| Difference {
                pcpu,
                position: t,
                traced: traced.get(t).copied(),
                recorded: recorded.get(r).copied(),
            });
            differences += 1;
            let skip =
                if differences < DIFFERENCES_MAX { rejoin(&traced[t..], &recorded[r..]) } else { None };
            let (missing, extra) = skip.unwrap_or((traced.len() - t, recorded.len() - r));
            (self.missing, self.extra) = (self.missing + missing, self.extra + extra);
            (t, r) = (t + missing, r + extra);
        }
    }
}

/// How many calls to skip on each side, as few as possible, for the next ones to agree again.
fn rejoin(traced: &[TracedCall], recorded: &[RecordedCall]) -> Option<(usize, usize)> {
    (1..=LOOK_AHEAD).flat_map(|sum| (0..=sum).map(move |missing| (missing, sum - missing))).find(
        |&(missing, extra)| {
            let (Some(traced), Some(recorded)) = (traced.get(missing..), recorded.get(extra..)) else {
                return false;
            };
            let near_end = traced.len() == recorded.len() && traced.len() < RUN;
            let length = if near_end { traced.len() } else { RUN };
            traced.iter().zip(recorded).take(length).filter(|(a, b)| agree(a, b)).count() == length
        },
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::{call, inner, lost, mark, part, vmmcall};
    use super::*;

    const MARKS: (u16, u16) = (3, 4);

    fn recorded(pcpu: u32, calls: &[(u64, bool, Option<u16>)]) -> Vec<RecordedCall> {
        let make = |&(number, is_inner, mark)| RecordedCall { pcpu, number, is_inner, mark };
        calls.iter().map(make).collect()
    }

    /// Both sides of calls 100, 101, ... on one pCPU, fenced, with other calls around.
    fn both(count: u32) -> (Vec<Vec<u8>>, Vec<RecordedCall>) {
        let mut theirs = vec![call(1), mark(3)];
        let mut ours = vec![(1, false, None), (29, false, Some(3))];
        theirs.extend((0..count).map(|i| call(100 + i)));
        ours.extend((0..u64::from(count)).map(|i| (100 + i, false, None)));
        theirs.extend([mark(4), call(2)]);
        ours.push((29, false, Some(4)));
        (theirs, recorded(0, &ours))
    }

    fn compared(theirs: &[Vec<u8>], ours: &[RecordedCall]) -> Agreement {
        compare(&Trace::parse(&part(0, theirs)).unwrap(), ours.iter().copied(), MARKS).unwrap()
    }

    #[test]
    fn equal_windows_agree_exactly() {
        let (mut theirs, mut ours) = both(50);
        theirs.splice(3..3, [inner(17), vmmcall(0xffff_ffff), mark(1)]);
        ours.splice(3..3, recorded(0, &[(17, true, None), (0xffff_ffff, false, None), (29, false, Some(1))]));
        let agreement = compared(&theirs, &ours);
        assert!(agreement.is_exact(), "{agreement:?}");
        assert_eq!((agreement.window_calls, agreement.matched), (53, 53));
    }

    #[test]
    fn a_missing_and_an_extra_call_are_counted_and_placed() {
        let (mut theirs, mut ours) = both(50);
        ours.remove(12);
        theirs.remove(32);
        let agreement = compared(&theirs, &ours);
        assert_eq!((agreement.missing, agreement.extra, agreement.matched), (1, 1, 48));
        let difference = agreement.first_difference.unwrap();
        assert_eq!((difference.position, difference.traced.unwrap().number), (10, 110));
    }

    #[test]
    fn the_last_call_missing_is_noticed() {
        let (theirs, mut ours) = both(5);
        ours.remove(6);
        let agreement = compared(&theirs, &ours);
        assert_eq!((agreement.missing, agreement.extra, agreement.matched), (1, 0, 4));
    }

    #[test]
    fn an_entry_of_a_multicall_is_not_a_call() {
        let (mut theirs, ours) = both(20);
        theirs[7] = inner(105);
        assert!(!compared(&theirs, &ours).is_exact());
    }

    #[test]
    fn losses_count_inside_the_window_only() {
        let (mut theirs, ours) = both(20);
        theirs.insert(0, lost(9));
        theirs.push(lost(9));
        assert!(compared(&theirs, &ours).is_exact());
        theirs.insert(8, lost(5));
        let agreement = compared(&theirs, &ours);
        assert_eq!((agreement.lost_records, agreement.is_exact()), (5, false));
    }

    #[test]
    fn a_pcpu_without_its_marks_is_an_error() {
        let (theirs, ours) = both(3);
        let trace = Trace::parse(&part(0, &theirs)).unwrap();
        let error = |ours: &[RecordedCall]| compare(&trace, ours.iter().copied(), MARKS).unwrap_err();
        assert_eq!(error(&[]), CompareError::NoMark { side: Side::Recording, pcpu: 0, mark: 3 });
        assert_eq!(error(&ours[..3]), CompareError::NoMark { side: Side::Recording, pcpu: 0, mark: 4 });
        assert_eq!(compare(&Trace::default(), [], MARKS), Err(CompareError::Empty));
    }

    #[test]
    fn nothing_in_common_ends_soon() {
        let (theirs, _) = both(5000);
        let (_, mut ours) = both(5000);
        for call in &mut ours[2..5002] {
            call.number += 7000;
        }
        let agreement = compared(&theirs, &ours);
        assert_eq!((agreement.missing, agreement.extra, agreement.matched), (5000, 5000, 0));
    }
}
