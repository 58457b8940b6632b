//! Captures calls from a made-up guest's memory and reads them as text: tables, capture and decoder together.

use std::collections::BTreeMap;

use hypovisor_abi::Width;
use hypovisor_abi::capture::{Phase, Piece, Plan, Reader, Registers, Segments, UNREADABLE, capture};
use hypovisor_abi::decode::Call;
use hypovisor_abi::text::{Detail, write_call};
use hypovisor_abi::xen::XEN;

/// Guest memory, a byte at a time; what is not there cannot be read.
#[derive(Default)]
struct Guest {
    memory: BTreeMap<u64, u8>,
    width: Option<Width>,
}

impl Guest {
    fn narrow() -> Self {
        Self { width: Some(Width::Bits32), ..Self::default() }
    }

    fn put(&mut self, gva: u64, bytes: &[u8]) -> &mut Self {
        self.memory.extend((gva..).zip(bytes.iter().copied()));
        self
    }

    fn words(&mut self, gva: u64, words: &[u64]) -> &mut Self {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.put(gva, &bytes)
    }

    fn halves(&mut self, gva: u64, words: &[u32]) -> &mut Self {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.put(gva, &bytes)
    }

    fn capture(&self, registers: &Registers, phase: Phase) -> Vec<u8> {
        let mut copy = Copy { guest: self, pieces: Vec::new() };
        let wanted = Plan::new(&XEN).wanted(registers);
        if if phase == Phase::Entry { wanted.entry } else { wanted.exit } {
            capture(&XEN, registers, phase, &mut copy);
        }
        copy.wire()
    }

    /// The call as text; `after` is what the guest's memory is when it has returned.
    fn text(&self, number: u64, args: &[u64], after: Option<&Guest>) -> String {
        let mut all = [0xdead_beef; 6];
        all[..args.len()].copy_from_slice(args);
        let registers = Registers { number, args: all, width: self.width.unwrap_or(Width::Bits64) };
        let entry = self.capture(&registers, Phase::Entry);
        let exit = after.map(|guest| guest.capture(&registers, Phase::Exit)).unwrap_or_default();
        let call = Call { registers, entry: Segments(&entry), exit: Segments(&exit) };
        let mut text = String::new();
        write_call(&mut text, &XEN, &call, Detail::Line);
        text
    }
}

struct Copy<'a> {
    guest: &'a Guest,
    /// Address, bytes asked for, bytes read.
    pieces: Vec<(u64, u64, Vec<u8>)>,
}

impl Copy<'_> {
    fn wire(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (gva, requested, bytes) in &self.pieces {
            let cut = if bytes.len() < *requested as usize { UNREADABLE } else { 0 };
            out.extend(gva.to_le_bytes());
            out.extend((*requested as u32).to_le_bytes());
            out.extend((bytes.len() as u32 | cut).to_le_bytes());
            out.extend(bytes);
            out.resize(out.len().next_multiple_of(8), 0);
        }
        out
    }
}

impl Reader for Copy<'_> {
    fn capture(&mut self, gva: u64, len: u64) -> Option<Piece> {
        let bytes = (gva..gva + len).map_while(|at| self.guest.memory.get(&at).copied()).collect();
        self.pieces.push((gva, len, bytes));
        Some(Piece(self.pieces.len() - 1))
    }

    fn capture_text(&mut self, gva: u64, max: u32) -> Option<Piece> {
        self.capture(gva, u64::from(max))
    }

    fn integer(&self, piece: Piece, offset: u64, bytes: u32) -> Option<u64> {
        let (at, bytes) = (offset as usize, bytes as usize);
        let mut word = [0; 8];
        word.get_mut(..bytes)?.copy_from_slice(self.pieces[piece.0].2.get(at..at + bytes)?);
        Some(u64::from_le_bytes(word))
    }
}

#[test]
fn low_bits_of_a_page_table_address_are_the_command() {
    let mut guest = Guest::default();
    guest.words(0x1000, &[0x5_4000, 0x67, 0x5_4008 | 2, 0x0]);
    let mut after = Guest::default();
    after.halves(0x2000, &[2]);
    let text = guest.text(1, &[0x1000, 2 | 1 << 31, 0x2000, 0x7ff0], Some(&after));
    assert_eq!(
        text,
        "mmu_update(ureqs=[{ptr=MMU_NORMAL_PT_UPDATE|0x54000, val=0x67}, \
         {ptr=MMU_PT_UPDATE_PRESERVE_AD|0x54008, val=0x0}], count=MMU_UPDATE_PREEMPTED|2, pdone=2, \
         foreigndom=DOMID_SELF)"
    );
}

