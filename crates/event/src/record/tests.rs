//! Records there and back, and bytes that are none.

use super::*;
use crate::injection::InjectionStatus;
use crate::verdict::Verdict;
use proptest::prelude::*;

fn arbitrary_entry() -> impl Strategy<Value = Entry> {
    let caller = (any::<[u16; 3]>(), 0u8..4, 0u8..4, any::<[u64; 2]>());
    let words = (any::<[u64; 3]>(), proptest::option::of(0..u64::MAX), any::<[u64; 6]>());
    let intervention =
        (any::<bool>(), 0u8..4, proptest::option::of(0..u16::MAX)).prop_map(|(injected, bits, rule)| {
            Intervention { injected, verdict: Verdict::from_bits(bits), rule }
        });
    (caller, words, intervention).prop_map(|(caller, words, intervention)| {
        let ([domain, vcpu, cs], mode, cpl, [rip, rsp]) = caller;
        let ([sequence, time_ticks, number], parent, args) = words;
        let mode = CallerMode::from_bits(mode);
        let caller = Caller { domain, vcpu, mode, cpl, cs, rip, rsp };
        Entry { sequence, time_ticks, caller, parent, number, args, intervention }
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(entry in arbitrary_entry(), segments in 0usize..64, cut: bool) {
        let mut buf = vec![0xaa; ENTRY_BYTES + segments * 8];
        write_entry(buf.first_chunk_mut().unwrap(), &entry);
        let flags = intervention_flags(&entry.intervention) | if cut { flag::CUT } else { 0 };
        let len = buf.len();
        finish(&mut buf, head(len, Kind::Entry, flags, entry.caller.mode, entry.caller.cpl));
        let record = Records::new(&buf).next().unwrap().unwrap();
        prop_assert_eq!(record, Record::Entry { entry, segments: &buf[ENTRY_BYTES..], cut });
    }

    #[test]
    fn exits_are_read_back(sequence: u64, time_ticks: u64, result: i64, again: Option<[u64; 9]>) {
        let reissue = again.map(|[rip, rsp, number, a, b, c, d, e, f]| Reissue { rip, rsp, number, args: [a, b, c, d, e, f] });
        let exit = Exit { sequence, time_ticks, result, reissue };
        let mut buf = [0; PREEMPTED_BYTES];
        let len = write_exit(&mut buf, &exit);
        let flags = if reissue.is_some() { flag::PREEMPTED } else { 0 };
        finish(&mut buf, head(len, Kind::Exit, flags, CallerMode::Hvm64, 0));
        let record = Records::new(&buf[..len]).next().unwrap().unwrap();
        prop_assert_eq!(record, Record::Exit { exit, segments: &[], cut: false });
    }

    #[test]
    fn the_end_of_an_injection_is_read_back(words: [u64; 4], result: i64, status in 1u64..5,
        memory in proptest::collection::vec(any::<u8>(), 0..100)) {
        let [id, time_ticks, sequence, duration_ticks] = words;
        let status = InjectionStatus::from_word(status).unwrap();
        let injected = Injected { id, time_ticks, status, result, sequence, duration_ticks };
        let mut buf = [0xaa; 256];
        let len = write_injected(&mut buf, &injected, &memory).unwrap();
        let record = Records::new(&buf[..len]).next().unwrap().unwrap();
        prop_assert_eq!(record, Record::Injected { injected, memory: &memory });
    }

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
        let mut records = Records::new(&bytes);
        let read = records.by_ref().count();
        prop_assert!(read <= bytes.len() / 32 + 1);
        prop_assert!(records.offset() <= bytes.len());
    }
}
