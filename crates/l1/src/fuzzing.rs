//! What the fuzz targets and the tests that replay their seeds hold of images and symbol files. Each says how far
//! its bytes got.

use hypovisor_machine::Gva;

use crate::{BuildId, Image, Profile, SymbolFile, embedded};

/// Any bytes are a boot image or an error, and an image is a Xen or an error: its hooks lie inside it.
///
/// # Panics
/// When they do not.
#[must_use]
pub fn xen_image(data: &[u8]) -> Option<Profile> {
    let image = Image::from_file(data).ok()?;
    let _ = BuildId::find(image.bytes());
    let (profile, symbols) = Profile::build(&image, None).ok()?;
    for hook in profile.hooks.pv.iter().chain(&profile.hooks.hvm).chain(&profile.hooks.multicall) {
        assert!(image.contains(hook.entry.address) && !hook.results.is_empty());
        let _ = symbols.lookup(hook.entry.address);
    }
    Some(profile)
}

/// Any bytes hold a symbol table or none; all symbols of one can be looked up. Says how many there are.
///
/// # Panics
/// When one cannot.
#[must_use]
pub fn symbol_table(data: &[u8]) -> Option<usize> {
    let table = embedded::find(data)?;
    let symbols = table.symbols(Gva(0xffff_82d0_4000_0000));
    for symbol in symbols.symbols() {
        let found = symbols.lookup(symbol.address);
        assert!(found.is_some_and(|(found, offset)| offset == 0 && found.address == symbol.address));
        assert!(symbols.named(&symbol.name).next().is_some());
    }
    Some(table.len())
}

/// Any bytes are a symbol file or an error, and its DWARF tells the layout or an error.
#[must_use]
pub fn symbol_file(data: &[u8]) -> Option<bool> {
    let file = SymbolFile::parse(data).ok()?;
    let _ = (file.build_id(), file.symbols().address_of("pv_hypercall"));
    Some(matches!(file.layout(), Ok(Some(_))))
}