#[test]
fn the_command_picks_the_members_of_mmuext() {
    let mut guest = Guest::default();
    guest.words(0x1000, &[3, 0x1234, 0, 9, 0xffff_8000, 0x3000, 6, 0, 0]).words(0x3000, &[0b101]);
    assert_eq!(
        guest.text(26, &[0x1000, 3, 0, 0x7ff0], None),
        "mmuext_op(uops=[{cmd=MMUEXT_PIN_L4_TABLE, mfn=0x1234}, \
         {cmd=MMUEXT_INVLPG_MULTI, linear_addr=0xffff8000, vcpumask=0x5}, {cmd=MMUEXT_TLB_FLUSH_LOCAL}], \
         count=3, pdone=NULL, foreigndom=DOMID_SELF)"
    );
}

#[test]
fn wide_arguments_take_two_registers_of_a_narrow_caller() {
    let wide = Guest::default().text(14, &[0xc000_1000, 0x1_2345_6067, 2], None);
    let narrow = Guest::narrow().text(14, &[0xc000_1000, 0x2345_6067, 1, 2], None);
    assert_eq!(wide, "update_va_mapping(va=0xc0001000, val=0x123456067, flags=UVMF_INVLPG)");
    assert_eq!(narrow, wide);
}

#[test]
fn callbacks_have_selectors_only_for_narrow_callers() {
    assert_eq!(
        Guest::default().text(4, &[0x10, 0x20, 0x30], None),
        "set_callbacks(event_address=0x10, failsafe_address=0x20, syscall_address=0x30)"
    );
    assert_eq!(
        Guest::narrow().text(4, &[0x61, 0x10, 0x61, 0x20], None),
        "set_callbacks(event_selector=0x61, event_address=0x10, failsafe_selector=0x61, \
         failsafe_address=0x20)"
    );
}

#[test]
fn a_callback_is_an_address_or_a_segment_and_an_address() {
    let mut wide = Guest::default();
    wide.words(0x1000, &[5 | 1 << 16, 0xffff_8100]);
    assert_eq!(
        wide.text(30, &[0, 0x1000], None),
        "callback_op(cmd=CALLBACKOP_register, arg={type=CALLBACKTYPE_sysenter, flags=CALLBACKF_mask_events, \
         address=0xffff8100})"
    );
    let mut narrow = Guest::narrow();
    narrow.halves(0x1000, &[0, 0x61, 0xc010_0000]);
    assert_eq!(
        narrow.text(30, &[0, 0x1000], None),
        "callback_op(cmd=CALLBACKOP_register, arg={type=CALLBACKTYPE_event, flags=0, \
         address={cs=0x61, eip=0xc0100000}})"
    );
}

#[test]
fn a_trap_table_ends_at_the_first_entry_without_address() {
    let mut guest = Guest::default();
    guest.words(0x1000, &[0xe033_070e, 0x8100, 0xe033_0003, 0x8200, 0, 0, 0x99, 0x99]);
    assert_eq!(
        guest.text(0, &[0x1000], None),
        "set_trap_table(traps=[{vector=14, flags=disable_events|dpl:3, cs=0xe033, address=0x8100}, \
         {vector=3, flags=0, cs=0xe033, address=0x8200}])"
    );
}

#[test]
fn a_descriptor_table_has_a_frame_for_every_512_entries() {
    let mut guest = Guest::default();
    guest.words(0x1000, &[0xa, 0xb, 0xc]);
    assert_eq!(guest.text(2, &[0x1000, 513], None), "set_gdt(frame_list=[0xa, 0xb], entries=513)");
}

#[test]
fn a_bit_of_the_flags_says_whether_a_copy_is_of_a_grant() {
    let mut guest = Guest::default();
    // source: grant 8 of domain 1; dest: frame 0xabc of DOMID_SELF at 0x100; 64 bytes.
    guest.words(0x1000, &[8, 1, 0xabc, 0x7ff0 | 0x100 << 16, 64 | 1 << 16]);
    let mut after = Guest::default();
    after.words(0x1000, &[8, 1, 0xabc, 0x7ff0 | 0x100 << 16, 64 | 1 << 16 | 0xfffd << 32]);
    assert_eq!(
        guest.text(20, &[5, 0x1000, 1], Some(&after)),
        "grant_table_op(cmd=GNTTABOP_copy, uop=[{source={ref=8, domid=1, offset=0}, \
         dest={gmfn=0xabc, domid=DOMID_SELF, offset=256}, len=64, flags=GNTCOPY_source_gref, \
         status=GNTST_bad_gntref}], count=1)"
    );
}

