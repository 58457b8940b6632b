//! Profiles of real Xen builds, as Debian ships them.
//!
//! The packages come from the lab's cache (`hypovisor lab fetch`), or from unpacked package trees named in
//! `HYPOVISOR_XEN_TREES` (separated by colons). Without any the tests fail: they must not pass unseen.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test helper may fail its test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Instant;

use hypovisor_l1::{
    CodeMap, Image, LayoutSource, Profile, ProfileError, SymbolFile, SymbolKind, SymbolSource, embedded,
};
use hypovisor_machine::{Gpa, Gva, MemoryError, PhysicalMemory, VirtualMemory};

struct Xen {
    name: String,
    image_file: Vec<u8>,
    symbols_path: String,
    symbols_file: Vec<u8>,
}

impl Xen {
    fn image(&self) -> Image {
        Image::from_file(&self.image_file).unwrap()
    }

    fn with_file(&self) -> Profile {
        Profile::build(&self.image(), Some((&self.symbols_path, &self.symbols_file))).unwrap().0
    }

    fn embedded(&self) -> Profile {
        Profile::build(&self.image(), None).unwrap().0
    }
}

/// Every distinct Xen that is at hand with its symbols file.
fn xens() -> &'static [Xen] {
    static XENS: OnceLock<Vec<Xen>> = OnceLock::new();
    XENS.get_or_init(|| {
        let mut images = Vec::new();
        for root in roots() {
            collect(&root, 8, &mut images);
        }
        let mut by_name = BTreeMap::new();
        for image in images {
            if let Some(xen) = load(&image) {
                by_name.entry(xen.name.clone()).or_insert(xen);
            }
        }
        assert!(!by_name.is_empty(), "no Xen with symbols in {:?}; run `hypovisor lab fetch`", roots());
        by_name.into_values().collect()
    })
}

fn roots() -> Vec<PathBuf> {
    let trees = std::env::var_os("HYPOVISOR_XEN_TREES").unwrap_or_default();
    let lab = std::env::var_os("HYPOVISOR_LAB_DIR").map(PathBuf::from);
    let lab = lab.or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")));
        Some(cache?.join("hypovisor/lab"))
    });
    std::env::split_paths(&trees).filter(|path| !path.as_os_str().is_empty()).chain(lab).collect()
}

/// Finds `boot/xen-*.gz` below a directory, without following links.
fn collect(directory: &Path, depth: u32, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if depth > 0 {
                collect(&path, depth - 1, found);
            }
        } else if directory.ends_with("boot") && name.starts_with("xen-") && name.ends_with(".gz") {
            found.push(path);
        }
    }
}

fn load(image: &Path) -> Option<Xen> {
    let name = image.file_name()?.to_str()?.strip_suffix(".gz")?.to_owned();
    let symbols = format!("xen-syms-{}", name.strip_prefix("xen-")?);
    let symbols = image.parent()?.parent()?.join("usr/lib/debug/boot").join(symbols);
    let symbols_file = std::fs::read(&symbols).ok()?;
    let symbols_path = symbols.display().to_string();
    Some(Xen { name, image_file: std::fs::read(image).ok()?, symbols_path, symbols_file })
}

#[test]
fn the_embedded_table_agrees_with_the_symbols_file() {
    for xen in xens() {
        let image = xen.image();
        let embedded = embedded::find(image.bytes()).expect("an embedded table").symbols(image.region());
        let file = SymbolFile::parse(&xen.symbols_file).unwrap();
        let mut common = 0;
        for symbol in embedded.symbols().iter().filter(|symbol| symbol.kind == SymbolKind::Text) {
            let mut same_name = file.symbols().named(symbol.bare_name()).peekable();
            if same_name.peek().is_none() {
                continue;
            }
            common += 1;
            let agrees = same_name.any(|other| other.address == symbol.address);
            assert!(agrees, "{}: {} at {:#x}", xen.name, symbol.name, symbol.address);
        }
        println!(
            "{}: {} embedded symbols, {common} text symbols in common",
            xen.name,
            embedded.symbols().len()
        );
        assert!(common > 3000, "{}: only {common} text symbols in common", xen.name);
        assert_eq!(embedded.address_of("hardware_domain"), file.symbols().address_of("hardware_domain"));
    }
}

