//! The layout checked against, or found in, the memory of a running L1.
//!
//! Both need one virtual CPU stopped at a hypercall entry, with the address of the guest frame. The fields
//! they look at confirm each other, so a wrong offset does not pass by chance:
//!
//! ```text
//!   frame + current_vcpu  -->  vcpu       vcpu.processor = cpu_info.processor_id
//!   vcpu + domain         -->  domain     domain = *hardware_domain, or its id is small
//!   domain + vcpus        -->  array      array[vcpu.vcpu_id] = vcpu: the way back
//! ```

use hypovisor_machine::{Gva, MemoryError, PhysicalMemory, VirtualMemory};

use crate::{DomainLayout, FrameLayout, Layout, LayoutHints, LayoutSource, VcpuLayout};

/// Xen allows up to 8192 vCPUs in a domain (`MAX_VIRT_CPUS`, public/arch-x86) and as many physical CPUs.
const MAX_CPUS: u32 = 8192;
/// `DOMID_FIRST_RESERVED` (public/xen.h): no real domain has this number or a higher one.
const DOMID_FIRST_RESERVED: u16 = 0x7ff0;
/// How far behind the frame's start `cpu_info` may keep its current vCPU.
const MAX_CPU_INFO_BYTES: u32 = 512;
/// The least that a frame can be: fifteen registers and what an exception pushes.
const MIN_FRAME_BYTES: u32 = 168;
/// The current vCPU follows the frame and a word with the processor's number.
const MIN_CURRENT_VCPU: u32 = MIN_FRAME_BYTES + 8;
/// Where in `struct vcpu` its domain is looked for.
const MAX_VCPU_BYTES: u32 = 4096;
/// Where in `struct domain` its vCPU array is looked for: among its first fields.
const MAX_VCPUS_OFFSET: u32 = 512;
/// Size of a multicall entry: op, result, six arguments (public/xen.h, `multicall_entry`).
const MULTICALL_ENTRY_BYTES: usize = 64;

/// Why the layout was not confirmed or found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiscoverError {
    /// Memory that the layout says must be there is not.
    #[error("reading {what} failed: {error}")]
    Memory {
        /// What was read.
        what: &'static str,
        /// Why not.
        error: MemoryError,
    },
    /// A value that cannot stand in its field.
    #[error("{what} reads {value:#x}, which cannot be: the layout does not fit this Xen")]
    Implausible {
        /// The field.
        what: &'static str,
        /// What was read.
        value: u64,
    },
    /// Nothing behind the frame looks like a current vCPU of the expected domain.
    #[error("no vCPU of the hardware domain was found behind the frame at {frame:#x}")]
    NotFound {
        /// The frame that was looked behind.
        frame: Gva,
    },
}

/// Who a stopped physical CPU works for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// L1's number of the physical CPU.
    pub processor: u32,
    /// The `struct vcpu`.
    pub vcpu: Gva,
    /// The vCPU's number in its domain.
    pub vcpu_id: u32,
    /// The `struct domain`.
    pub domain: Gva,
    /// The domain's number.
    pub domain_id: u16,
}

/// Follows a layout from a guest frame to its domain, and checks every step.
///
/// # Errors
/// The first field that cannot be read, or whose value contradicts the others.
pub fn check_layout<M: PhysicalMemory>(
    memory: &VirtualMemory<M>,
    frame: Gva,
    layout: &Layout,
) -> Result<Running, DiscoverError> {
    let view = View(memory);
    let processor = view.small("cpu_info.processor_id", frame.offset(layout.processor_id.into()))?;
    let vcpu = view.pointer("cpu_info.current_vcpu", frame.offset(layout.current_vcpu.into()))?;
    let vcpu_id = view.small("vcpu.vcpu_id", vcpu.offset(layout.vcpu.vcpu_id.into()))?;
    let home = view.small("vcpu.processor", vcpu.offset(layout.vcpu.processor.into()))?;
    ensure("vcpu.processor", home.into(), home == processor)?;
    let domain = view.pointer("vcpu.domain", vcpu.offset(layout.vcpu.domain.into()))?;
    let domain_id = view.u32("domain.domain_id", domain.offset(layout.domain.domain_id.into()))? as u16;
    ensure("domain.domain_id", domain_id.into(), domain_id < DOMID_FIRST_RESERVED)?;
    if let Some(vcpus) = layout.domain.vcpus {
        let array = view.pointer("domain.vcpu", domain.offset(vcpus.into()))?;
        let back = view.pointer("domain.vcpu[]", array.offset(8 * u64::from(vcpu_id)))?;
        ensure("domain.vcpu[]", back.0, back == vcpu)?;
    }
    Ok(Running { processor, vcpu, vcpu_id, domain, domain_id })
}

