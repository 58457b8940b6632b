//! Which domains there are: by L1's own list, by its index, by what its processors run, and by what lies in memory.
//!
//! Whoever takes a domain out of the list hides it from the toolstack; its structures stay, because it goes on running.
//! They are found by what holds of every one of them and of little else: a page that begins a `struct domain` has a pointer
//! to its vCPUs, the first of which points back.

use std::collections::{BTreeMap, HashSet};

use hypovisor_machine::{Gpa, Gva, PAGE_SIZE, PhysicalMemory, VirtualMemory};
use serde::Serialize;

use crate::finding::{Finding, Item, Report};
use crate::structures::Structures;
use crate::target::{Cpu, Target};

/// The first number that is no guest's (`DOMID_FIRST_RESERVED`, public/xen.h).
const FIRST_RESERVED: u16 = 0x7ff0;
/// The number of the domain whose vCPUs are the idle loops (`DOMID_IDLE`, public/xen.h).
const IDLE: u16 = 0x7fff;
/// `DOMDYING_dead` (xen/include/xen/sched.h): nothing is left of it but its structure.
const DEAD: u8 = 2;
/// The most domains that are followed in a list or found in memory, and the most vCPUs of one, and of all together.
const MAX_DOMAINS: usize = 1 << 12;
const MAX_VCPUS: usize = 8192;
const MAX_ALL_VCPUS: usize = 1 << 16;
/// Entries of the index by number (`DOMAIN_HASH_SIZE`, xen/common/domain.c).
const HASH_ENTRIES: u64 = 256;
/// `XEN_DOMCTL_CDF_hvm` (public/domctl.h).
pub(crate) const HARDWARE_VIRTUALISED: u32 = 1;

/// A virtual processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SeenVcpu {
    /// Its number in its domain.
    pub id: u32,
    /// The physical CPU it runs on, or ran on last.
    pub processor: u32,
    /// Whether it ran when it was looked at.
    pub is_running: bool,
    /// The physical address of its VMCB, if it has one.
    pub vmcb: Option<u64>,
}

/// A domain, and who knows of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SeenDomain {
    /// Its number.
    pub id: u16,
    /// Where its structure stands.
    #[serde(serialize_with = "hex")]
    pub address: Gva,
    /// Hardware-virtualised: HVM or PVH. Else PV.
    pub is_hvm: bool,
    /// It is being destroyed.
    pub is_dying: bool,
    /// L1's list has it.
    pub is_listed: bool,
    /// L1's index by number has it.
    pub is_indexed: bool,
    /// Its vCPUs.
    pub vcpus: Vec<SeenVcpu>,
}

impl SeenDomain {
    /// Lives, but L1's list does not have it.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        !self.is_listed && !self.is_dying && self.id < FIRST_RESERVED
    }

    /// The domain whose vCPUs are the idle loops, and the others that are no guests.
    #[must_use]
    pub const fn is_guest(&self) -> bool {
        self.id < FIRST_RESERVED
    }
}