#[test]
fn both_symbol_sources_give_the_same_profile() {
    for xen in xens() {
        let (file, embedded) = (xen.with_file(), xen.embedded());
        println!("{}", serde_json::to_string_pretty(&file).unwrap());
        assert_eq!(file.hooks, embedded.hooks, "{}", xen.name);
        assert_eq!(file.hints, embedded.hints, "{}", xen.name);
        assert_eq!(file.hardware_domain, embedded.hardware_domain, "{}", xen.name);
        assert_eq!(embedded.symbols, SymbolSource::Embedded);
        assert!(file.build_id.is_some() && file.version.is_some(), "{}", xen.name);
        assert!(xen.name.contains(&file.version.clone().unwrap()[..4]), "{}: {:?}", xen.name, file.version);
    }
}

#[test]
fn hooks_leave_no_way_around() {
    for xen in xens() {
        let hooks = xen.embedded().hooks;
        let (pv, hvm) = (hooks.pv.unwrap(), hooks.hvm.unwrap());
        assert!(pv.results.iter().any(|site| site.name.starts_with("lstar_enter+")), "{:?}", pv.results);
        assert!(
            hvm.results.iter().any(|site| site.name.starts_with("svm_vmexit_handler+")),
            "{:?}",
            hvm.results
        );
        assert!(
            hvm.results.iter().any(|site| site.name.starts_with("vmx_vmexit_handler+")),
            "{:?}",
            hvm.results
        );
        assert_eq!(hooks.multicall.len(), 1);
        let inner = &hooks.multicall[0];
        assert!(
            inner.results.iter().any(|site| site.name.starts_with("do_multicall+")),
            "{:?}",
            inner.results
        );
        for hook in [&pv, &hvm, inner] {
            assert_eq!((hook.address_taken.len(), hook.unfollowed.len()), (0, 0), "{}: {hook:?}", xen.name);
        }
        assert!(
            hooks.vm_entries.iter().any(|entry| entry.instruction.name.starts_with("svm_asm_do_resume+"))
        );
    }
}

#[test]
fn dwarf_agrees_with_what_the_code_gives_away() {
    let mut with_dwarf = 0;
    for xen in xens() {
        let profile = xen.with_file();
        let Some(layout) = profile.layout else { continue };
        with_dwarf += 1;
        assert_eq!(layout.source, LayoutSource::Dwarf);
        assert_eq!(profile.hints.vcpu_domain, Some(layout.vcpu.domain), "{}", xen.name);
        assert_eq!(profile.hints.domain_options, layout.domain.options, "{}", xen.name);
        assert_eq!(profile.hints.multicall_call, layout.multicall_call, "{}", xen.name);
        assert_eq!(profile.hints.vcpu_vmcb_pa, layout.vcpu.vmcb_pa, "{}", xen.name);
        assert!(layout.processor_id >= layout.frame.size && layout.current_vcpu > layout.processor_id);
        assert!(layout.domain.emulation_flags.is_some() && layout.domain.next_in_list.is_some());
        assert!(layout.domain.handle.is_some() && layout.domain.vcpus.is_some());
    }
    assert!(with_dwarf > 0, "none of the Xens at hand has DWARF; run `hypovisor lab fetch`");
}

#[test]
fn a_profile_survives_json() {
    for xen in xens() {
        let profile = xen.with_file();
        let text = serde_json::to_string(&profile).unwrap();
        assert_eq!(serde_json::from_str::<Profile>(&text).unwrap(), profile);
    }
}

#[test]
fn a_file_of_another_build_is_refused() {
    let xens = xens();
    let xen = &xens[0];
    // The build id's last byte in the file changed: same symbols, another build.
    let id = SymbolFile::parse(&xen.symbols_file).unwrap().build_id().unwrap().clone();
    let mut other = xen.symbols_file.clone();
    let at = other.windows(20).position(|window| window == id.as_bytes()).unwrap();
    other[at] ^= 0xff;
    let error = Profile::build(&xen.image(), Some(("xen-syms", &other))).unwrap_err();
    assert!(error.to_string().starts_with("symbol file xen-syms is of another build ("), "{error}");
    // Without its build id the code still gives a foreign file away.
    if let Some(foreign) = xens.get(1) {
        let id = SymbolFile::parse(&foreign.symbols_file).unwrap().build_id().unwrap().clone();
        let mut anonymous = foreign.symbols_file.clone();
        let at = anonymous.windows(20).position(|window| window == id.as_bytes()).unwrap();
        anonymous[at - 4..at].fill(0);
        let error = Profile::build(&xen.image(), Some(("xen-syms", &anonymous))).unwrap_err();
        assert!(matches!(error, ProfileError::WrongBuild { .. }), "{error}");
        println!("{error}");
    }
}

