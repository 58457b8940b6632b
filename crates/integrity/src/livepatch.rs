//! Live patches that L1 itself knows of (Xen docs/misc/livepatch.pandoc): what they explain is reported by their name.
//!
//! The list is L1's own, in memory that an attacker who has L1 can write: a patch in it is a claim, and so it is shown, not
//! passed over. Where the list cannot be read, because the symbols file does not describe it, what could be a live patch is unknown.

use hypovisor_machine::{Gva, PhysicalMemory};

use crate::finding::{Finding, Item, Judgement};
use crate::reference::Range;
use crate::structures::Structures;
use crate::target::Target;

/// The most patches, and the most functions of all of them, that are looked at.
const MAX_PATCHES: usize = 64;
pub(crate) const MAX_FUNCTIONS: usize = 1024;
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
pub struct LivePatches {
    patches: Vec<LivePatch>,
    /// Where patches may lie that L1 may have, if its list cannot be read.
    unknown: Option<Range>,
}

impl LivePatches {
    /// Reads L1's list.
    pub fn read<M: PhysicalMemory>(target: &Target<'_, M>, structures: &Structures) -> Self {
        match (Reader { target, structures }).list() {
            Some(patches) => Self { patches, unknown: None },
            None => {
                Self { patches: Vec::new(), unknown: structures.is_empty().then(|| place_of_any(target)) }
            }
        }
    }

    /// The patches.
    pub fn iter(&self) -> impl Iterator<Item = &LivePatch> {
        self.patches.iter()
    }

    /// What to think of code at an address outside L1's image.
    pub(crate) fn judge_code(&self, gva: Gva) -> Judgement {
        match self.patches.iter().find(|patch| patch.text.contains(gva)) {
            Some(patch) => Judgement::LivePatch { name: patch.name.clone() },
            None => self.judge_any(gva),
        }
    }

    fn judge_any(&self, gva: Gva) -> Judgement {
        if self.unknown.is_some_and(|unknown| unknown.contains(gva)) {
            let settle = "whether it is a live patch's: `xen-livepatch list`, or a symbols file with debug information";
            return Judgement::Unknown { settle: settle.to_owned() };
        }
        Judgement::Tampering
    }

    /// A change of code inside a function that an applied patch replaces, that does what applying it does.
    pub(crate) fn explain(&self, finding: Finding, jump_target: Option<Gva>) -> Finding {
        let Some(at) = finding.address.filter(|_| finding.item == Item::Text) else { return finding };
        let explains = |patch: &&LivePatch| {
            let replaces =
                |function: &Replaced| function.old.contains(at) && jump_target == Some(function.new);
            patch.is_applied && patch.functions.iter().any(replaces)
        };
        let judgement = match self.patches.iter().find(explains) {
            Some(patch) => Judgement::LivePatch { name: patch.name.clone() },
            None => self.judge_any(jump_target.unwrap_or(at)),
        };
        Finding { judgement, ..finding }
    }
}

/// L1 loads patches behind its image, in the gigabyte that is for both (`XEN_VIRT_START`, xen/arch/x86/include/asm/config.h).
fn place_of_any<M>(target: &Target<'_, M>) -> Range {
    const GIGABYTE: u64 = 1 << 30;
    let image = target.reference.parts().image;
    Range { start: image.end, end: Gva((image.start.0 & !(GIGABYTE - 1)).saturating_add(GIGABYTE)) }
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
