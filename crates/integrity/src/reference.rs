//! What L1 was before it ran: the bytes that its file has for each address, and how the file names them.

use hypovisor_l1::{SymbolFile, SymbolTable};
use hypovisor_machine::Gva;

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// Its first address.
    pub(crate) start: Gva,
    /// The first behind it.
    pub(crate) end: Gva,
}

impl Range {
    pub(crate) const fn bytes(self) -> u64 {
        self.end.0.saturating_sub(self.start.0)
    }

    pub(crate) const fn contains(self, gva: Gva) -> bool {
        self.start.0 <= gva.0 && gva.0 < self.end.0
    }
}

/// The parts of an image, by the symbols of Xen's linker script (xen/arch/x86/xen.lds.S).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    /// Code.
    pub(crate) text: Range,
    /// Constants.
    pub(crate) constants: Range,
    /// The part of the constants that is set at boot.
    pub(crate) set_at_boot: Range,
    /// From the first byte to the last.
    pub(crate) image: Range,
}

/// A symbol that marks a part's border is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the symbols do not say where {0} is; use the xen-syms file of the debug package")]
pub struct NoBorder(pub(crate) &'static str);

impl Parts {
    fn find(symbols: &SymbolTable) -> Result<Self, NoBorder> {
        let at = |name: &'static str| symbols.address_of(name).ok_or(NoBorder(name));
        let range = |start, end| Ok(Range { start: at(start)?, end: at(end)? });
        Ok(Self {
            text: range("_stext", "_etext")?,
            constants: range("_srodata", "_erodata")?,
            set_at_boot: range("__ro_after_init_start", "__ro_after_init_end")?,
            image: range("_stext", "_end")?,
        })
    }
}

/// The file that L1 was made with.
pub struct Reference<'data> {
    pieces: Vec<(Gva, &'data [u8])>,
    symbols: &'data SymbolTable,
    parts: Parts,
}

impl<'data> Reference<'data> {
    /// Takes the bytes and the symbols of a symbols file.
    ///
    /// # Errors
    /// [`NoBorder`] if the file does not say where code and constants begin and end.
    pub fn new(file: &'data SymbolFile<'data>) -> Result<Self, NoBorder> {
        Self::of_pieces(file.loaded().collect(), file.symbols())
    }

    pub(crate) fn of_pieces(
        pieces: Vec<(Gva, &'data [u8])>,
        symbols: &'data SymbolTable,
    ) -> Result<Self, NoBorder> {
        Ok(Self { pieces, symbols, parts: Parts::find(symbols)? })
    }

    /// The symbols.
    #[must_use]
    pub const fn symbols(&self) -> &'data SymbolTable {
        self.symbols
    }

    pub(crate) const fn parts(&self) -> &Parts {
        &self.parts
    }

    /// The bytes of an address and of those behind it, as far as the file has them in one piece.
    pub(crate) fn from(&self, gva: Gva) -> Option<&'data [u8]> {
        self.pieces.iter().find_map(|(start, bytes)| {
            let into = usize::try_from(gva.0.checked_sub(start.0)?).ok()?;
            bytes.get(into..).filter(|rest| !rest.is_empty())
        })
    }

    /// So many bytes of an address.
    pub(crate) fn bytes(&self, gva: Gva, len: usize) -> Option<&'data [u8]> {
        self.from(gva)?.get(..len)
    }

    /// All bytes of a range.
    pub(crate) fn range(&self, range: Range) -> Option<&'data [u8]> {
        self.bytes(range.start, usize::try_from(range.bytes()).ok()?)
    }

    /// The range between two symbols.
    pub(crate) fn between(&self, start: &'static str, end: &'static str) -> Option<Range> {
        Some(Range { start: self.symbols.address_of(start)?, end: self.symbols.address_of(end)? })
    }

    /// An address by name, such as `do_sched_op+0x10`.
    #[must_use]
    pub fn name(&self, gva: Gva) -> String {
        match self.symbols.lookup(gva).filter(|_| self.parts.image.contains(gva)) {
            Some((symbol, 0)) => symbol.bare_name().to_owned(),
            Some((symbol, into)) => format!("{}+{into:#x}", symbol.bare_name()),
            None => format!("{gva:#x}"),
        }
    }

    /// Whether a function of L1 begins here.
    pub(crate) fn is_function(&self, gva: Gva) -> bool {
        self.parts.text.contains(gva) && self.symbols.lookup(gva).is_some_and(|(_, into)| into == 0)
    }
}