/// Finds the layout at the first hypercall of the hardware domain (dom0).
///
/// `hardware_domain` is the address of Xen's variable of that name, if the symbols have it; without it the
/// domain is known by its number 0. `vcpu_id` and `domain_id` are taken as the first fields of their
/// structures, `processor` as the second, which the cross-checks confirm; what neither memory nor code
/// tells stays `None`.
///
/// # Errors
/// [`DiscoverError::NotFound`] if the frame does not belong to the hardware domain, or nothing fits.
pub fn discover_layout<M: PhysicalMemory>(
    memory: &VirtualMemory<M>,
    frame: Gva,
    hints: &LayoutHints,
    hardware_domain: Option<Gva>,
) -> Result<Layout, DiscoverError> {
    let view = View(memory);
    let dom0 = hardware_domain.map(|at| view.pointer("hardware_domain", at)).transpose()?;
    (MIN_CURRENT_VCPU..MAX_CPU_INFO_BYTES)
        .step_by(8)
        .map(|current| candidate(current, hints))
        .find_map(|candidate| view.complete(frame, candidate, hints, dom0))
        .ok_or(DiscoverError::NotFound { frame })
}

/// Finds `mc_state.call` at the first inner call of a multicall: where the copy of the guest's entry stands.
///
/// `state` are the first bytes behind RDI, `guest_entry` the entry as the guest wrote it. The result field
/// is not compared. `None` if the entry does not stand there exactly once.
#[must_use]
pub fn discover_multicall_call(state: &[u8], guest_entry: &[u8; MULTICALL_ENTRY_BYTES]) -> Option<u32> {
    let is_entry = |at: &usize| {
        let window = state.get(*at..at + MULTICALL_ENTRY_BYTES);
        window.is_some_and(|window| window[..8] == guest_entry[..8] && window[16..] == guest_entry[16..])
    };
    let mut found = (0..state.len()).step_by(8).filter(is_entry);
    let first = found.next()?;
    found.next().is_none().then_some(first as u32)
}

/// A layout with everything but the pointers between the structures.
fn candidate(current_vcpu: u32, hints: &LayoutHints) -> Layout {
    // cpu_info: the frame, two 32-bit words of which the first is processor_id, the current vCPU.
    let processor_id = current_vcpu - 8;
    let mut frame = FrameLayout::public_abi();
    frame.size = frame.size.min(processor_id);
    Layout {
        source: LayoutSource::Discovered,
        frame,
        processor_id,
        current_vcpu,
        vcpu: VcpuLayout { vcpu_id: 0, processor: 4, domain: 0, vmcb_pa: hints.vcpu_vmcb_pa },
        domain: DomainLayout {
            domain_id: 0,
            vcpus: None,
            options: hints.domain_options,
            emulation_flags: None,
            next_in_list: None,
            handle: None,
        },
        multicall_call: hints.multicall_call,
    }
}

fn ensure(what: &'static str, value: u64, holds: bool) -> Result<(), DiscoverError> {
    if holds { Ok(()) } else { Err(DiscoverError::Implausible { what, value }) }
}

/// Memory with the checks that every field gets.
struct View<'a, M>(&'a VirtualMemory<M>);

