//! Several calls in one.

use hypovisor_abi::Width;

use super::{ALIGNMENT, EncodeError, MAX_MEMORY_BYTES, Place, Plan, Relocation, encode, wrong};
use crate::call::CallSpec;
use crate::value::Context;

/// One multicall of these calls (`struct multicall_entry`, Xen public/xen.h: op, result, six arguments).
pub(crate) fn multicall(inner: &[CallSpec], width: Width, context: &Context) -> Result<Plan, EncodeError> {
    const WORDS: usize = 8;
    let word = width.word_bytes() as usize;
    let mut all = Plan { number: 13, memory: vec![0; WORDS * word * inner.len()], ..Plan::default() };
    all.registers[1] = inner.len() as u64;
    all.relocations.push(Relocation { place: Place::Register(0), target: 0 });
    for (index, call) in inner.iter().enumerate() {
        let plan = encode(call, width, context)
            .map_err(|error| EncodeError { path: format!("multicall[{index}].{}", error.path), ..error })?;
        append(&mut all, &plan, index * WORDS * word, word);
        if all.memory.len() > MAX_MEMORY_BYTES {
            return wrong("multicall", format!("the call's memory is larger than {MAX_MEMORY_BYTES} bytes"));
        }
    }
    Ok(all)
}

/// Puts an inner call's registers into its entry, and its memory behind what there is.
fn append(all: &mut Plan, inner: &Plan, entry: usize, word: usize) {
    let at = all.memory.len().next_multiple_of(ALIGNMENT);
    all.memory.resize(at, 0);
    all.memory.extend_from_slice(&inner.memory);
    let slot = |index: usize| entry + index * word;
    let mut put = |index: usize, value: u64| {
        all.memory[slot(index)..slot(index) + word].copy_from_slice(&value.to_le_bytes()[..word]);
    };
    put(0, inner.number);
    for (index, register) in inner.registers.into_iter().enumerate() {
        put(2 + index, register);
    }
    for relocation in &inner.relocations {
        let place = match relocation.place {
            Place::Register(register) => Place::Memory(slot(2 + usize::from(register)) as u32),
            Place::Memory(offset) => Place::Memory(at as u32 + offset),
        };
        all.relocations.push(Relocation { place, target: at as u32 + relocation.target });
    }
}