/// RAM with page tables that map an image as Xen's boot code does, in 2 MiB pages, moved elsewhere physically.
struct BootedXen {
    ram: Vec<u8>,
}

const TABLES: u64 = 0x1000;
const LOADED_AT: u64 = 4 << 20;

impl BootedXen {
    fn new(image: &Image) -> Self {
        let wide = 2u64 << 20;
        let lead = image.base().0 % wide;
        let size = (lead + image.bytes().len() as u64).next_multiple_of(wide);
        let mut ram = vec![0; (LOADED_AT + size) as usize];
        let start = (LOADED_AT + lead) as usize;
        ram[start..start + image.bytes().len()].copy_from_slice(image.bytes());
        let mut put =
            |at: u64, value: u64| ram[at as usize..at as usize + 8].copy_from_slice(&value.to_le_bytes());
        let base = image.base().0;
        put(TABLES + 8 * ((base >> 39) & 0x1ff), (TABLES + 0x1000) | 3);
        put(TABLES + 0x1000 + 8 * ((base >> 30) & 0x1ff), (TABLES + 0x2000) | 3);
        for page in 0..size / wide {
            let slot = ((base >> 21) & 0x1ff) + page;
            put(TABLES + 0x2000 + 8 * slot, (LOADED_AT + page * wide) | 0x83);
        }
        Self { ram }
    }
}

impl PhysicalMemory for BootedXen {
    fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), MemoryError> {
        let start = usize::try_from(gpa.0).map_err(|_| MemoryError::NoRam(gpa))?;
        let end = start.checked_add(buf.len()).ok_or(MemoryError::NoRam(gpa))?;
        buf.copy_from_slice(self.ram.get(start..end).ok_or(MemoryError::NoRam(gpa))?);
        Ok(())
    }
}

#[test]
fn memory_gives_the_same_profile_as_the_file() {
    for xen in xens() {
        let file = xen.image();
        let booted = BootedXen::new(&file);
        let memory = VirtualMemory::new(&booted, TABLES);
        let from_file = xen.embedded();
        let rip = from_file.hooks.pv.as_ref().unwrap().entry.address;
        let image = Image::from_memory(&memory, rip).unwrap();
        assert_eq!(image.physical(file.base()), Some(Gpa(LOADED_AT + file.base().0 % (2 << 20))));
        let (profile, symbols) = Profile::build(&image, None).unwrap();
        assert_eq!(profile.hooks, from_file.hooks, "{}", xen.name);
        assert_eq!((profile.build_id, profile.version), (from_file.build_id, from_file.version));
        assert_eq!(symbols.lookup(rip).unwrap().0.name, "pv_hypercall");
    }
}

