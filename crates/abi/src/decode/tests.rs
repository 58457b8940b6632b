//! Which bytes a field is shown from, and what is said of those that are not there.

use super::{Call, identify};
use crate::capture::{Phase, Registers, Segments};
use crate::fuzzing::Rendered;
use crate::made_up::{
    ABI, BUFFERS, Guest, IN_OUT, LISTS, MEMORY, PIECES, REGISTER, TAIL, UNKNOWN, WIDTHS, narrow, registers,
};

/// `struct both` with this in every word.
fn both(fill: u32) -> Vec<u32> {
    let mut words = vec![fill; 14];
    words[4] = u32::from_le_bytes(*b"ab\0d");
    words
}

/// What a guest that does not clean up leaves in the fields that Xen is to fill.
const STALE: u32 = 0xdead;

#[test]
fn before_the_call_returns_nothing_is_shown_as_xens() {
    let guest = Guest::default().words(0x1000, &both(STALE));
    let text = guest.enters(IN_OUT, &[0x1000]).full;
    assert_eq!(
        text,
        "in_out(arg={request=57005, changed=57005, pairs=[{given=57005}, {given=57005}], \
         all_inout={x=57005, y=0}, ask=57005, x=57005, y=0})"
    );
}

#[test]
fn a_missing_exit_capture_is_as_if_the_call_had_not_returned() {
    let guest = Guest::default().words(0x1000, &both(STALE));
    let gone = guest.returns(IN_OUT, &[0x1000], &Guest::default());
    assert_eq!(gone, guest.enters(IN_OUT, &[0x1000]));
}

#[test]
fn each_field_is_shown_from_where_its_value_comes() {
    let before = Guest::default().words(0x1000, &both(1));
    let mut words = both(7);
    words[10] = 8; // all_inout
    let after = Guest::default().words(0x1000, &words);
    let text = before.returns(IN_OUT, &[0x1000], &after).full;
    assert_eq!(
        text,
        "in_out(arg={request=1, reply=7, changed=1->7, name=\"ab\", pairs=[{given=1, got=7}, \
         {given=1, got=7}], all_out={x=7, y=0}, all_inout={x=1->8, y=0}, seven=7, ask=1, answer=7, x=1, y=0})"
    );
}

#[test]
fn a_tag_of_xens_picks_by_what_xen_wrote() {
    let before = Guest::default().words(0x1000, &both(8));
    let after = Guest::default().words(0x1000, &both(7));
    let json = before.returns(IN_OUT, &[0x1000], &after).json;
    assert!(json.contains("\"seven\":7") && !json.contains("eight"), "{json}");
    assert!(!before.enters(IN_OUT, &[0x1000]).json.contains("eight"));
}

#[test]
fn without_the_entry_capture_the_guests_fields_come_from_the_other() {
    let registers = registers(IN_OUT, &[0x1000]);
    let exit = Guest::default().words(0x1000, &both(7)).capture(&registers, Phase::Exit);
    let call = Call { registers, entry: Segments(&[]), exit: Segments(&exit) };
    let text = Rendered::of(&ABI, &call).full;
    assert!(text.starts_with("in_out(arg={request=7, reply=7, changed=7, "), "{text}");
}

#[test]
fn nested_handles_and_unions_are_read() {
    let mut lists = Vec::new();
    for (kind, u) in [(1_u32, (-5_i64) as u64), (2, 0x4000), (3, 0x4000)] {
        lists.extend(if kind == 2 { 0_u64 } else { 0x2000 }.to_le_bytes());
        lists.extend(1_u32.to_le_bytes());
        lists.extend(kind.to_le_bytes());
        lists.extend(u.to_le_bytes());
    }
    let mut item = 2_u64.to_le_bytes().to_vec();
    item.extend(0x3000_u64.to_le_bytes());
    let guest = Guest::default()
        .with(0x1000, lists)
        .with(0x2000, item)
        .with(0x3000, [0xab, 0xcd])
        .with(0x4000, b"\"q\"\0");
    assert_eq!(
        guest.enters(LISTS, &[0x1000, 3]).full,
        "lists(lists=[{items=[{id=2, data=abcd}], nr=1, kind=KIND_number, number=-5}, \
         {items=NULL, nr=1, kind=KIND_text, text=\"\\\"q\\\"\"}, \
         {items=[{id=2, data=abcd}], nr=1, kind=3}], nr=3)"
    );
}

#[test]
fn a_struct_that_was_cut_says_so() {
    let guest = Guest::default().with(0x1000, vec![0; 14]);
    let rendered = guest.enters(LISTS, &[0x1000, 1]);
    assert_eq!(rendered.full, "lists(lists=[…1 not captured], nr=1)");
    let guest = Guest::default().words(0x1000, &[1, 2, 3]).with(0x100c, [0; 2]);
    assert_eq!(guest.enters(IN_OUT, &[0x1000]).full, "in_out(arg={request=1, changed=3, …4 not captured})");
}

