//! Tests of the trace reader, with traces put together by hand and with damaged ones.

use std::io::Write;

use super::*;

/// A record's words.
fn record(event: u32, tsc: Option<u64>, data: &[u32]) -> Vec<u8> {
    let mut words = vec![event | (data.len() as u32) << 28 | u32::from(tsc.is_some()) << 31];
    words.extend(tsc.iter().flat_map(|tsc| [*tsc as u32, (tsc >> 32) as u32]));
    words.extend(data);
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// One pCPU's part of a trace.
pub(super) fn part(pcpu: u32, records: &[Vec<u8>]) -> Vec<u8> {
    let records = records.concat();
    [record(CPU_CHANGE, None, &[pcpu, records.len() as u32]), records].concat()
}

/// A PV call without arguments, or a mark.
pub(super) fn call(number: u32) -> Vec<u8> {
    record(PV_HYPERCALL_V2, Some(7), &[number])
}

pub(super) fn mark(number: u32) -> Vec<u8> {
    record(PV_HYPERCALL_V2, Some(7), &[29 | 1 << 20, 0x4859_0000 | number])
}

pub(super) fn inner(number: u32) -> Vec<u8> {
    record(PV_HYPERCALL_SUBCALL, Some(7), &[number])
}

pub(super) fn vmmcall(number: u32) -> Vec<u8> {
    record(HVM_VMMCALL, None, &[number])
}

pub(super) fn lost(records: u32) -> Vec<u8> {
    record(LOST_RECORDS, Some(7), &[records, 0, 0, 0])
}

fn sample() -> Vec<u8> {
    let first = [
        record(0x0002_1101, Some(1), &[0x0003_0001]),
        record(PV_HYPERCALL_V2, Some(2), &[20 | 1 << 20 | 1 << 24, 6, 1]),
        record(PV_HYPERCALL_V2, Some(3), &[13 | 1 << 22, 2]),
        inner(17),
        vmmcall(34),
        record(0x0002_1011, Some(4), &[0x0009_0000]),
        lost(12),
        call(3),
    ];
    [part(1, &first), part(0, &[mark(5)]), part(1, &[mark(6)])].concat()
}

#[test]
fn calls_are_read_with_arguments_and_owners() {
    let trace = Trace::parse(&sample()).unwrap();
    let calls = &trace.pcpus[&1].calls;
    let vcpu = Some(TracedVcpu { domain: 3, vcpu: 1 });
    assert_eq!(calls.len(), 6);
    assert_eq!((calls[0].number, calls[0].arguments[0], calls[0].arguments[2]), (20, Some(6), Some(1)));
    assert_eq!((calls[1].number, calls[1].arguments[1], calls[1].vcpu), (13, Some(2), vcpu));
    assert_eq!((calls[2].via, calls[3].via, calls[3].tsc), (Via::Multicall, Via::Vmmcall, None));
    assert_eq!((calls[3].vcpu, calls[4].vcpu), (vcpu, None));
    assert_eq!(trace.pcpus[&1].losses, [Loss { before_call: 4, records: 12 }]);
    assert_eq!(trace.lost_records(), 12);
    assert_eq!((trace.pcpus[&0].calls[0].mark(), calls[5].mark()), (Some(5), Some(6)));
}

#[test]
fn a_compressed_trace_is_unpacked() {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(&sample()).unwrap();
    let packed = packer.finish().unwrap();
    assert_eq!(Trace::parse(&packed).unwrap(), Trace::parse(&sample()).unwrap());
    assert!(matches!(Trace::parse(&packed[..packed.len() - 9]), Err(TraceError::Unpack(_))));
}

#[test]
fn an_absurd_number_is_no_error() {
    let records =
        [record(PV_HYPERCALL_V2, None, &[0xffff_ffff, 1]), record(PV_HYPERCALL_V2, None, &[0xaaa0_0011])];
    let trace = Trace::parse(&part(0, &records)).unwrap();
    assert_eq!(trace.pcpus[&0].calls[1].number, 0x11);
}

#[test]
fn what_is_not_a_trace_is_refused() {
    let sample = sample();
    assert!(matches!(Trace::parse(&call(1)), Err(TraceError::NoPcpu { at: 0 })));
    assert!(matches!(Trace::parse(&part(0, &[vec![]])[..8]), Err(TraceError::Truncated { at: 0 })));
    assert!(matches!(Trace::parse(&sample[..sample.len() - 4]), Err(TraceError::Truncated { .. })));
    let empty = part(0, &[record(HVM_VMMCALL, None, &[])]);
    assert!(matches!(
        Trace::parse(&empty),
        Err(TraceError::TooShort { at: 12, event: HVM_VMMCALL, words: 0 })
    ));
    let mut torn = part(0, &[call(1), call(2)]);
    torn[8] -= 4;
    assert!(matches!(Trace::parse(&torn), Err(TraceError::Torn { .. })));
}

/// Every cut, and every byte replaced by a few others: an error or a trace, never a panic.
#[test]
fn damaged_traces_are_survived() {
    let sample = sample();
    for cut in 0..sample.len() {
        let _ = Trace::parse(&sample[..cut]);
        for byte in [0, 0x7f, 0x80, 0xff, sample[cut].wrapping_add(4)] {
            let mut damaged = sample.clone();
            damaged[cut] = byte;
            let _ = Trace::parse(&damaged);
        }
    }
}

/// Noise from a small generator with a fixed seed.
#[test]
fn noise_is_survived() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for length in 0..2000 {
        let mut noise = part(0, &[]);
        noise[8..12].copy_from_slice(&(length as u32 & 0xfff).to_le_bytes());
        noise.extend((0..length).map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        }));
        let _ = Trace::parse(&noise);
    }
}
