//! The compressed symbol table that every Xen image carries, found without any symbol.
//!
//! Xen's build places it in the read-only data, for its own stack traces and for live patching
//! (`xen/tools/symbols.c` writes it, `xen/common/symbols.c` reads it; the scheme is Linux's kallsyms):
//!
//! ```text
//!   symbols_offsets      u32 x n      address of symbol i, minus the start of Xen's region; ascending
//!                     or u64 x n      (symbols_addresses) whole addresses
//!   symbols_num_syms     u32          n
//!   symbols_names        n entries    a length byte, then that many token numbers
//!   symbols_markers      u32 x n/256  where entry 0, 256, 512, ... of the names begins
//!   symbols_token_table  256 strings  NUL-terminated
//!   symbols_token_index  u16 x 256    where each string begins in the token table
//! ```
//!
//! The search starts with the most telling piece, the token index, which fixes the token table; in front of
//! that lie the markers, and the markers prove the names. Each piece is verified by the next, so that a
//! chance match of one does not survive. An expanded entry is a type letter as in `nm` (capital: global)
//! and the name.
//!
//! Offsets are returned as offsets: which address they are relative to is settled by
//! [`crate::CodeMap::agreement`].

use std::cell::Cell;

use hypovisor_machine::Gva;

use crate::{Symbol, SymbolKind, SymbolTable};

/// Number of tokens; a token number is one byte.
const TOKENS: usize = 256;
/// Number of names between two markers.
const NAMES_PER_MARKER: usize = 256;
/// Alignment gaps that assemblers leave between the pieces are shorter than this.
const MAX_PADDING: usize = 32;
/// Bounds the work on a hostile image; Xen has about 8,000 symbols.
const MAX_SYMBOLS: usize = 1 << 18;
/// Xen's own bound is 127 (`KSYM_NAME_LEN`); file-qualified names may grow.
const MAX_NAME_BYTES: usize = 512;
/// How many places that look like a token index are followed up.
const MAX_CANDIDATES: usize = 64;
/// How many places are tried and names walked over in all candidates together; a real table takes its own number
/// of names, and less than a hundred thousand places.
const MAX_STEPS: usize = 1 << 24;

/// The embedded table, with addresses as the image has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddedTable {
    entries: Vec<(u64, String)>,
    absolute: bool,
}

/// Searches the bytes of an image for its symbol table.
#[must_use]
pub fn find(image: &[u8]) -> Option<EmbeddedTable> {
    let budget = Budget(Cell::new(MAX_STEPS));
    token_indices(image).take(MAX_CANDIDATES).find_map(|at| at_token_index(image, at, &budget))
}

/// The work left, shared by all candidates of one search.
struct Budget(Cell<usize>);

impl Budget {
    fn spend(&self, steps: usize) -> Option<()> {
        self.0.set(self.0.get().checked_sub(steps)?);
        Some(())
    }
}

impl EmbeddedTable {
    /// Number of symbols.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no symbols; never true of a table that was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether the addresses are whole ones, so that no origin is needed.
    #[must_use]
    pub const fn is_absolute(&self) -> bool {
        self.absolute
    }

    /// The symbols, with `origin` added to every offset.
    #[must_use]
    pub fn symbols(&self, origin: Gva) -> SymbolTable {
        let origin = if self.absolute { Gva(0) } else { origin };
        SymbolTable::new(
            self.entries.iter().filter_map(|(offset, entry)| to_symbol(origin.offset(*offset), entry)),
        )
    }
}

fn to_symbol(address: Gva, entry: &str) -> Option<Symbol> {
    let letter = entry.chars().next().filter(char::is_ascii_alphabetic)?;
    let is_text = matches!(letter, 't' | 'T' | 'w' | 'W');
    let kind = if is_text { SymbolKind::Text } else { SymbolKind::Data };
    let global = letter.is_ascii_uppercase();
    Some(Symbol { address, kind, global, size: 0, name: entry[1..].to_owned() })
}

/// Positions of 256 ascending 16-bit numbers that start at 0.
fn token_indices(image: &[u8]) -> impl Iterator<Item = usize> + '_ {
    let last = image.len().saturating_sub(2 * TOKENS - 1);
    (0..last).step_by(2).filter(|at| {
        let at_index = |index: usize| u16_at(image, at + 2 * index).unwrap_or(0);
        at_index(0) == 0 && (1..TOKENS).all(|index| at_index(index) > at_index(index - 1))
    })
}

fn at_token_index(image: &[u8], index_at: usize, budget: &Budget) -> Option<EmbeddedTable> {
    let index: Vec<usize> =
        (0..TOKENS).map_while(|i| u16_at(image, index_at + 2 * i)).map(usize::from).collect();
    let last = *index.get(TOKENS - 1)?;
    let before = (2..last + MAX_NAME_BYTES).map(|back| index_at.checked_sub(back));
    let before = before.skip(last).map_while(|at| at);
    let after = (0..MAX_PADDING).map(|gap| index_at + 2 * TOKENS + gap);
    before.chain(after).find_map(|table_at| {
        let tokens = Tokens::parse(image, table_at, &index)?;
        at_token_table(image, table_at, &tokens, budget)
    })
}

/// The 256 strings that token numbers stand for.
struct Tokens<'image>(Vec<&'image [u8]>);

