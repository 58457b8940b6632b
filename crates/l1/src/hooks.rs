//! Where to stop a virtual CPU so that no hypercall passes unseen, and none returns unseen.
//!
//! # Entries
//! A hypercall enters Xen through an interrupt gate, SYSCALL or a VM exit, and all of them meet in C:
//!
//! ```text
//!   64-bit PV   SYSCALL   lstar_enter ----------------------------call--> pv_hypercall(regs)
//!   32-bit PV   INT 0x82  entry_int82 -call-> do_entry_int82 -----jump--> pv_hypercall(regs)   (if CONFIG_PV32)
//!   HVM, PVH    VMMCALL   svm_vmexit_handler ---------------------call--> hvm_hypercall(regs)
//!               VMCALL    vmx_vmexit_handler ---------------------call--> hvm_hypercall(regs)
//!   inner calls of a multicall: do_multicall, compat_multicall ---call--> arch_do_multicall_call(mc_state)
//!                                          which jumps on to pv_do_multicall_call or hvm_do_multicall_call
//! ```
//!
//! The hook stands on the first byte of the function, where every direct call lands, also one that finds an
//! ENDBR64 there (with CET-IBT the ENDBR64 is the first instruction executed; Xen rewrites it to a no-op of
//! the same length in functions that are only called directly after boot). A live patch puts a jump on the
//! same byte, and its replacement returns to the same callers. Boot-time patching (`alternative_call`,
//! retpolines) rewrites *indirect* calls, which lead to handlers inside these functions, never to them:
//! [`CallHook::address_taken`] lists pointers to the function, and is empty where that holds. An SYSCALL
//! that is no hypercall (a PV user process's) goes to `switch_to_kernel` and does not come here. Hyper-V
//! style calls of HVM guests (`viridian_hypercall`) branch off inside `hvm_hypercall`, behind the hook.
//!
//! # Results
//! A call is over at the return address of the call into the function. The code map lists all direct calls;
//! where a function is reached by a jump, its caller's return addresses count. What a result site sees, and
//! when:
//!
//! - A preempted call (continuation) returns there like a finished one. PV: the saved RIP went back by 2
//!   bytes and RAX holds a call number. HVM: `hvm_hypercall` itself returns `HVM_HCALL_preempted`, not 0,
//!   in EAX and the exit handler leaves RIP alone. The guest issues the call again: another entry.
//! - `iret` rewrites the whole frame; the result site sees the frame that the guest resumes with.
//! - `continue_hypercall_on_cpu` (CPU hotplug, microcode and the like) returns at once with the vCPU
//!   paused, and a tasklet stores the true result into the saved RAX later: the value at the result site is
//!   provisional.
//! - A vCPU that sleeps inside a call (wait queues, for memory events and paging) gives up its stack:
//!   another vCPU then enters on the same physical CPU before the first returns. Entries and results must
//!   be paired by `struct vcpu`, never by physical CPU.
//! - `domain_crash` inside a handler only marks the domain; the call returns, and the vCPU is descheduled
//!   on the way out. Only reboot, crash (kexec) and `asm_domain_crash_synchronous` never return; the next
//!   entry of the same vCPU, or none at all, tells.
//! - Descheduling otherwise happens behind the result site (`test_all_events`, softirqs), so
//!   `reset_stack_and_jump` to another context does not skip it.
//! - With shadow stacks (CET-SS) return addresses cannot be redirected; nothing here does, the sites are
//!   only watched.
//!
//! A multicall's inner result stands in the `result` field of the entry in `mc_state`, at the inner result
//! sites.

use std::collections::BTreeSet;

use hypovisor_machine::Gva;
use serde::{Deserialize, Serialize};

use crate::code::{CodeMap, ReferenceKind, VmEntryKind};
use crate::{Image, SymbolTable};

const PV_ENTRY: &str = "pv_hypercall";
const HVM_ENTRY: &str = "hvm_hypercall";
/// The inner function of a multicall, outermost first: the first that is really called is hooked; failing the
/// common one, those of both guest kinds.
const MULTICALL_COMMON: &str = "arch_do_multicall_call";
const MULTICALL_BY_KIND: [&str; 2] = ["pv_do_multicall_call", "hvm_do_multicall_call"];

/// How many jumps are followed from a caller to its caller.
const MAX_TAIL_CALLS: usize = 64;

