//! The layout from DWARF: offsets of a few members of a few structures.
//!
//! Xen is C, so a structure is described again in every unit that includes its header. Only the direct children
//! of each unit are looked at (DWARF's sibling references make that cheap), and the search ends with the first
//! unit that completes the list: about a tenth of a second on 13 MB of debug information.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;

use gimli::{
    AttributeValue, DW_AT_data_member_location, DW_AT_declaration, DW_AT_name, DW_AT_type, DW_TAG_const_type,
    DW_TAG_member, DW_TAG_structure_type, DW_TAG_typedef, DW_TAG_union_type, DW_TAG_volatile_type,
    DebuggingInformationEntry, EndianSlice, LittleEndian, Unit, UnitOffset,
};

use crate::{DomainLayout, FrameLayout, Layout, LayoutSource, VcpuLayout};

/// How deep structures, anonymous unions and typedefs may be nested on the way to one member.
const MAX_DEPTH: u32 = 16;

/// Bounds the work on a hostile file: units looked at (a Xen has about 300), and members looked at in each.
const MAX_UNITS: usize = 4096;
const MAX_MEMBERS: u32 = 1 << 16;

const CPU_INFO: &str = "cpu_info";
const CPU_USER_REGS: &str = "cpu_user_regs";
const VCPU: &str = "vcpu";
const DOMAIN: &str = "domain";
const MC_STATE: &str = "mc_state";
const STRUCTURES: &[Structure] = &[
    (CPU_INFO, &["guest_cpu_user_regs", "processor_id", "current_vcpu"]),
    (CPU_USER_REGS, FRAME),
    (VCPU, &["vcpu_id", "processor", "domain", "arch.hvm.svm.vmcb_pa"]),
    (DOMAIN, &["domain_id", "vcpu", "options", "arch.emulation_flags", "next_in_list", "handle"]),
    (MC_STATE, &["call"]),
];
const FRAME: &[&str] = &[
    "r15",
    "r14",
    "r13",
    "r12",
    "rbp",
    "rbx",
    "r11",
    "r10",
    "r9",
    "r8",
    "rax",
    "rcx",
    "rdx",
    "rsi",
    "rdi",
    "error_code",
    "entry_vector",
    "rip",
    "cs",
    "rflags",
    "rsp",
    "ss",
];

/// Why DWARF gives no layout.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DwarfError {
    /// The sections contradict themselves.
    #[error("broken DWARF: {0}")]
    Broken(#[from] gimli::Error),
    /// A structure that every Xen has is not described.
    #[error("DWARF does not describe struct {0}")]
    NoStructure(&'static str),
    /// A member that every Xen has is not described.
    #[error("DWARF does not describe {member} of struct {structure}")]
    NoMember {
        /// The structure.
        structure: &'static str,
        /// The path of the member.
        member: &'static str,
    },
}

type Slice<'data> = EndianSlice<'data, LittleEndian>;
type Entry<'data> = DebuggingInformationEntry<Slice<'data>>;

/// Reads the layout; `section` hands out DWARF sections by name.
pub(crate) fn layout<'data>(
    section: impl Fn(&str) -> Option<Cow<'data, [u8]>>,
) -> Result<Layout, DwarfError> {
    assemble(&members(section, STRUCTURES)?)
}

/// Offsets in bytes of members that are wanted, and under the empty name the structure's size; what is not described is
/// absent.
pub(crate) fn offsets<'data>(
    section: impl Fn(&str) -> Option<Cow<'data, [u8]>>,
    wanted: &'static [Structure],
) -> Result<HashMap<(&'static str, &'static str), u32>, DwarfError> {
    let found = members(section, wanted)?;
    let all = found.into_iter().flat_map(|(structure, members)| {
        let size = std::iter::once(("", members.size));
        members.offsets.into_iter().chain(size).map(move |(member, offset)| ((structure, member), offset))
    });
    Ok(all.collect())
}

