//! Live patches that L1 itself knows of (Xen docs/misc/livepatch.pandoc): what they explain is reported by their name.
//!
//! The list is L1's own, in memory that an attacker who has L1 can write: a patch in it is a claim, and so it is shown, not
//! passed over.

use hypovisor_machine::{Gva, PhysicalMemory};

use crate::finding::{Finding, Item, Judgement};
use crate::reference::Range;
use crate::structures::Structures;
use crate::target::Target;

/// The most patches, and the most functions of all of them, that are looked at.
const MAX_PATCHES: usize = 64;
const MAX_FUNCTIONS: usize = 1024;
/// `XEN_LIVEPATCH_NAME_SIZE` (public/sysctl.h).
const NAME_BYTES: usize = 128;
/// `LIVEPATCH_STATE_APPLIED` (public/sysctl.h).
const APPLIED: u32 = 2;

/// A function that a patch replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Replaced {
    old: Range,
    new: Gva,
}

/// One live patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LivePatch {
    /// Its name.
    pub name: String,
    /// Whether it is in force.
    pub is_applied: bool,
    pub(crate) text: Range,
    functions: Vec<Replaced>,
}

/// All that L1 lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LivePatches(Vec<LivePatch>);

impl LivePatches {
    /// Reads L1's list; empty if the file does not describe it.
    pub fn read<M: PhysicalMemory>(target: &Target<'_, M>, structures: &Structures) -> Self {
        Self(Reader { target, structures }.list().unwrap_or_default())
    }

    /// The patches.
    pub fn iter(&self) -> impl Iterator<Item = &LivePatch> {
        self.0.iter()
    }

    /// The patch whose code an address lies in.
    pub(crate) fn with_code_at(&self, gva: Gva) -> Option<&LivePatch> {
        self.0.iter().find(|patch| patch.text.contains(gva))
    }

    /// A change of code inside a function that an applied patch replaces, that does what applying it does.
    pub(crate) fn explain(&self, finding: Finding, jump_target: Option<Gva>) -> Finding {
        let Some(at) = finding.address.filter(|_| finding.item == Item::Text) else { return finding };
        let explains = |patch: &&LivePatch| {
            let replaces =
                |function: &Replaced| function.old.contains(at) && jump_target == Some(function.new);
            patch.is_applied && patch.functions.iter().any(replaces)
        };
        match self.0.iter().find(explains) {
            Some(patch) => {
                Finding { judgement: Judgement::LivePatch { name: patch.name.clone() }, ..finding }
            }
            None => finding,
        }
    }
}

struct Reader<'a, 'b, M> {
    target: &'a Target<'b, M>,
    structures: &'a Structures,
}

impl<M: PhysicalMemory> Reader<'_, '_, M> {
    fn list(&self) -> Option<Vec<LivePatch>> {
        let head = self.target.reference.symbols().address_of("payload_list")?;
        let link = self.structures.offset("payload", "list")?;
        let (mut patches, mut functions_left) = (Vec::new(), MAX_FUNCTIONS);
        let mut next = Gva(self.target.word(head)?);
        while next != head && patches.len() < MAX_PATCHES {
            let payload = Gva(next.0.wrapping_sub(link));
            patches.push(self.patch(payload, &mut functions_left)?);
            next = Gva(self.target.word(next)?);
        }
        Some(patches)
    }

    fn patch(&self, payload: Gva, functions_left: &mut usize) -> Option<LivePatch> {
        let field = |member| Some(payload.offset(self.structures.offset("payload", member)?));
        let word = |member| self.target.word(field(member)?);
        let number = |member| self.target.memory().read_u32(field(member)?).ok();
        let name = self.target.bytes(field("name")?, NAME_BYTES)?;
        let text = Gva(word("text_addr")?);
        Some(LivePatch {
            name: String::from_utf8_lossy(name.split(|byte| *byte == 0).next()?).into_owned(),
            is_applied: number("state")? == APPLIED,
            text: Range { start: text, end: Gva(text.0.saturating_add(word("text_size")?.min(1 << 30))) },
            functions: self
                .functions(Gva(word("funcs")?), number("nfuncs")?, functions_left)
                .unwrap_or_default(),
        })
    }

    fn functions(&self, first: Gva, count: u32, left: &mut usize) -> Option<Vec<Replaced>> {
        let size = self.structures.size("livepatch_func")?;
        let count = (count as usize).min(*left);
        *left -= count;
        let one = |index: usize| {
            let at = first.offset(index as u64 * size);
            let field = |member| Some(at.offset(self.structures.offset("livepatch_func", member)?));
            let old = Gva(self.target.word(field("old_addr")?)?);
            let old_size = self.target.memory().read_u32(field("old_size")?).ok()?;
            let new = Gva(self.target.word(field("new_addr")?)?);
            Some(Replaced { old: Range { start: old, end: old.offset(old_size.into()) }, new })
        };
        (0..count).map(one).collect()
    }
}
