//! From a condition's tree to a program.
//!
//! A condition is compiled once for each call it is for and each width of caller, because names resolve through that
//! call's types to registers and offsets. [`scope`] is that call and width, [`path`] follows the types, [`names`] knows
//! what values are called, [`lower`] checks and translates, [`assembler`] lays out instructions, [`language`] has the
//! words.

mod assembler;
mod handles;
mod language;
mod lower;
mod names;
mod path;
mod scope;

pub(crate) use assembler::Assembler;
pub(crate) use language::{CONSTANTS, FUNCTIONS, VALUES};
pub(crate) use lower::{Guard, Lowered, lower};
pub(crate) use scope::Scope;