fn members<'data>(
    section: impl Fn(&str) -> Option<Cow<'data, [u8]>>,
    wanted: &'static [Structure],
) -> Result<HashMap<&'static str, Members>, DwarfError> {
    let sections =
        gimli::DwarfSections::load(|id| Ok::<_, gimli::Error>(section(id.name()).unwrap_or_default()))?;
    let dwarf = sections.borrow(|bytes| EndianSlice::new(bytes, LittleEndian));
    let mut members: HashMap<&'static str, Members> = HashMap::new();
    let mut headers = dwarf.units();
    for _ in 0..MAX_UNITS {
        let Some(header) = headers.next()? else { break };
        let unit = Reader { dwarf: &dwarf, unit: dwarf.unit(header)?, members_left: Cell::new(MAX_MEMBERS) };
        for ((name, paths), offset) in unit.structures(wanted)? {
            if !members.contains_key(name) {
                members.insert(name, unit.wanted_members(paths, offset)?);
            }
        }
        if members.len() == wanted.len() {
            break;
        }
    }
    Ok(members)
}

/// Offsets (and sizes) of one structure's members by path, and its own size.
struct Members {
    offsets: HashMap<&'static str, u32>,
    size: u32,
}

/// A structure's name and the paths of the members that are read of it; parts are separated by dots, anonymous members are
/// passed through.
pub(crate) type Structure = (&'static str, &'static [&'static str]);

struct Reader<'unit, 'data> {
    dwarf: &'unit gimli::Dwarf<Slice<'data>>,
    unit: Unit<Slice<'data>>,
    members_left: Cell<u32>,
}

impl<'data> Reader<'_, 'data> {
    /// The wanted structures that this unit defines.
    fn structures(&self, wanted: &'static [Structure]) -> Result<Vec<(Structure, UnitOffset)>, DwarfError> {
        let mut found = Vec::new();
        let mut cursor = self.unit.entries();
        if !cursor.next_entry()? || !cursor.next_entry()? {
            return Ok(found);
        }
        let mut entry = cursor.current();
        while let Some(child) = entry {
            let is_definition = child.tag() == DW_TAG_structure_type && !child.has_attr(DW_AT_declaration);
            if is_definition
                && let Some(name) = self.name(child)
                && let Some(wanted) = wanted.iter().find(|wanted| wanted.0.as_bytes() == name)
            {
                found.push((*wanted, child.offset()));
            }
            entry = cursor.next_sibling()?;
        }
        Ok(found)
    }

    fn wanted_members(&self, paths: &[&'static str], at: UnitOffset) -> Result<Members, DwarfError> {
        let mut offsets = HashMap::new();
        for path in paths {
            let parts: Vec<&str> = path.split('.').collect();
            if let Some(offset) = self.member(at, &parts, MAX_DEPTH)? {
                offsets.insert(*path, offset);
            }
        }
        let size =
            self.unit.entry(at)?.attr_value(gimli::DW_AT_byte_size).and_then(|size| size.udata_value());
        Ok(Members { offsets, size: size.and_then(|size| u32::try_from(size).ok()).unwrap_or(0) })
    }

    /// The offset of a member path in the structure or union at `at`.
    fn member(&self, at: UnitOffset, path: &[&str], depth: u32) -> Result<Option<u32>, DwarfError> {
        let (Some((first, rest)), Some(depth)) = (path.split_first(), depth.checked_sub(1)) else {
            return Ok(None);
        };
        let mut cursor = self.unit.entries_at_offset(at)?;
        if !cursor.next_entry()? || !cursor.current().is_some_and(|entry| entry.has_children()) {
            return Ok(None);
        }
        cursor.next_entry()?;
        let mut entry = cursor.current();
        while let Some(child) = entry {
            if child.tag() == DW_TAG_member {
                let Some(left) = self.members_left.get().checked_sub(1) else { return Ok(None) };
                self.members_left.set(left);
                let name = self.name(child);
                let deeper = match name {
                    None => path,
                    Some(name) if name == first.as_bytes() => rest,
                    Some(_) => {
                        entry = cursor.next_sibling()?;
                        continue;
                    }
                };
                if let Some(within) = self.follow(child, deeper, depth)? {
                    return Ok(location(child).checked_add(within));
                }
            }
            entry = cursor.next_sibling()?;
        }
        Ok(None)
    }

    /// The offset of the rest of a path inside a member: 0 at its end.
    fn follow(&self, member: &Entry<'data>, rest: &[&str], depth: u32) -> Result<Option<u32>, DwarfError> {
        if rest.is_empty() {
            return Ok(Some(0));
        }
        match self.aggregate_type(member, depth)? {
            Some(inner) => self.member(inner, rest, depth),
            None => Ok(None),
        }
    }

    /// The structure or union that a member is, seen through typedefs and qualifiers.
    fn aggregate_type(&self, member: &Entry<'data>, depth: u32) -> Result<Option<UnitOffset>, DwarfError> {
        let mut next = type_of(member);
        for _ in 0..depth {
            let Some(at) = next else { return Ok(None) };
            let entry = self.unit.entry(at)?;
            if [DW_TAG_structure_type, DW_TAG_union_type].contains(&entry.tag()) {
                return Ok(Some(at));
            }
            let is_transparent =
                [DW_TAG_typedef, DW_TAG_const_type, DW_TAG_volatile_type].contains(&entry.tag());
            next = type_of(&entry).filter(|_| is_transparent);
        }
        Ok(None)
    }

    fn name(&self, entry: &Entry<'data>) -> Option<&'data [u8]> {
        let value = entry.attr_value(DW_AT_name)?;
        self.dwarf.attr_string(&self.unit, value).ok().map(|name| name.slice())
    }
}

fn type_of(entry: &Entry<'_>) -> Option<UnitOffset> {
    match entry.attr_value(DW_AT_type)? {
        AttributeValue::UnitRef(offset) => Some(offset),
        _ => None,
    }
}

/// A union's members have no location: they start at 0.
fn location(member: &Entry<'_>) -> u32 {
    let offset = member.attr_value(DW_AT_data_member_location).and_then(|value| value.udata_value());
    offset.and_then(|offset| u32::try_from(offset).ok()).unwrap_or(0)
}

/// Lookups in what was read, with errors that name what is missing.
struct Found<'a> {
    structure: &'static str,
    members: &'a Members,
}

impl<'a> Found<'a> {
    fn new(all: &'a HashMap<&'static str, Members>, structure: &'static str) -> Result<Self, DwarfError> {
        let members = all.get(structure).ok_or(DwarfError::NoStructure(structure))?;
        Ok(Self { structure, members })
    }

    fn optional(&self, member: &str) -> Option<u32> {
        self.members.offsets.get(member).copied()
    }

    fn required(&self, member: &'static str) -> Result<u32, DwarfError> {
        self.optional(member).ok_or(DwarfError::NoMember { structure: self.structure, member })
    }
}

fn assemble(all: &HashMap<&'static str, Members>) -> Result<Layout, DwarfError> {
    let info = Found::new(all, CPU_INFO)?;
    let vcpu = Found::new(all, VCPU)?;
    let domain = Found::new(all, DOMAIN)?;
    let frame_start = info.required("guest_cpu_user_regs")?;
    let from_frame = |member| info.required(member).map(|offset| offset.wrapping_sub(frame_start));
    Ok(Layout {
        source: LayoutSource::Dwarf,
        frame: assemble_frame(&Found::new(all, CPU_USER_REGS)?)?,
        processor_id: from_frame("processor_id")?,
        current_vcpu: from_frame("current_vcpu")?,
        vcpu: VcpuLayout {
            vcpu_id: vcpu.required("vcpu_id")?,
            processor: vcpu.required("processor")?,
            domain: vcpu.required("domain")?,
            vmcb_pa: vcpu.optional("arch.hvm.svm.vmcb_pa"),
        },
        domain: DomainLayout {
            domain_id: domain.required("domain_id")?,
            vcpus: domain.optional("vcpu"),
            options: domain.optional("options"),
            emulation_flags: domain.optional("arch.emulation_flags"),
            next_in_list: domain.optional("next_in_list"),
            handle: domain.optional("handle"),
        },
        multicall_call: all.get(MC_STATE).and_then(|members| members.offsets.get("call").copied()),
    })
}

fn assemble_frame(regs: &Found<'_>) -> Result<FrameLayout, DwarfError> {
    Ok(FrameLayout {
        r15: regs.required("r15")?,
        r14: regs.required("r14")?,
        r13: regs.required("r13")?,
        r12: regs.required("r12")?,
        rbp: regs.required("rbp")?,
        rbx: regs.required("rbx")?,
        r11: regs.required("r11")?,
        r10: regs.required("r10")?,
        r9: regs.required("r9")?,
        r8: regs.required("r8")?,
        rax: regs.required("rax")?,
        rcx: regs.required("rcx")?,
        rdx: regs.required("rdx")?,
        rsi: regs.required("rsi")?,
        rdi: regs.required("rdi")?,
        error_code: regs.required("error_code")?,
        entry_vector: regs.required("entry_vector")?,
        rip: regs.required("rip")?,
        cs: regs.required("cs")?,
        rflags: regs.required("rflags")?,
        rsp: regs.required("rsp")?,
        ss: regs.required("ss")?,
        size: regs.members.size,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One unit: `struct vcpu { union { struct { u32 vcpu_id; } ; } at 8; }`, as bytes of DWARF 4.
    fn nested() -> (Vec<u8>, Vec<u8>) {
        let abbreviations = vec![
            1, 0x11, 1, 0, 0, // compile unit with children, no attributes
            2, 0x13, 1, 0x03, 0x08, 0x0b, 0x0b, 0, 0, // structure: name, byte size
            3, 0x0d, 0, 0x49, 0x13, 0x38, 0x0b, 0, 0, // anonymous member: type (ref4), location
            4, 0x0d, 0, 0x03, 0x08, 0x38, 0x0b, 0, 0, // named member: name, location
            5, 0x13, 1, 0, 0, // anonymous structure
            0,
        ];
        let mut unit = vec![4, 0, 0, 0, 0, 0, 8, 1];
        let inner_at = 4 + unit.len() as u32 + 14;
        unit.extend(b"\x02vcpu\0\x10\x03");
        unit.extend(inner_at.to_le_bytes());
        unit.extend([8, 0]);
        unit.extend(b"\x05\x04vcpu_id\0\x04\0\0");
        let mut info = (unit.len() as u32).to_le_bytes().to_vec();
        info.extend(unit);
        (abbreviations, info)
    }

    fn read(abbreviations: &[u8], info: &[u8]) -> Result<Layout, DwarfError> {
        layout(|name| match name {
            ".debug_abbrev" => Some(Cow::Borrowed(abbreviations)),
            ".debug_info" => Some(Cow::Borrowed(info)),
            _ => None,
        })
    }

    #[test]
    fn anonymous_members_are_passed_through() {
        let (abbreviations, info) = nested();
        let sections = gimli::Dwarf::load(|id| {
            Ok::<_, gimli::Error>(match id {
                gimli::SectionId::DebugAbbrev => EndianSlice::new(&abbreviations, LittleEndian),
                gimli::SectionId::DebugInfo => EndianSlice::new(&info, LittleEndian),
                _ => EndianSlice::new(&[], LittleEndian),
            })
        });
        let dwarf = sections.unwrap();
        let unit = dwarf.unit(dwarf.units().next().unwrap().unwrap()).unwrap();
        let reader = Reader { dwarf: &dwarf, unit, members_left: Cell::new(10) };
        let ((name, _), at) = reader.structures(STRUCTURES).unwrap()[0];
        assert_eq!((name, reader.member(at, &["vcpu_id"], MAX_DEPTH).unwrap()), (VCPU, Some(12)));
        assert_eq!(reader.member(at, &["absent"], MAX_DEPTH).unwrap(), None);
        assert_eq!(read(&abbreviations, &info), Err(DwarfError::NoStructure(CPU_INFO)));
    }

    proptest! {
        #[test]
        fn random_sections_never_panic(
            abbreviations in proptest::collection::vec(any::<u8>(), 0..128),
            info in proptest::collection::vec(any::<u8>(), 0..256),
        ) {
            let _ = read(&abbreviations, &info);
        }

        #[test]
        fn damaged_sections_never_panic(at in any::<proptest::sample::Index>(), value: u8) {
            let (mut abbreviations, mut info) = nested();
            let split = abbreviations.len();
            let at = at.index(split + info.len());
            if at < split { abbreviations[at] = value } else { info[at - split] = value }
            let _ = read(&abbreviations, &info);
        }
    }
}
