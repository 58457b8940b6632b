//! Symbols from a file: `xen-syms`, the ELF64 that Xen's build links before it is wrapped for the boot loader.
//!
//! Distributions ship it as a debug package (`/usr/lib/debug/boot/xen-syms-*`). It has a symbol table, often a
//! build id, and in some distributions DWARF.

use std::borrow::Cow;
use std::collections::HashMap;

use hypovisor_machine::Gva;
use object::elf::{SHF_ALLOC, SHF_EXECINSTR, STB_LOCAL, STT_FILE, STT_SECTION, SymbolSection};
use object::read::elf::{ElfFile64, SectionHeader, Sym};
use object::{Object, ObjectSection};

use crate::dwarf::{self, DwarfError};
use crate::{BuildId, Layout, Symbol, SymbolKind, SymbolTable};

type Elf<'data> = ElfFile64<'data, object::LittleEndian>;

/// Why a file gives no symbols.
#[derive(Debug, thiserror::Error)]
pub enum SymbolFileError {
    /// Not a little-endian ELF64 file, or a broken one.
    #[error("not an ELF64 symbol file: {0}")]
    Elf(#[from] object::read::Error),
    /// Stripped.
    #[error("the file has no symbol table; use the xen-syms file of the debug package")]
    NoSymbols,
}

/// A parsed symbols file.
pub struct SymbolFile<'data> {
    elf: Elf<'data>,
    symbols: SymbolTable,
    build_id: Option<BuildId>,
}

impl<'data> SymbolFile<'data> {
    /// Reads the symbol table and the build id; DWARF is left for [`Self::layout`].
    ///
    /// # Errors
    /// When the file is no ELF64, is broken, or is stripped.
    pub fn parse(file: &'data [u8]) -> Result<Self, SymbolFileError> {
        let elf = Elf::parse(file)?;
        let symbols = SymbolTable::new(elf_symbols(&elf));
        if symbols.symbols().is_empty() {
            return Err(SymbolFileError::NoSymbols);
        }
        let build_id = elf.build_id().ok().flatten().and_then(BuildId::from_descriptor);
        Ok(Self { elf, symbols, build_id })
    }

    /// The symbols.
    #[must_use]
    pub const fn symbols(&self) -> &SymbolTable {
        &self.symbols
    }

    /// Which link the file came from, if it says.
    #[must_use]
    pub const fn build_id(&self) -> Option<&BuildId> {
        self.build_id.as_ref()
    }

    /// The structure layout from DWARF; `None` if the file has no DWARF.
    ///
    /// # Errors
    /// When there is DWARF, but it is broken or lacks one of the structures needed.
    pub fn layout(&self) -> Result<Option<Layout>, DwarfError> {
        if !self.has_dwarf() {
            return Ok(None);
        }
        dwarf::layout(|name| self.section(name)).map(Some)
    }

    /// Offsets in bytes of these members (a structure's name, the paths of its members), by structure and path, and the
    /// structure's size under an empty path. What the file does not describe is absent.
    ///
    /// # Errors
    /// When there is DWARF, but it is broken.
    pub fn offsets(
        &self,
        wanted: &'static [(&'static str, &'static [&'static str])],
    ) -> Result<HashMap<(&'static str, &'static str), u32>, DwarfError> {
        if !self.has_dwarf() {
            return Ok(HashMap::new());
        }
        dwarf::offsets(|name| self.section(name), wanted)
    }

    /// What the file loads, where: code, constants, and variables as they are before the first instruction. Without what is
    /// zero then.
    pub fn loaded(&self) -> impl Iterator<Item = (Gva, &'data [u8])> {
        let loaded = self.elf.sections().filter(|section| {
            let header = section.elf_section_header();
            header.sh_flags(self.elf.endian()).contains(SHF_ALLOC)
        });
        loaded.filter_map(|section| Some((Gva(section.address()), section.data().ok()?)))
    }

    fn has_dwarf(&self) -> bool {
        self.elf.section_by_name(".debug_info").is_some()
    }

    fn section(&self, name: &str) -> Option<Cow<'data, [u8]>> {
        self.elf.section_by_name(name)?.uncompressed_data().ok()
    }
}

fn elf_symbols<'a>(elf: &'a Elf<'_>) -> impl Iterator<Item = Symbol> + 'a {
    let endian = elf.endian();
    let table = elf.elf_symbol_table();
    table.iter().filter_map(move |symbol| {
        if matches!(symbol.st_type(), STT_FILE | STT_SECTION) || symbol.is_undefined(endian) {
            return None;
        }
        let name = std::str::from_utf8(table.symbol_name(endian, symbol).ok()?).ok()?;
        Some(Symbol {
            address: Gva(symbol.st_value(endian)),
            kind: kind_of(elf, symbol.st_shndx(endian)),
            global: symbol.st_bind() != STB_LOCAL,
            size: symbol.st_size(endian),
            name: name.to_owned(),
        })
    })
}

/// Code is what stands in an executable section.
fn kind_of(elf: &Elf<'_>, section: SymbolSection) -> SymbolKind {
    let section = elf.section_by_index(object::SectionIndex(usize::from(section.0)));
    match section.map(|section| section.elf_section_header().sh_flags(elf.endian())) {
        Ok(flags) if flags.contains(SHF_EXECINSTR) => SymbolKind::Text,
        _ => SymbolKind::Data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn random_files_are_refused_quietly(mut bytes in proptest::collection::vec(any::<u8>(), 0..1024), magic: bool) {
            if magic && bytes.len() > 64 {
                bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
                bytes[52..54].copy_from_slice(&64u16.to_le_bytes());
            }
            if let Ok(file) = SymbolFile::parse(&bytes) {
                let _ = file.layout();
            }
        }
    }
}
