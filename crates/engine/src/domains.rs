//! What is known of L1's domains, learned from the hypercalls themselves.
//!
//! The toolstack's `domctl(XEN_DOMCTL_createdomain)` tells a new domain's id and kind. For a domain that was
//! there before, the way it calls tells whether it is PV. Names live in the toolstack only; whoever knows them
//! (the lab, a user) tells them.

use std::collections::BTreeMap;

use hypovisor_abi::decode::{self, Group, Missing, Sink, Value};
use hypovisor_abi::xen::XEN;
use hypovisor_abi::{Scalar, SubOp};
use serde::{Deserialize, Serialize};

use crate::call::{Call, Outcome};

/// What kind of guest a domain is, in Xen's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DomainKind {
    /// Paravirtualised.
    Pv,
    /// Hardware virtualised, without a device model.
    Pvh,
    /// Hardware virtualised, with emulated devices; also one of which only the former is known.
    Hvm,
    /// Not known.
    #[default]
    #[serde(other)]
    Unknown,
}

impl DomainKind {
    /// The name, as Xen's users write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pv => "PV",
            Self::Pvh => "PVH",
            Self::Hvm => "HVM",
            Self::Unknown => "unknown",
        }
    }
}

/// One domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Domain {
    /// Its id.
    pub id: u16,
    /// Its name; `dom` and its id if nobody told. Whoever named the domain chose it: untrusted text.
    pub name: String,
    /// Its kind.
    #[serde(rename = "type")]
    pub kind: DomainKind,
}

/// All domains seen in a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Domains(BTreeMap<u16, Domain>);

/// `__HYPERVISOR_domctl` (Xen public/xen.h).
const DOMCTL: u64 = 36;
/// `XEN_DOMCTL_createdomain` (Xen public/domctl.h).
const CREATE_DOMAIN: u64 = 1;
/// `XEN_DOMCTL_destroydomain` (Xen public/domctl.h).
const DESTROY_DOMAIN: u64 = 2;
/// `XEN_DOMCTL_CDF_hvm` (Xen public/domctl.h).
const CDF_HVM: u64 = 1;
/// `XEN_X86_EMU_HPET` to `XEN_X86_EMU_PIT` (Xen public/arch-x86/xen.h): devices that only HVM guests have.
const EMULATED_DEVICES: u64 = 0x1fe;

impl Domains {
    /// Learns from a call: who makes it, and whether it creates a domain. Tells which domain it has destroyed, if any;
    /// that one is kept, because a recording has its calls.
    pub fn learn(&mut self, call: &Call<'_>) -> Option<u16> {
        let id = call.caller.domain;
        if !self.0.contains_key(&id) {
            let kind = if call.caller.mode.is_pv() { DomainKind::Pv } else { DomainKind::Hvm };
            self.insert(id, kind);
        }
        let done = call.registers.number == DOMCTL && call.outcome == Outcome::Returned(0);
        if done { self.learn_control(call) } else { None }
    }

    #[cold]
    fn learn_control(&mut self, call: &Call<'_>) -> Option<u16> {
        let captured = call.captured();
        let operation = decode::identify(&XEN, &captured).sub_op_number;
        let operation = operation.filter(|number| [CREATE_DOMAIN, DESTROY_DOMAIN].contains(number))?;
        let mut control = Control::default();
        decode::decode(&XEN, &captured, &mut control);
        let id = u16::try_from(control.domain).ok()?;
        if operation == DESTROY_DOMAIN {
            return Some(id);
        }
        let kind = match (control.flags & CDF_HVM, control.emulation_flags & EMULATED_DEVICES) {
            (0, _) => DomainKind::Pv,
            (_, 0) => DomainKind::Pvh,
            _ => DomainKind::Hvm,
        };
        self.0.remove(&id);
        self.insert(id, kind);
        None
    }

    fn insert(&mut self, id: u16, kind: DomainKind) {
        let name = if id == 0 { "Domain-0".to_owned() } else { format!("dom{id}") };
        self.0.insert(id, Domain { id, name, kind });
    }

    /// Notes a domain's name.
    pub fn name(&mut self, id: u16, name: &str) {
        let domain =
            self.0.entry(id).or_insert_with(|| Domain { id, name: String::new(), kind: DomainKind::Unknown });
        name.clone_into(&mut domain.name);
    }

    /// Forgets the older half, which has the lower ids. Domain 0 stays until it is the last: it is always there.
    pub(crate) fn forget_older_half(&mut self) {
        let (all, first) = (self.0.len(), self.0.keys().next().copied().filter(|id| *id == 0));
        let kept = all / 2;
        let from = self.0.keys().copied().nth(all - kept);
        self.0.retain(|id, _| from.is_some_and(|from| *id >= from || (kept > 0 && Some(*id) == first)));
    }

    /// The domains in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &Domain> {
        self.0.values()
    }

    /// The domain with this id.
    #[must_use]
    pub fn get(&self, id: u16) -> Option<&Domain> {
        self.0.get(&id)
    }
}

/// Picks the fields of `struct xen_domctl` that tell what was created or destroyed.
#[derive(Default)]
struct Control {
    domain: u64,
    flags: u64,
    emulation_flags: u64,
}

impl Sink for Control {
    fn scalar(&mut self, name: &'static str, _: &Scalar, value: Value) {
        let slot = match name {
            "domain" => &mut self.domain,
            "flags" => &mut self.flags,
            "emulation_flags" => &mut self.emulation_flags,
            _ => return,
        };
        *slot = value.after.or(value.before).unwrap_or(0);
    }

    fn open(&mut self, _: &'static str, _: Group) {}
    fn close(&mut self, _: Group) {}
    fn sub_op(&mut self, _: &'static str, _: u64, _: Option<&'static SubOp>) {}
    fn text(&mut self, _: &'static str, _: &[u8]) {}
    fn bytes(&mut self, _: &'static str, _: &[u8], _: u64) {}
    fn pointer(&mut self, _: &'static str, _: u64, _: Missing) {}
    fn elided(&mut self, _: u64) {}
}