/// Why the hooks are not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    /// Neither kind of guest can make a hypercall: no Xen, or symbols that lack its functions.
    #[error("the symbols name neither {PV_ENTRY} nor {HVM_ENTRY}")]
    NoEntry,
    /// The function exists, but nothing calls it directly.
    #[error("no direct call of {function} ({address:#x}) was found")]
    NoCaller {
        /// The function's name.
        function: String,
        /// Its address.
        address: Gva,
    },
    /// A symbol names an address outside the image.
    #[error("{function} ({address:#x}) lies outside the image")]
    OutsideImage {
        /// The function's name.
        function: String,
        /// Its address.
        address: Gva,
    },
}

/// An address in L1's code, with its name for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// The address.
    #[serde(with = "crate::hex::gva")]
    pub address: Gva,
    /// The symbol and offset it lies at, as in `lstar_enter+0x13d`.
    pub name: String,
}

/// One function that hypercalls pass through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallHook {
    /// The function's first byte. RDI is the argument.
    pub entry: Site,
    /// The return addresses of all direct calls.
    pub results: Vec<Site>,
    /// Pointers to the function, in code or data: calls that could return elsewhere. Expected to be empty.
    #[serde(with = "crate::hex::gva_list")]
    pub address_taken: Vec<Gva>,
    /// Jumps to the function from code that nothing calls directly: results that could be missed. Expected
    /// to be empty.
    pub unfollowed: Vec<Site>,
}

/// An instruction that starts a nested guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmEntry {
    /// The instruction.
    pub instruction: Site,
    /// The address behind it; after VMRUN the exit continues there.
    #[serde(with = "crate::hex::gva")]
    pub after: Gva,
    /// Which instruction.
    pub kind: VmEntryKind,
}

/// All places to stop at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    /// Hypercalls of PV guests; RDI points at the guest frame. `None` in a Xen built without PV.
    pub pv: Option<CallHook>,
    /// Hypercalls of HVM and PVH guests; RDI points at the guest frame. `None` in a Xen built without HVM.
    pub hvm: Option<CallHook>,
    /// Inner calls of multicalls; RDI points at a `struct mc_state`.
    pub multicall: Vec<CallHook>,
    /// Where nested guests are started.
    pub vm_entries: Vec<VmEntry>,
}

impl Hooks {
    /// Finds the hooks by name and by who calls whom.
    ///
    /// # Errors
    /// When there is no entry at all, or an entry has no caller.
    pub fn find(image: &Image, symbols: &SymbolTable, code: &CodeMap) -> Result<Self, HookError> {
        let finder = Finder { image, symbols, code };
        let (pv, hvm) = (finder.hook(PV_ENTRY)?, finder.hook(HVM_ENTRY)?);
        if pv.is_none() && hvm.is_none() {
            return Err(HookError::NoEntry);
        }
        Ok(Self { pv, hvm, multicall: finder.multicall()?, vm_entries: finder.vm_entries() })
    }
}

struct Finder<'a> {
    image: &'a Image,
    symbols: &'a SymbolTable,
    code: &'a CodeMap,
}

