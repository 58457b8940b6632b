//! Where the tables differ from the headers on purpose, each with the reason.

/// Structs that the headers do not name.
pub const STRUCTS: &[(&str, &str)] = &[];

/// Members that C cannot be asked about: `(struct, member, reason)`.
pub const MEMBERS: &[(&str, &str, &str)] = &[];

/// Names of values and sub-ops that the headers have only in comments, or not at all.
pub const NAMES: &[(&str, &str)] = &[];

/// Constants that begin like a sub-op and are none.
pub const NOT_SUB_OPS: &[(&str, &str)] = &[];