#[test]
fn memory_that_is_not_there_is_named_as_such() {
    let nothing = Guest::default();
    assert_eq!(nothing.enters(IN_OUT, &[0x1000]).full, "in_out(arg=0x1000 (unreadable))");
    assert_eq!(nothing.enters(IN_OUT, &[0]).full, "in_out(arg=NULL)");
    let registers = registers(IN_OUT, &[0x1000]);
    let call = Call { registers, entry: Segments(&[]), exit: Segments(&[]) };
    assert_eq!(Rendered::of(&ABI, &call).full, "in_out(arg=0x1000)");
}

#[test]
fn pieces_of_every_kind() {
    let guest = Guest::default()
        .with(0x1000, b"a\tb\xff\0c")
        .with(0x2000, b"x\0yz")
        .with(0x3000, [1, 2, 3, 4, 5])
        .with(0x4000, [1, 0, 0, 0, 2, 0, 0, 0, 3, 0])
        .with(0x5000, b"B\0o\0\xe4\0t\0\0\0x\0y\0z\0");
    let args = [0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 3];
    assert_eq!(
        guest.enters(PIECES, &args).full,
        "pieces(text=\"a\\tb\\xff\", chars=\"x\\x00yz\", bytes=010203, numbers=[1, 2, …1 not captured], \
         wide=\"Bo\\xc3\\xa4t\", n=3)"
    );
}

#[test]
fn a_narrow_caller_has_other_layouts() {
    // nr, padding, list (its upper half means nothing), stamp, aligned, flags
    let words = [2, 0xffff, 0x2000, 0xffff_ffff, 5, 0, 6, 0, 0x33];
    let guest = Guest::default().words(0x1000, &words).with(0x2000, [1, 0, 2, 0]);
    let text = guest.calls(narrow(WIDTHS, &[0xffff_ffff_0000_1000, 0x1_0000_00ab]), None).full;
    assert_eq!(
        text,
        "widths(wide={nr=2, list=[1, 2], stamp=5, aligned=6, flags=FLAG_a|FLAG_b|level:3}, long=0xab)"
    );
}

#[test]
fn an_unknown_number_shows_the_registers() {
    let text = Guest::default().enters(UNKNOWN, &[1, 2]).full;
    assert_eq!(text, "hypercall_9(arg1=0x1, arg2=0x2, arg3=0x0, arg4=0x0, arg5=0x0, arg6=0x0)");
    let narrow = Registers { number: u64::MAX, ..narrow(0, &[u64::MAX]) };
    assert!(Guest::default().calls(narrow, None).json.starts_with("{\"arg1\":\"0xffffffff\","));
}

#[test]
fn sub_ops_of_a_register() {
    let guest = Guest::default();
    assert_eq!(
        guest.enters(REGISTER, &[0xab01, 0x1_7ff0, 0x1ff, 2]).full,
        "register(cmd=OP_one, dom=DOMID_SELF, byte=255, ok=true)"
    );
    let unknown = guest.enters(REGISTER, &[2, 0x99]);
    assert_eq!(unknown.full, "register(cmd=2 (unknown), arg=0x99)");
    assert_eq!(unknown.json, "{\"cmd\":2,\"arg\":\"0x99\"}");
}

#[test]
fn sub_ops_in_memory() {
    let guest = Guest::default().words(0x1000, &[5, 2, 0x2000, 0]).with(0x2000, [8, 9]);
    assert_eq!(guest.enters(MEMORY, &[0x1000]).full, "memory(op={cmd=5, nr=2, numbers=[8, 9]})");
    let registers = registers(MEMORY, &[0x1000]);
    let entry = guest.capture(&registers, Phase::Entry);
    let call = Call { registers, entry: Segments(&entry), exit: Segments(&[]) };
    assert_eq!(identify(&ABI, &call).sub_op.map(|op| op.name), Some("OP_five"));
    let unknown = Guest::default().words(0x1000, &[6, 2, 0x2000, 0]);
    assert_eq!(unknown.enters(MEMORY, &[0x1000]).full, "memory(op={cmd=6, nr=2})");
}

#[test]
fn the_first_buffer_is_shown_as_what_it_holds() {
    let before = Guest::default().words(0x1000, &[0x2000, 0, 12, 0]).words(0x2000, &[3, 1, STALE]);
    let after = before.clone().words(0, &[]);
    assert_eq!(
        before.enters(BUFFERS, &[7, 1, 0x1000]).full,
        "buffers(dom=7, nr=1, bufs=[{at=0x2000, size=12}], op={op=3, pair={given=1}})"
    );
    let text = before.returns(BUFFERS, &[7, 1, 0x1000], &after).full;
    assert!(text.ends_with("op={op=3, pair={given=1, got=57005}})"), "{text}");
    let none = Guest::default().enters(BUFFERS, &[7, 0, 0x1000]);
    assert_eq!(none.full, "buffers(dom=7, nr=0, bufs=0x1000)");
}

#[test]
fn a_tail_is_shown_with_its_struct() {
    let before = Guest::default().words(0x1000, &[2, 1, STALE, 2, STALE]);
    let after = Guest::default().words(0x1000, &[2, 0, 5, 0, 6]);
    assert_eq!(
        before.returns(TAIL, &[0x1000], &after).full,
        "tail(tailed={nr=2, rest=[{given=1, got=5}, {given=2, got=6}]})"
    );
}