#[test]
fn an_inner_union_can_follow_the_outer_structs_tag() {
    let mut guest = Guest::default();
    guest.words(0x1000, &[1 | 7 << 16, 33, 0, 0, 0, 0]);
    let mut after = Guest::default();
    after.words(0x1000, &[1 | 7 << 16, 33, 0x77, 0, 0, 0]);
    assert_eq!(
        guest.text(12, &[22, 0x1000], Some(&after)),
        "memory_op(cmd=XENMEM_sharing_op, arg={op=XENMEM_sharing_op_nominate_gref, domain=7, \
         nominate={grant_ref=33, handle=0x77}})"
    );
}

#[test]
fn a_status_of_xens_picks_what_stands_beside_it() {
    let mut guest = Guest::default();
    // Rubbish where Xen is going to write.
    guest.halves(0x1000, &[1, 5, 4, 99, 99, 99]);
    let mut after = Guest::default();
    after.halves(0x1000, &[1, 5, 2, 0, 3, 17]);
    assert_eq!(
        guest.text(32, &[5, 0x1000], Some(&after)),
        "event_channel_op(cmd=EVTCHNOP_status, arg={dom=1, port=5, status=EVTCHNSTAT_interdomain, vcpu=0, \
         interdomain={dom=3, port=17}})"
    );
}

#[test]
fn a_flexible_array_is_read_behind_its_struct() {
    let mut guest = Guest::default();
    guest.halves(0x1000, &[4]).put(0x1004, &[0; 4]);
    let mut after = Guest::default();
    after.halves(0x1000, &[4]).put(0x1004, &[0xde, 0xad, 0xbe, 0xef]);
    assert_eq!(
        guest.text(17, &[10, 0x1000], Some(&after)),
        "xen_version(cmd=XENVER_build_id, arg={len=4, buf=deadbeef})"
    );
    assert_eq!(guest.text(17, &[10, 0], Some(&after)), "xen_version(cmd=XENVER_build_id, arg=NULL)");
}

#[test]
fn features_are_named_in_the_first_map_only() {
    let mut guest = Guest::default();
    guest.halves(0x1000, &[0, 0xffff_ffff]);
    let mut after = Guest::default();
    after.halves(0x1000, &[0, 0x804]);
    assert_eq!(
        guest.text(17, &[6, 0x1000], Some(&after)),
        "xen_version(cmd=XENVER_get_features, arg={submap_idx=0, \
         submap=XENFEAT_auto_translated_physmap|XENFEAT_dom0})"
    );
}

#[test]
fn memory_map_entries_are_packed() {
    let mut guest = Guest::default();
    guest.words(0x1000, &[32, 0x2000]);
    let mut after = Guest::default();
    after.words(0x1000, &[2, 0x2000]).halves(0x2000, &[0, 0, 0xa_0000, 0, 1, 0x10_0000, 0, 0x1000, 0, 2]);
    assert_eq!(
        guest.text(12, &[9, 0x1000], Some(&after)),
        "memory_op(cmd=XENMEM_memory_map, arg={nr_entries=32->2, \
         buffer=[{addr=0x0, size=0xa0000, type=ram}, {addr=0x100000, size=0x1000, type=reserved}]})"
    );
}

#[test]
fn console_text_is_text() {
    let mut guest = Guest::default();
    guest.put(0x1000, b"hello\nworld");
    assert_eq!(
        guest.text(18, &[0, 6, 0x1000], None),
        "console_io(cmd=CONSOLEIO_write, count=6, buffer=\"hello\\n\")"
    );
}

#[test]
fn a_compat_call_has_its_sub_op_in_memory() {
    let mut guest = Guest::default();
    guest.halves(0x1000, &[4, 12, 0, 0, 0, 0, 0]);
    assert_eq!(
        guest.text(16, &[0x1000], None),
        "event_channel_op_compat(uop={cmd=EVTCHNOP_send, send={port=12}})"
    );
}