impl<M: PhysicalMemory> View<'_, M> {
    fn u32(&self, what: &'static str, at: Gva) -> Result<u32, DiscoverError> {
        self.0.read_u32(at).map_err(|error| DiscoverError::Memory { what, error })
    }

    /// A number of a CPU.
    fn small(&self, what: &'static str, at: Gva) -> Result<u32, DiscoverError> {
        let value = self.u32(what, at)?;
        ensure(what, value.into(), value < MAX_CPUS)?;
        Ok(value)
    }

    /// A pointer to something of L1's own: aligned, in the upper half, mapped.
    fn pointer(&self, what: &'static str, at: Gva) -> Result<Gva, DiscoverError> {
        let value = Gva(self.0.read_u64(at).map_err(|error| DiscoverError::Memory { what, error })?);
        let fits = value.is_canonical() && value.0 >> 63 == 1 && value.0.is_multiple_of(8);
        ensure(what, value.0, fits)?;
        self.0.translate(value).map_err(|error| DiscoverError::Memory { what, error })?;
        Ok(value)
    }

    /// Adds `vcpu.domain` and `domain.vcpu`, where they confirm the candidate's current vCPU.
    fn complete(
        &self,
        frame: Gva,
        mut layout: Layout,
        hints: &LayoutHints,
        dom0: Option<Gva>,
    ) -> Option<Layout> {
        let processor = self.small("", frame.offset(layout.processor_id.into())).ok()?;
        let vcpu = self.pointer("", frame.offset(layout.current_vcpu.into())).ok()?;
        let vcpu_id = self.small("", vcpu).ok()?;
        if self.u32("", vcpu.offset(4)).ok()? != processor {
            return None;
        }
        let anywhere = (8..MAX_VCPU_BYTES).step_by(8);
        let (offset, vcpus) = hints.vcpu_domain.into_iter().chain(anywhere).find_map(|offset| {
            let domain = self.pointer("", vcpu.offset(offset.into())).ok()?;
            let is_dom0 = match dom0 {
                Some(dom0) => domain == dom0,
                None => self.u32("", domain).ok()? as u16 == 0,
            };
            let vcpus = is_dom0.then(|| self.vcpu_array(domain, vcpu, vcpu_id)).flatten()?;
            Some((offset, vcpus))
        })?;
        layout.vcpu.domain = offset;
        layout.domain.vcpus = Some(vcpus);
        check_layout(self.0, frame, &layout).is_ok().then_some(layout)
    }

    /// The offset in the domain of a pointer to an array that leads back to the vCPU.
    fn vcpu_array(&self, domain: Gva, vcpu: Gva, vcpu_id: u32) -> Option<u32> {
        (8..MAX_VCPUS_OFFSET).step_by(8).find(|offset| {
            let array = self.pointer("", domain.offset(u64::from(*offset)));
            let back = array.and_then(|array| self.pointer("", array.offset(8 * u64::from(vcpu_id))));
            back == Ok(vcpu)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypovisor_machine::Gpa;
    use proptest::prelude::*;

    const BASE: u64 = 0xffff_8a00_0000_0000;
    const TABLES: u64 = 0x1_0000;
    const FRAME: u64 = 0x2f00;
    const VCPU: u64 = 0x4000;
    const DOMAIN: u64 = 0x6000;
    const ARRAY: u64 = 0x8000;
    const HARDWARE_DOMAIN: u64 = 0x9000;

    /// A little RAM, all of it mapped at `BASE` by one wide page.
    struct Machine(Vec<u8>);

    impl Machine {
        fn new(bytes: &[u8]) -> Self {
            let mut machine = Self(bytes.to_vec());
            machine.0.resize(0x1_2000, 0);
            machine.put(TABLES + 8 * ((BASE >> 39) & 0x1ff), (TABLES + 0x1000) | 3);
            machine.put(TABLES + 0x1000 + 8 * ((BASE >> 30) & 0x1ff), 0x83);
            machine
        }

        fn put(&mut self, at: u64, value: u64) {
            self.0[at as usize..at as usize + 8].copy_from_slice(&value.to_le_bytes());
        }

        fn memory(&self) -> VirtualMemory<&Self> {
            VirtualMemory::new(self, TABLES)
        }
    }

    impl PhysicalMemory for Machine {
        fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), MemoryError> {
            let start = usize::try_from(gpa.0).map_err(|_| MemoryError::NoRam(gpa))?;
            let bytes = self.0.get(start..start + buf.len()).ok_or(MemoryError::NoRam(gpa))?;
            buf.copy_from_slice(bytes);
            Ok(())
        }
    }

    /// vCPU 1 of dom0 on physical CPU 3, with offsets of no real Xen.
    fn stopped_in_dom0() -> Machine {
        let mut machine = Machine::new(&[]);
        machine.put(FRAME + 200, 3);
        machine.put(FRAME + 208, BASE + VCPU);
        machine.put(VCPU, 3 << 32 | 1);
        machine.put(VCPU + 0x28, BASE + ARRAY);
        machine.put(VCPU + 0x48, BASE + DOMAIN);
        machine.put(DOMAIN + 0x30, BASE + ARRAY);
        machine.put(ARRAY + 8, BASE + VCPU);
        machine.put(HARDWARE_DOMAIN, BASE + DOMAIN);
        machine
    }

    #[test]
    fn the_layout_is_found_with_and_without_help() {
        let machine = stopped_in_dom0();
        let known = Some(Gva(BASE + HARDWARE_DOMAIN));
        for hardware_domain in [known, None] {
            let hints = LayoutHints::default();
            let layout =
                discover_layout(&machine.memory(), Gva(BASE + FRAME), &hints, hardware_domain).unwrap();
            assert_eq!((layout.processor_id, layout.current_vcpu), (200, 208));
            assert_eq!((layout.vcpu.domain, layout.domain.vcpus), (0x48, Some(0x30)));
            let running = check_layout(&machine.memory(), Gva(BASE + FRAME), &layout).unwrap();
            assert_eq!((running.processor, running.vcpu_id, running.domain_id), (3, 1, 0));
            assert_eq!((running.vcpu, running.domain), (Gva(BASE + VCPU), Gva(BASE + DOMAIN)));
        }
    }

    #[test]
    fn another_domains_vcpu_is_not_taken_for_dom0s() {
        let mut machine = stopped_in_dom0();
        machine.put(HARDWARE_DOMAIN, BASE + VCPU);
        let known = Some(Gva(BASE + HARDWARE_DOMAIN));
        let found = discover_layout(&machine.memory(), Gva(BASE + FRAME), &LayoutHints::default(), known);
        assert_eq!(found, Err(DiscoverError::NotFound { frame: Gva(BASE + FRAME) }));
    }

    #[test]
    fn a_layout_that_is_off_by_a_word_is_refused() {
        let machine = stopped_in_dom0();
        let frame = Gva(BASE + FRAME);
        let right = discover_layout(&machine.memory(), frame, &LayoutHints::default(), None).unwrap();
        let wrongs: [fn(&mut Layout); 4] = [
            |layout| layout.current_vcpu += 8,
            |layout| layout.processor_id -= 8,
            |layout| layout.vcpu.domain -= 8,
            |layout| layout.domain.vcpus = Some(0x38),
        ];
        for wrong in wrongs {
            let mut layout = right.clone();
            wrong(&mut layout);
            assert!(check_layout(&machine.memory(), frame, &layout).is_err(), "{layout:?}");
        }
    }

    #[test]
    fn the_multicall_entry_is_found_by_its_content() {
        let mut entry = [0; 64];
        entry[0] = 20;
        entry[16] = 9;
        let mut state = vec![0; 128];
        state[24..88].copy_from_slice(&entry);
        state[24 + 8] = 0xee;
        assert_eq!(discover_multicall_call(&state, &entry), Some(24));
        assert_eq!(discover_multicall_call(&state[..80], &entry), None);
        assert_eq!(discover_multicall_call(&[0; 128], &[0; 64]), None);
    }

    proptest! {
        #[test]
        fn random_memory_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..0x4000), frame: u64) {
            let machine = Machine::new(&bytes);
            for frame in [Gva(BASE + FRAME), Gva(BASE + frame % 0x5000), Gva(frame)] {
                let _ = discover_layout(&machine.memory(), frame, &LayoutHints::default(), None);
            }
        }
    }
}
