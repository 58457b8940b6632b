//! Named values and named bits.

/// An open list of named values: a value without a name is shown as a number.
#[derive(Debug)]
pub struct Enumeration {
    /// What the list is, for documentation.
    pub name: &'static str,
    /// Value and header constant.
    pub values: &'static [(u64, &'static str)],
}

impl Enumeration {
    /// The header's name of `value`.
    #[must_use]
    pub fn name_of(&self, value: u64) -> Option<&'static str> {
        // Most lists are 0..n in order; try the direct slot first.
        if let Some(&(at, name)) = self.values.get(value as usize)
            && at == value
        {
            return Some(name);
        }
        self.values.iter().find(|(at, _)| *at == value).map(|(_, name)| *name)
    }
}

/// Named bits, and parts of a word that hold a number or one of several names.
#[derive(Debug)]
pub struct FlagSet {
    /// What the set is, for documentation.
    pub name: &'static str,
    /// `(mask, value, name)`: named when `word & mask == value`. A single bit has `mask == value`;
    /// a multi-bit part lists its values one by one (a value of 0 is shown only when listed).
    pub bits: &'static [(u64, u64, &'static str)],
    /// `(mask, name)`: parts shown as a number (`name:N`, shifted down) when not zero and not named by `bits`.
    /// A part without a name is shown as the bare number.
    pub parts: &'static [(u64, &'static str)],
}

impl FlagSet {
    /// Names of what is set in `word`, then numeric parts as `(name, number)`, and the bits nothing names.
    pub fn split(
        &self,
        word: u64,
    ) -> (impl Iterator<Item = &'static str>, impl Iterator<Item = (&'static str, u64)>, u64) {
        let named: u64 = self
            .bits
            .iter()
            .filter(|(mask, value, _)| word & mask == *value)
            .fold(0, |all, (mask, ..)| all | mask);
        let numeric: u64 = self.parts.iter().fold(0, |all, (mask, _)| all | mask);
        let names =
            self.bits.iter().filter(move |(mask, value, _)| word & mask == *value).map(|(.., name)| *name);
        let parts = self
            .parts
            .iter()
            .filter(move |(mask, _)| word & mask != 0 && named & mask != *mask)
            .map(move |(mask, name)| (*name, (word & mask) >> mask.trailing_zeros()));
        (names, parts, word & !(named | numeric))
    }
}

/// Defines an [`Enumeration`]: `enumeration!(pub SCHED_REASON = "why" { 0 => "SHUTDOWN_poweroff", … });`
#[macro_export]
macro_rules! enumeration {
    ($(#[$meta:meta])* $vis:vis $name:ident = $what:literal { $($value:expr => $text:literal),* $(,)? }) => {
        $(#[$meta])*
        $vis const $name: $crate::Enumeration =
            $crate::Enumeration { name: $what, values: &[$(($value, $text)),*] };
    };
}

/// Defines a [`FlagSet`] of single bits: `flag_set!(pub MEMF = "…" { 0x10000 => "XENMEMF_populate_on_demand" });`
/// with optional numeric parts: `{ … } parts { 0xff => "address_bits" }`.
#[macro_export]
macro_rules! flag_set {
    ($(#[$meta:meta])* $vis:vis $name:ident = $what:literal { $($bit:expr => $text:literal),* $(,)? } $(parts { $($mask:expr => $part:literal),* $(,)? })?) => {
        $(#[$meta])*
        $vis const $name: $crate::FlagSet = $crate::FlagSet {
            name: $what,
            bits: &[$(($bit, $bit, $text)),*],
            parts: &[$($(($mask, $part)),*)?],
        };
    };
}