/// Why the domains are not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the symbols file does not describe domains ({0}); use one with debug information")]
pub struct NoDomains(&'static str);

/// Finds all domains, in L1's lists and in its memory (`ram`: the runs of it).
///
/// # Errors
/// [`NoDomains`] if the file does not say what a domain looks like.
pub fn find<M: PhysicalMemory>(
    target: &Target<'_, M>,
    structures: &Structures,
    ram: &[(Gpa, u64)],
) -> Result<Vec<SeenDomain>, NoDomains> {
    let reader = Reader { target, structures, fields: Fields::find(structures)? };
    let mut found = BTreeMap::new();
    for domain in reader.listed() {
        found.insert(domain.0, Known { is_listed: true, is_indexed: false });
    }
    for domain in reader.indexed() {
        found.entry(domain.0).or_insert(Known::default()).is_indexed = true;
    }
    for domain in reader.running().into_iter().chain(reader.in_memory(ram)) {
        found.entry(domain.0).or_default();
    }
    let mut vcpus_left = MAX_ALL_VCPUS;
    let mut domains: Vec<SeenDomain> =
        found.into_iter().filter_map(|(at, known)| reader.domain(Gva(at), known, &mut vcpus_left)).collect();
    domains.sort_by_key(|domain| (domain.id, domain.address));
    Ok(domains)
}

/// What is wrong with the lists.
pub(crate) fn check(domains: &[SeenDomain], report: &mut Report) {
    let hidden = domains.iter().filter(|domain| domain.is_hidden()).map(|domain| {
        let place = format!("domain {}", domain.id);
        let index =
            if domain.is_indexed { "only its index by number" } else { "neither its index by number" };
        let message = format!("{place} lives, but L1's list does not have it, {index}");
        Finding::tampering(Item::Domains, place, message).at(domain.address, 0)
    });
    let unindexed =
        domains.iter().filter(|domain| domain.is_listed && !domain.is_indexed && domain.is_guest());
    let unindexed = unindexed.map(|domain| {
        let place = format!("domain {}", domain.id);
        let message = format!("L1's list has {place}, its index by number does not");
        let settle = "whether it was being made or destroyed at that moment";
        Finding::unknown(Item::Domains, place, message, settle).at(domain.address, 0)
    });
    let findings: Vec<Finding> = hidden.chain(unindexed).collect();
    let guests = domains.iter().filter(|domain| domain.is_guest()).count();
    report.verified(Item::Domains, format!("{guests} domains in memory against L1's list and its index"));
    report.add(findings);
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    is_listed: bool,
    is_indexed: bool,
}

/// Offsets without which nothing is found.
struct Fields {
    id: u64,
    vcpus: u64,
    max_vcpus: u64,
    next: u64,
    next_indexed: u64,
    dying: u64,
    options: u64,
    vcpu_id: u64,
    vcpu_domain: u64,
    vcpu_processor: u64,
    vcpu_running: u64,
}

impl Fields {
    fn find(structures: &Structures) -> Result<Self, NoDomains> {
        let offset = |structure, member| structures.offset(structure, member).ok_or(NoDomains(member));
        Ok(Self {
            id: offset("domain", "domain_id")?,
            vcpus: offset("domain", "vcpu")?,
            max_vcpus: offset("domain", "max_vcpus")?,
            next: offset("domain", "next_in_list")?,
            next_indexed: offset("domain", "next_in_hashbucket")?,
            dying: offset("domain", "is_dying")?,
            options: offset("domain", "options")?,
            vcpu_id: offset("vcpu", "vcpu_id")?,
            vcpu_domain: offset("vcpu", "domain")?,
            vcpu_processor: offset("vcpu", "processor")?,
            vcpu_running: offset("vcpu", "is_running")?,
        })
    }
}

struct Reader<'a, 'b, M> {
    target: &'a Target<'b, M>,
    structures: &'a Structures,
    fields: Fields,
}

impl<M: PhysicalMemory> Reader<'_, '_, M> {
    fn memory(&self) -> VirtualMemory<&M> {
        self.target.memory()
    }

    /// A pointer of L1's that leads somewhere.
    fn pointer(&self, at: Gva) -> Option<Gva> {
        let value = Gva(self.memory().read_u64(at).ok()?);
        let fits = value.is_canonical() && value.0 >> 63 == 1;
        (fits && self.memory().translate(value).is_ok()).then_some(value)
    }

    /// Adds what a list holds, up to what was seen before: no domain is twice in one, or in two buckets of the index.
    fn follow(&self, first: Option<Gva>, next: u64, seen: &mut HashSet<Gva>) {
        let mut at = first;
        while let Some(domain) = at.filter(|_| seen.len() < MAX_DOMAINS)
            && seen.insert(domain)
        {
            at = self.pointer(domain.offset(next));
        }
    }

    fn listed(&self) -> HashSet<Gva> {
        let mut seen = HashSet::new();
        let head = self.target.reference.symbols().address_of("domain_list");
        self.follow(head.and_then(|head| self.pointer(head)), self.fields.next, &mut seen);
        seen
    }

    fn indexed(&self) -> HashSet<Gva> {
        let mut seen = HashSet::new();
        let Some(index) = self.target.reference.symbols().address_of("domain_hash") else { return seen };
        for entry in 0..HASH_ENTRIES {
            self.follow(self.pointer(index.offset(8 * entry)), self.fields.next_indexed, &mut seen);
        }
        seen
    }

    /// What the processors run, by the top of the stack each stands on.
    fn running(&self) -> Vec<Gva> {
        let Some(current) = self.structures.offset("cpu_info", "current_vcpu") else { return Vec::new() };
        let Some(size) = self.structures.size("cpu_info") else { return Vec::new() };
        let on = |cpu: &Cpu| {
            (12..=16).find_map(|order| {
                let top = (cpu.registers.rsp.0 | ((1 << order) - 1)).wrapping_add(1);
                let vcpu = self.pointer(Gva(top.wrapping_sub(size)).offset(current))?;
                let domain = self.pointer(vcpu.offset(self.fields.vcpu_domain))?;
                self.is_domain(domain).then_some(domain)
            })
        };
        self.target.cpus.iter().filter_map(on).collect()
    }

    /// What lies at the begin of a page and looks like a domain.
    fn in_memory(&self, ram: &[(Gpa, u64)]) -> Vec<Gva> {
        let mut found = Vec::new();
        for (start, len) in ram {
            for page in (0..*len).step_by(PAGE_SIZE as usize).map(|into| start.offset(into)) {
                if found.len() < MAX_DOMAINS
                    && let Some(domain) = self.domain_in(page)
                {
                    found.push(domain);
                }
            }
        }
        found
    }

    fn domain_in(&self, page: Gpa) -> Option<Gva> {
        let physical = &self.target.physical;
        let vcpus = physical.read_u64(page.offset(self.fields.vcpus)).ok()?;
        if vcpus >> 47 != 0x1_ffff {
            return None;
        }
        let vcpu = self.pointer(Gva(vcpus))?;
        let domain = self.pointer(vcpu.offset(self.fields.vcpu_domain))?;
        (self.memory().translate(domain) == Ok(page) && self.is_domain(domain)).then_some(domain)
    }

    fn is_domain(&self, domain: Gva) -> bool {
        let is = || {
            let vcpus = self.pointer(domain.offset(self.fields.vcpus))?;
            let vcpu = self.pointer(vcpus)?;
            let id = self.memory().read_u32(vcpu.offset(self.fields.vcpu_id)).ok()?;
            Some(id == 0 && self.pointer(vcpu.offset(self.fields.vcpu_domain))? == domain)
        };
        is() == Some(true)
    }

    fn domain(&self, at: Gva, known: Known, vcpus_left: &mut usize) -> Option<SeenDomain> {
        let number = |offset| self.memory().read_u32(at.offset(offset)).ok();
        let count = (number(self.fields.max_vcpus)? as usize).min(MAX_VCPUS).min(*vcpus_left);
        *vcpus_left -= count;
        let vcpus = self.pointer(at.offset(self.fields.vcpus));
        let dying = number(self.fields.dying)? as u8;
        Some(SeenDomain {
            id: number(self.fields.id)? as u16,
            address: at,
            is_hvm: number(self.fields.options)? & HARDWARE_VIRTUALISED != 0,
            is_dying: dying != 0 && dying <= DEAD,
            is_listed: known.is_listed,
            is_indexed: known.is_indexed,
            vcpus: (0..count as u64).filter_map(|id| self.vcpu(vcpus?, id)).collect(),
        })
    }

    fn vcpu(&self, array: Gva, id: u64) -> Option<SeenVcpu> {
        let vcpu = self.pointer(array.offset(8 * id))?;
        let number = |offset| self.memory().read_u32(vcpu.offset(offset)).ok();
        let vmcb = self.structures.offset("vcpu", "arch.hvm.svm.vmcb_pa");
        let domain = self.pointer(vcpu.offset(self.fields.vcpu_domain))?;
        let is_hvm =
            self.memory().read_u32(domain.offset(self.fields.options)).ok()? & HARDWARE_VIRTUALISED != 0;
        let vmcb =
            vmcb.filter(|_| is_hvm).and_then(|offset| self.memory().read_u64(vcpu.offset(offset)).ok());
        Some(SeenVcpu {
            id: number(self.fields.vcpu_id)?,
            processor: number(self.fields.vcpu_processor)?,
            is_running: number(self.fields.vcpu_running)? as u8 != 0,
            vmcb: vmcb.filter(|vmcb| *vmcb != 0),
        })
    }
}

/// Whether a number is that of the idle loops.
#[must_use]
pub const fn is_idle(id: u16) -> bool {
    id == IDLE
}

fn hex<S: serde::Serializer>(address: &Gva, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{:#x}", address.0))
}
