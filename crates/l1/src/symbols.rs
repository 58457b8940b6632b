//! Names and addresses of L1's functions and variables, looked up both ways.
//!
//! Xen qualifies a file-local symbol with its file, `domain.c#vcpu_teardown`, in the table it embeds; an ELF
//! symbol table has the bare name. Lookups use the bare name, and refuse to guess when it is not unique.

use hypovisor_machine::Gva;

/// What kind of thing a symbol names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SymbolKind {
    /// Code: a function, or a label in assembly.
    Text,
    /// Anything that is not code.
    Data,
}

/// One named address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Where it stands.
    pub address: Gva,
    /// Code or data.
    pub kind: SymbolKind,
    /// Whether other files of the program can see it.
    pub global: bool,
    /// Size in bytes, 0 when the source does not say.
    pub size: u64,
    /// The name as its source has it, possibly qualified with a file.
    pub name: String,
}

impl Symbol {
    /// The name without the file that qualifies it.
    #[must_use]
    pub fn bare_name(&self) -> &str {
        bare(&self.name)
    }
}

fn bare(name: &str) -> &str {
    name.rsplit_once('#').map_or(name, |(_, bare)| bare)
}

/// All symbols of one image.
#[derive(Clone, Debug, Default)]
pub struct SymbolTable {
    /// By address; at one address the best name for display comes first.
    symbols: Vec<Symbol>,
    /// Indices into `symbols`, by bare name.
    by_name: Vec<u32>,
}

impl SymbolTable {
    /// Builds the two indices. Symbols without a name are dropped, as is what lies beyond 2^32 symbols.
    #[must_use]
    pub fn new(symbols: impl IntoIterator<Item = Symbol>) -> Self {
        let mut symbols: Vec<Symbol> = symbols.into_iter().filter(|s| !s.name.is_empty()).collect();
        symbols.truncate(u32::MAX as usize);
        symbols.sort_by(|a, b| display_order(a).cmp(&display_order(b)));
        let mut by_name: Vec<u32> = (0..symbols.len() as u32).collect();
        by_name.sort_by_key(|index| symbols[*index as usize].bare_name());
        Self { symbols, by_name }
    }

    /// The symbols by ascending address.
    #[must_use]
    pub fn symbols(&self) -> &[Symbol] {
        &self.symbols
    }

    /// All symbols with this bare name.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Symbol> {
        let wanted = bare(name);
        let start = self.by_name.partition_point(|index| self.at(*index).bare_name() < wanted);
        let from = self.by_name.get(start..).unwrap_or_default();
        let same = from.iter().map(|index| self.at(*index)).take_while(move |s| s.bare_name() == wanted);
        same.filter(move |symbol| !name.contains('#') || symbol.name == name)
    }

    /// The address a name stands for: the global symbol of that name, else the only local one.
    ///
    /// `None` also when several file-local symbols share the name; qualify it, or use [`Self::named`].
    #[must_use]
    pub fn address_of(&self, name: &str) -> Option<Gva> {
        if let Some(global) = self.named(name).find(|symbol| symbol.global) {
            return Some(global.address);
        }
        let first = self.named(name).next()?.address;
        self.named(name).all(|symbol| symbol.address == first).then_some(first)
    }

    /// The symbol at or below `address`, and how far into it the address is.
    #[must_use]
    pub fn lookup(&self, address: Gva) -> Option<(&Symbol, u64)> {
        let end = self.symbols.partition_point(|symbol| symbol.address <= address);
        let nearest = self.symbols.get(end.checked_sub(1)?)?.address;
        let start = self.symbols.partition_point(|symbol| symbol.address < nearest);
        self.symbols.get(start).map(|symbol| (symbol, address.0 - nearest.0))
    }

    fn at(&self, index: u32) -> &Symbol {
        &self.symbols[index as usize]
    }
}

/// At one address: code before data, global before local, then by name, so that two sources show the same name.
fn display_order(symbol: &Symbol) -> (Gva, SymbolKind, bool, &str) {
    (symbol.address, symbol.kind, !symbol.global, symbol.bare_name())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(address: u64, name: &str, global: bool) -> Symbol {
        Symbol { address: Gva(address), kind: SymbolKind::Text, global, size: 0, name: name.to_owned() }
    }

    fn table() -> SymbolTable {
        SymbolTable::new([
            symbol(0x30, "b.c#same", false),
            symbol(0x10, "a.c#same", false),
            symbol(0x20, "one", true),
            symbol(0x20, "alias", false),
            symbol(0x40, "c.c#lone", false),
        ])
    }

    #[test]
    fn names_lead_to_addresses_unless_ambiguous() {
        let table = table();
        assert_eq!(table.address_of("one"), Some(Gva(0x20)));
        assert_eq!(table.address_of("lone"), Some(Gva(0x40)));
        assert_eq!(table.address_of("same"), None);
        assert_eq!(table.address_of("a.c#same"), Some(Gva(0x10)));
        assert_eq!(table.address_of("absent"), None);
        assert_eq!(table.named("same").count(), 2);
    }

    #[test]
    fn addresses_lead_to_the_name_fit_for_display() {
        let table = table();
        let (found, offset) = table.lookup(Gva(0x25)).unwrap();
        assert_eq!((found.name.as_str(), offset), ("one", 5));
        assert_eq!(table.lookup(Gva(0x0f)), None);
        assert_eq!(SymbolTable::default().lookup(Gva(1)), None);
    }
}
