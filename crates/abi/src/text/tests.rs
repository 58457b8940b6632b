//! Separators, and what a line leaves out.

use super::{Detail, Text};
use crate::capture::MAX_SEGMENT_BYTES;
use crate::decode::{Group, Missing, Sink, Value};
use crate::made_up::{Guest, LISTS, PIECES, ROWS};
use crate::types::{Int, Scalar, Show};

fn line(write: impl FnOnce(&mut Text<'_>)) -> String {
    let mut out = String::new();
    write(&mut Text::new(&mut out, Detail::Line));
    out
}

fn number(text: &mut Text<'_>, name: &'static str, value: u64) {
    let scalar = Scalar { int: Int::U32, show: Show::Dec };
    text.scalar(name, &scalar, Value { before: Some(value), after: None });
}

fn array(text: &mut Text<'_>, name: &'static str, elements: u64, missing: u64) {
    text.open(name, Group::Array);
    (0..elements).for_each(|element| number(text, "", element));
    if missing > 0 {
        text.elided(missing);
    }
    text.close(Group::Array);
}

#[test]
fn a_line_shows_sixteen_elements() {
    let guest = Guest::default().with(0x1000, vec![0; 4 * 18]);
    let rendered = guest.enters(PIECES, &[0, 0, 0, 0x1000, 0, 18]);
    let zeros = ["0"; 16].join(", ");
    let expected =
        format!("pieces(text=NULL, chars=NULL, bytes=NULL, numbers=[{zeros}, …2 more], wide=NULL, n=18)");
    assert_eq!(rendered.line, expected);
    assert!(rendered.full.contains(&["0"; 18].join(", ")));
}

#[test]
fn what_is_missing_is_not_an_element() {
    assert_eq!(line(|text| array(text, "a", 0, 3)), "a=[…3 not captured]");
    assert_eq!(line(|text| array(text, "a", 2, 3)), "a=[0, 1, …3 not captured]");
    assert!(line(|text| array(text, "a", 16, 3)).ends_with(", 15, …3 not captured]"));
    assert!(line(|text| array(text, "a", 20, 3)).ends_with(", 15, …4 more, …3 not captured]"));
}

#[test]
fn rows_are_cut_one_by_one_and_together() {
    let guest = Guest::default().with(0x1000, vec![1; 20 * 20]);
    let line = guest.enters(ROWS, &[0x1000, 20]).line;
    assert_eq!(line.matches("…4 more").count(), 17, "{line}");
    assert_eq!(line.matches('[').count(), 17);
    assert!(line.ends_with("1, …4 more], …4 more], nr=20)"), "{line}");
}

#[test]
fn structs_beyond_the_line_are_hidden_whole() {
    let text = line(|text| {
        text.open("list", Group::Array);
        for index in 0..18 {
            text.open("", Group::Struct);
            number(text, "n", index);
            array(text, "inner", 2, 1);
            text.close(Group::Struct);
        }
        text.close(Group::Array);
        number(text, "after", 1);
    });
    assert!(text.ends_with("{n=15, inner=[0, 1, …1 not captured]}, …2 more], after=1"), "{text}");
    assert!(!text.contains("n=16"));
}

#[test]
fn groups_nest_as_deep_as_they_like() {
    let text = line(|text| {
        (0..40).for_each(|_| text.open("", Group::Array));
        array(text, "", 17, 0);
        (0..40).for_each(|_| text.close(Group::Array));
    });
    assert_eq!(text.matches("…1 more").count(), 1);
    assert_eq!(text.matches('[').count(), text.matches(']').count());
}

#[test]
fn empty_groups_and_neighbours_are_separated() {
    let text = line(|text| {
        text.open("a", Group::Struct);
        text.close(Group::Struct);
        array(text, "b", 0, 0);
        text.pointer("c", 0, Missing::Null);
        text.pointer("d", 16, Missing::Unreadable);
        text.text("e", b"\n\"");
        text.bytes("f", &[], 4);
    });
    assert_eq!(text, "a={}, b=[], c=NULL, d=0x10 (unreadable), e=\"\\n\\\"\", f=…(4 bytes)");
}

#[test]
fn long_texts_and_buffers_are_cut() {
    let captured = MAX_SEGMENT_BYTES as usize;
    let wanted = captured + 1000;
    let guest = Guest::default().with(0x1000, [b'x'; 400]).with(0x2000, vec![0xee; wanted]);
    let args = [0x1000, 0, 0x2000, 0, 0, wanted as u64];
    let rendered = guest.enters(PIECES, &args);
    assert!(rendered.line.contains(&format!("text=\"{}\"…,", "x".repeat(256))));
    assert!(rendered.line.contains(&format!("bytes={}…({wanted} bytes),", "ee".repeat(32))));
    assert!(rendered.full.contains(&format!("bytes={}…({wanted} bytes),", "ee".repeat(captured))));
}

#[test]
fn a_change_has_an_arrow() {
    let scalar = Scalar { int: Int::S32, show: Show::Errno };
    let changed = Value { before: Some(0), after: Some(0xffff_ffea) };
    assert_eq!(line(|text| text.scalar("rc", &scalar, changed)), "rc=0->-EINVAL");
    let kept = Value { before: Some(3), after: Some(3) };
    assert_eq!(line(|text| text.scalar("rc", &scalar, kept)), "rc=3");
}

#[test]
fn an_empty_list_is_its_pointer() {
    assert_eq!(Guest::default().enters(LISTS, &[0x1000, 0]).line, "lists(lists=0x1000, nr=0)");
}