#[test]
fn other_code_is_not_xen() {
    let noise: Vec<u8> = (0..1u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let mut ram = vec![0; (LOADED_AT + (2 << 20)) as usize];
    ram[LOADED_AT as usize..][..noise.len()].copy_from_slice(&noise);
    let base = 0xffff_ffff_8000_0000u64;
    let entries = [
        (base >> 39 & 0x1ff, 0x2003u64, 0),
        (base >> 30 & 0x1ff, 0x3003, 0x1000),
        (0, LOADED_AT | 0x83, 0x2000),
    ];
    for (slot, value, table) in entries {
        let at = (TABLES + table + 8 * slot) as usize;
        ram[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    let machine = BootedXen { ram };
    let image = Image::from_memory(&VirtualMemory::new(&machine, TABLES), Gva(base)).unwrap();
    let error = Profile::build(&image, None).unwrap_err();
    assert!(matches!(error, ProfileError::NotXen { .. }), "{error}");
}

#[test]
fn truncations_of_real_files_never_panic() {
    for xen in xens() {
        let image = xen.image();
        for part in 0..24 {
            let cut = |file: &[u8]| file[..file.len() * part / 24].to_vec();
            let _ = Image::from_file(&cut(&xen.image_file));
            let _ = embedded::find(&cut(image.bytes()));
            if let Ok(file) = SymbolFile::parse(&cut(&xen.symbols_file)) {
                let _ = file.layout();
            }
        }
        // The same with every 9973rd byte replaced: the headers stay, what they lead to is noise.
        let mut noisy = xen.symbols_file.clone();
        noisy.iter_mut().skip(0x1000).step_by(9973).for_each(|byte| *byte = !*byte);
        if let Ok(file) = SymbolFile::parse(&noisy) {
            let _ = file.layout();
        }
    }
}

#[test]
fn each_step_takes_well_under_two_seconds() {
    for xen in xens() {
        let mut last = Instant::now();
        let mut lap = |what: &str| {
            println!("{}: {what} {:?}", xen.name, last.elapsed());
            assert!(last.elapsed().as_secs() < 2, "{what}");
            last = Instant::now();
        };
        let image = xen.image();
        lap("image from .gz");
        let table = embedded::find(image.bytes()).unwrap();
        lap("embedded table found");
        let symbols = table.symbols(image.region());
        lap("embedded symbols indexed");
        let code = CodeMap::build(&image, &symbols);
        lap("code map");
        println!("{}: calls on symbols {:?}", xen.name, code.agreement());
        let file = SymbolFile::parse(&xen.symbols_file).unwrap();
        lap("symbols file");
        let _ = file.layout().unwrap();
        lap("DWARF");
        let _ = xen.embedded();
        lap("whole profile, embedded");
        let _ = xen.with_file();
        lap("whole profile, symbols file");
    }
}

/// A dom0 vCPU stopped in a hypercall, laid out as DWARF says, for a discovery that does not know DWARF.
#[test]
fn discovery_finds_what_dwarf_says() {
    const BASE: u64 = 0xffff_8300_0000_0000;
    let (frame, vcpu, domain, array, variable) = (0x7ef8u64, 0xa000u64, 0xc000u64, 0xe000u64, 0xf000u64);
    for xen in xens() {
        let (dwarf, mut profile) = (xen.with_file(), xen.embedded());
        let Some(expected) = dwarf.layout else { continue };
        let mut ram = vec![0; 0x1_0000];
        let mut put =
            |at: u64, value: u64| ram[at as usize..at as usize + 8].copy_from_slice(&value.to_le_bytes());
        put(TABLES + 8 * ((BASE >> 39) & 0x1ff), (TABLES + 0x1000) | 3);
        put(TABLES + 0x1000 + 8 * ((BASE >> 30) & 0x1ff), 0x83);
        put(frame + u64::from(expected.processor_id), 1);
        put(frame + u64::from(expected.current_vcpu), BASE + vcpu);
        put(vcpu + u64::from(expected.vcpu.vcpu_id), 2 | 1 << 32);
        put(vcpu + u64::from(expected.vcpu.domain), BASE + domain);
        put(domain + u64::from(expected.domain.vcpus.unwrap()), BASE + array);
        put(array + 16, BASE + vcpu);
        put(variable, BASE + domain);
        profile.hardware_domain = Some(Gva(BASE + variable));
        let machine = BootedXen { ram };
        let running =
            profile.settle_layout(&VirtualMemory::new(&machine, TABLES), Gva(BASE + frame)).unwrap();
        assert_eq!((running.processor, running.vcpu_id, running.domain_id), (1, 2, 0), "{}", xen.name);
        let found = profile.layout.unwrap();
        assert_eq!((found.frame, found.vcpu), (expected.frame, expected.vcpu), "{}", xen.name);
        assert_eq!((found.processor_id, found.current_vcpu), (expected.processor_id, expected.current_vcpu));
        assert_eq!(
            (found.domain.vcpus, found.domain.options),
            (expected.domain.vcpus, expected.domain.options)
        );
        assert_eq!(found.multicall_call, expected.multicall_call, "{}", xen.name);
    }
}