impl<'image> Tokens<'image> {
    /// Every index must point just behind a NUL, with none in between.
    fn parse(image: &'image [u8], table_at: usize, index: &[usize]) -> Option<Self> {
        let table = image.get(table_at..)?;
        let mut tokens = Vec::with_capacity(TOKENS);
        for pair in index.windows(2) {
            let (token, rest) =
                table.get(pair[0]..pair[1])?.split_last().map(|(last, token)| (token, *last))?;
            if rest != 0 || !is_printable(token) {
                return None;
            }
            tokens.push(token);
        }
        let end = table.get(*index.last()?..)?;
        let len = end.iter().take(MAX_NAME_BYTES).position(|byte| *byte == 0)?;
        tokens.push(&end[..len]);
        is_printable(&end[..len]).then_some(Self(tokens))
    }

    fn expand(&self, entry: &[u8]) -> Option<String> {
        let mut name = Vec::new();
        for token in entry {
            name.extend_from_slice(self.0.get(usize::from(*token))?);
            if name.len() > MAX_NAME_BYTES {
                return None;
            }
        }
        String::from_utf8(name).ok()
    }
}

fn is_printable(token: &[u8]) -> bool {
    token.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ')
}

/// The markers end where the token table begins, give or take alignment; they begin with a 0 and ascend.
fn at_token_table(
    image: &[u8],
    table_at: usize,
    tokens: &Tokens<'_>,
    budget: &Budget,
) -> Option<EmbeddedTable> {
    (0..MAX_PADDING).find_map(|gap| {
        let end = table_at.checked_sub(gap)?;
        let (markers_at, markers) = markers_before(image, end, budget)?;
        let (names_at, entries) = names_before(image, markers_at, &markers, budget)?;
        budget.spend(entries.len())?;
        addresses_before(image, names_at, &entries, tokens)
    })
}

fn markers_before(image: &[u8], end: usize, budget: &Budget) -> Option<(usize, Vec<usize>)> {
    let mut markers = Vec::new();
    let mut at = end;
    while markers.len() <= MAX_SYMBOLS / NAMES_PER_MARKER {
        at = at.checked_sub(4)?;
        budget.spend(1)?;
        let marker = u32_at(image, at)? as usize;
        if markers.last().is_some_and(|later| marker >= *later) {
            return None;
        }
        markers.push(marker);
        if marker == 0 {
            markers.reverse();
            return Some((at, markers));
        }
    }
    None
}

/// Searches back from the markers for names that have an entry beginning exactly at every marker.
fn names_before<'image>(
    image: &'image [u8],
    markers_at: usize,
    markers: &[usize],
    budget: &Budget,
) -> Option<(usize, Vec<&'image [u8]>)> {
    let furthest = markers.last()? + NAMES_PER_MARKER * (NAMES_PER_MARKER + 1) + MAX_PADDING;
    let last_start = markers_at.checked_sub(*markers.last()?)?;
    let first_start = markers_at.saturating_sub(furthest);
    let counts = (markers.len() - 1) * NAMES_PER_MARKER + 1..=markers.len() * NAMES_PER_MARKER;
    (first_start..=last_start).rev().find_map(|names_at| {
        budget.spend(1)?;
        let count = count_before(image, names_at, &counts)?;
        let entries = walk_names(image.get(names_at..markers_at)?, count, markers, budget)?;
        Some((names_at, entries))
    })
}

/// The number of symbols, which stands just before the names.
fn count_before(image: &[u8], names_at: usize, counts: &std::ops::RangeInclusive<usize>) -> Option<usize> {
    [4, 8, 16, 32].iter().find_map(|back| {
        let count = u32_at(image, names_at.checked_sub(*back)?)? as usize;
        counts.contains(&count).then_some(count)
    })
}

fn walk_names<'image>(
    names: &'image [u8],
    count: usize,
    markers: &[usize],
    budget: &Budget,
) -> Option<Vec<&'image [u8]>> {
    let mut entries = Vec::new();
    let mut at = 0;
    for number in 0..count {
        if number % NAMES_PER_MARKER == 0 {
            if markers.get(number / NAMES_PER_MARKER) != Some(&at) {
                return None;
            }
            budget.spend(NAMES_PER_MARKER)?;
        }
        let len = usize::from(*names.get(at)?);
        entries.push(names.get(at + 1..at + 1 + len)?);
        at += 1 + len;
    }
    (names.len() - at < MAX_PADDING).then_some(entries)
}

/// The ascending addresses in front of the count; 32-bit offsets are tried before whole addresses.
fn addresses_before(
    image: &[u8],
    names_at: usize,
    entries: &[&[u8]],
    tokens: &Tokens<'_>,
) -> Option<EmbeddedTable> {
    let names: Vec<String> = entries.iter().map(|entry| tokens.expand(entry)).collect::<Option<_>>()?;
    let find = |width: usize| {
        (4..4 + 2 * MAX_PADDING).step_by(4).find_map(|gap| {
            let start = names_at.checked_sub(gap)?.checked_sub(width * names.len())?;
            ascending(image, start, width, names.len())
        })
    };
    let (addresses, absolute) = match find(4) {
        Some(offsets) => (offsets, false),
        None => (find(8)?, true),
    };
    Some(EmbeddedTable { entries: addresses.into_iter().zip(names).collect(), absolute })
}

fn ascending(image: &[u8], start: usize, width: usize, count: usize) -> Option<Vec<u64>> {
    let at = |index: usize| match width {
        4 => u32_at(image, start + 4 * index).map(u64::from),
        _ => u64_at(image, start + 8 * index),
    };
    let values: Vec<u64> = (0..count).map(at).collect::<Option<_>>()?;
    // A run of zeros or of one number is padding, not addresses.
    (values.is_sorted() && values.first() < values.last()).then_some(values)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_le_bytes(*b))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}

#[cfg(test)]
mod tests;