impl Finder<'_> {
    /// The hook on a function; `None` if this Xen has no such function.
    fn hook(&self, function: &str) -> Result<Option<CallHook>, HookError> {
        let Some(address) = self.symbols.address_of(function) else { return Ok(None) };
        let function = function.to_owned();
        if !self.image.contains(address) {
            return Err(HookError::OutsideImage { function, address });
        }
        let hook = self.hook_at(address);
        if hook.results.is_empty() {
            return Err(HookError::NoCaller { function, address });
        }
        Ok(Some(hook))
    }

    fn multicall(&self) -> Result<Vec<CallHook>, HookError> {
        let called = |name: &&str| {
            let address = self.symbols.address_of(name);
            address.is_some_and(|address| !self.hook_at(address).results.is_empty())
        };
        let common = [MULTICALL_COMMON].into_iter().filter(called);
        let mut names: Vec<&str> = common.collect();
        if names.is_empty() {
            names = MULTICALL_BY_KIND.into_iter().filter(called).collect();
        }
        names.into_iter().filter_map(|name| self.hook(name).transpose()).collect()
    }

    fn hook_at(&self, address: Gva) -> CallHook {
        let mut hook = CallHook {
            entry: self.site(address),
            results: Vec::new(),
            address_taken: self.image.words_equal(address.0).collect(),
            unfollowed: Vec::new(),
        };
        let mut results = BTreeSet::new();
        let mut pending = vec![address];
        let mut seen = BTreeSet::from([address]);
        while let Some(target) = pending.pop() {
            for reference in self.code.references_to(target) {
                match reference.kind {
                    ReferenceKind::Call => drop(results.insert(reference.next)),
                    ReferenceKind::AddressTaken if target == address => hook.address_taken.push(reference.at),
                    ReferenceKind::AddressTaken => {}
                    ReferenceKind::TailJump => match self.caller_of_jump(reference.at) {
                        Some(caller) if seen.len() < MAX_TAIL_CALLS => {
                            if seen.insert(caller) {
                                pending.push(caller);
                            }
                        }
                        _ => hook.unfollowed.push(self.site(reference.at)),
                    },
                }
            }
        }
        hook.results = results.into_iter().map(|result| self.site(result)).collect();
        hook
    }

    /// The function that a jump belongs to, if anything refers to that function directly.
    fn caller_of_jump(&self, jump: Gva) -> Option<Gva> {
        let (_, offset) = self.symbols.lookup(jump)?;
        let function = Gva(jump.0 - offset);
        let mut references = self.code.references_to(function);
        references.any(|reference| reference.kind != ReferenceKind::AddressTaken).then_some(function)
    }

    fn vm_entries(&self) -> Vec<VmEntry> {
        let entry = |(at, after, kind)| VmEntry { instruction: self.site(at), after, kind };
        self.code.vm_entries().map(entry).collect()
    }

    fn site(&self, address: Gva) -> Site {
        let name = match self.symbols.lookup(address) {
            Some((symbol, 0)) => symbol.bare_name().to_owned(),
            Some((symbol, offset)) => format!("{}+{offset:#x}", symbol.bare_name()),
            None => format!("{address:#x}"),
        };
        Site { address, name }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Symbol, SymbolKind};

    const BASE: u64 = 0xffff_8a00_0000_0000;

    /// Functions of 16 bytes each; a call or jump at the start of one to the start of another.
    fn xen(branches: &[(usize, u8, usize)], names: &[&str]) -> (Image, SymbolTable) {
        let mut code = vec![0x90; 16 * names.len()];
        for (from, opcode, to) in branches {
            let displacement = (16 * *to as i32) - (16 * *from as i32 + 5);
            code[16 * from] = *opcode;
            code[16 * from + 1..16 * from + 5].copy_from_slice(&displacement.to_le_bytes());
        }
        let symbol = |(index, name): (usize, &&str)| Symbol {
            address: Gva(BASE + 16 * index as u64),
            kind: SymbolKind::Text,
            global: true,
            size: 16,
            name: (*name).to_owned(),
        };
        (Image::new(Gva(BASE), code, Vec::new()), SymbolTable::new(names.iter().enumerate().map(symbol)))
    }

    fn find(branches: &[(usize, u8, usize)], names: &[&str]) -> Result<Hooks, HookError> {
        let (image, symbols) = xen(branches, names);
        Hooks::find(&image, &symbols, &CodeMap::build(&image, &symbols))
    }

    const CALL: u8 = 0xe8;
    const JUMP: u8 = 0xe9;

    #[test]
    fn a_tail_call_counts_for_the_callers_caller() {
        let names = ["entry_int82", "do_entry_int82", "pv_hypercall", "lstar_enter"];
        let hooks = find(&[(0, CALL, 1), (1, JUMP, 2), (3, CALL, 2)], &names).unwrap();
        let pv = hooks.pv.unwrap();
        let results: Vec<&str> = pv.results.iter().map(|site| site.name.as_str()).collect();
        assert_eq!(results, ["entry_int82+0x5", "lstar_enter+0x5"]);
        assert_eq!((pv.entry.name.as_str(), pv.unfollowed.len()), ("pv_hypercall", 0));
        assert_eq!(hooks.hvm, None);
    }

    #[test]
    fn a_jump_from_nowhere_is_reported() {
        let hooks = find(&[(0, JUMP, 1), (2, CALL, 1)], &["label", "hvm_hypercall", "exit"]).unwrap();
        assert_eq!(hooks.hvm.unwrap().unfollowed[0].name, "label");
    }

    #[test]
    fn jumps_in_a_circle_end() {
        let names = ["pv_hypercall", "other"];
        let error = find(&[(0, JUMP, 1), (1, JUMP, 0)], &names).unwrap_err();
        assert!(matches!(error, HookError::NoCaller { .. }));
        assert_eq!(find(&[], &["other"]).unwrap_err(), HookError::NoEntry);
    }

    #[test]
    fn the_inner_multicall_functions_stand_in_for_the_common_one() {
        let names = ["do_multicall", "pv_do_multicall_call", "lstar_enter", "pv_hypercall"];
        let hooks = find(&[(0, CALL, 1), (2, CALL, 3)], &names).unwrap();
        assert_eq!(hooks.multicall[0].entry.name, "pv_do_multicall_call");
    }
}
