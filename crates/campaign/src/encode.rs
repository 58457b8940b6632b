//! Named arguments to registers and memory, by the ABI's tables.

use hypovisor_abi::xen::XEN;
use hypovisor_abi::{Arg, Count, Hypercall, SubOp, SubOpFrom, Type, Width};
use serde_json::{Map, Value};

use crate::call::CallSpec;
use crate::value::{self, Context};

mod multicall;
mod piece;
mod values;

pub(crate) use self::multicall::multicall;
use self::piece::{Piece, Pointed};

/// The most memory that an injected call may bring along.
pub const MAX_MEMORY_BYTES: usize = 2048;
/// Alignment of what a pointer leads to.
const ALIGNMENT: usize = 16;

/// Where an address is to be filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// An argument register, 0-based.
    Register(u8),
    /// A word of the memory, by its offset in bytes.
    Memory(u32),
}

/// An address that is known only when the memory has its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relocation {
    /// Where it is filled in.
    pub place: Place,
    /// What it points to: an offset in the memory.
    pub target: u32,
}

/// One call, ready to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The hypercall's number.
    pub number: u64,
    /// The argument registers.
    pub registers: [u64; 6],
    /// What pointers lead to: at most [`MAX_MEMORY_BYTES`].
    pub memory: Vec<u8>,
    /// Addresses to fill in.
    pub relocations: Vec<Relocation>,
    /// Where fields stand in `memory`: path, offset, bytes.
    fields: Vec<(String, usize, usize)>,
}

impl Plan {
    /// The field at `path` (as in `args.arg.port`) in `memory`, which L1 may have changed since.
    #[must_use]
    pub fn read_back(&self, memory: &[u8], path: &str) -> Option<u64> {
        let wanted = path.replace("[0]", "");
        let (_, at, bytes) = self.fields.iter().find(|(name, ..)| *name == wanted)?;
        let mut word = [0; 8];
        word.get_mut(..*bytes)?.copy_from_slice(memory.get(*at..at + bytes)?);
        Some(u64::from_le_bytes(word))
    }
}

/// Why a call cannot be laid out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct EncodeError {
    /// The argument or field, as in `args.arg.in.extent_order`.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

fn wrong<T>(path: &str, message: impl Into<String>) -> Result<T, EncodeError> {
    Err(EncodeError { path: path.to_owned(), message: message.into() })
}

struct Encoder<'a> {
    width: Width,
    context: &'a Context,
    plan: Plan,
}

/// Lays a call out for a caller of this width.
pub(crate) fn encode(call: &CallSpec, width: Width, context: &Context) -> Result<Plan, EncodeError> {
    let mut encoder = Encoder { width, context, plan: Plan { number: call.number, ..Plan::default() } };
    match (call.hypercall(), &call.args) {
        (_, Value::Array(registers)) => encoder.raw_registers(registers)?,
        (Some(hypercall), Value::Object(args)) => encoder.arguments(hypercall, call, args)?,
        (_, Value::Null) if call.hypercall().is_none() => {}
        (Some(hypercall), Value::Null) => encoder.arguments(hypercall, call, &Map::new())?,
        _ => return wrong("args", "arguments are a map by name, or a list of register values"),
    }
    Ok(encoder.plan)
}

impl Encoder<'_> {
    fn raw_registers(&mut self, values: &[Value]) -> Result<(), EncodeError> {
        if values.len() > 6 {
            return wrong("args", "a call has six registers at most");
        }
        for (index, value) in values.iter().enumerate() {
            let number = value::number(value, &hypovisor_abi::Show::Hex, self.context);
            self.plan.registers[index] =
                number.map_err(|message| EncodeError { path: format!("args[{index}]"), message })? as u64;
        }
        Ok(())
    }

    fn arguments(
        &mut self,
        hypercall: &Hypercall,
        call: &CallSpec,
        given: &Map<String, Value>,
    ) -> Result<(), EncodeError> {
        let args = call.sub_op().map_or(hypercall.args, |op| op.args);
        let placed = self.placed(args);
        let buffers = first_buffer(hypercall);
        for name in given.keys() {
            let known = args.iter().any(|arg| arg.name == name) || (buffers.is_some() && name == "op");
            if !known {
                let names: Vec<&str> = args.iter().map(|arg| arg.name).collect();
                return wrong(
                    &format!("args.{name}"),
                    format!("no such argument; there are {}", names.join(", ")),
                );
            }
        }
        let mut counts = Vec::new();
        for (register, arg) in &placed {
            let Some(value) = given.get(arg.name) else { continue };
            let value = with_command(hypercall, call, *register, value);
            self.argument(*register, arg, &value, &mut counts)?;
        }
        for (register, count) in counts {
            if !placed.iter().any(|(at, arg)| *at == register && given.contains_key(arg.name)) {
                self.plan.registers[usize::from(register)] = count;
            }
        }
        self.sub_op_register(hypercall, call, &placed, given);
        match buffers {
            Some((index, ty)) => self.buffers(index, ty, call, given),
            None => Ok(()),
        }
    }

    /// Each argument that this width has, with its first register.
    fn placed(&self, args: &'static [Arg]) -> Vec<(u8, &'static Arg)> {
        let mut next = 0;
        let mut placed = Vec::new();
        for arg in args {
            let registers = arg.registers(self.width);
            if registers > 0 && next + registers <= 6 {
                placed.push((next, arg));
            }
            next += registers;
        }
        placed
    }

    fn argument(
        &mut self,
        register: u8,
        arg: &'static Arg,
        value: &Value,
        counts: &mut Vec<(u8, u64)>,
    ) -> Result<(), EncodeError> {
        let path = format!("args.{}", arg.name);
        match arg.ty.for_width(self.width) {
            Type::Int(scalar) => {
                let number = value::number(value, &scalar.show, self.context)
                    .map_err(|message| EncodeError { path, message })? as u64;
                self.plan.registers[usize::from(register)] = number;
                if arg.registers(self.width) == 2 {
                    self.plan.registers[usize::from(register)] = number & 0xffff_ffff;
                    self.plan.registers[usize::from(register) + 1] = number >> 32;
                }
            }
            Type::Handle(handle) => match self.handle(handle, value, &path)? {
                Pointed::Raw(pointer) => self.plan.registers[usize::from(register)] = pointer,
                Pointed::Memory { target, elements } => {
                    self.plan.relocations.push(Relocation { place: Place::Register(register), target });
                    if let Count::Arg { index, .. } = handle.count {
                        counts.push((index, elements));
                    }
                }
            },
            _ => return wrong(&path, "this argument cannot be given"),
        }
        Ok(())
    }

    fn sub_op_register(
        &mut self,
        hypercall: &Hypercall,
        call: &CallSpec,
        placed: &[(u8, &Arg)],
        given: &Map<String, Value>,
    ) {
        let Some(SubOpFrom::Arg { index, .. }) = hypercall.sub_ops.map(|ops| ops.from) else { return };
        let overridden = placed.iter().any(|(at, arg)| *at == index && given.contains_key(arg.name));
        if let Some(number) = call.sub_op_number
            && !overridden
        {
            self.plan.registers[usize::from(index)] = number;
        }
    }

    /// `dm_op`: a list of buffers, of which the first holds the operation.
    fn buffers(
        &mut self,
        index: u8,
        ty: &'static Type,
        call: &CallSpec,
        given: &Map<String, Value>,
    ) -> Result<(), EncodeError> {
        if self.plan.relocations.iter().any(|one| one.place == Place::Register(index))
            || given.contains_key("bufs")
        {
            return Ok(());
        }
        let mut op = given.get("op").cloned().unwrap_or_else(|| Value::Object(Map::new()));
        if let (Some(op), Some(number)) = (op.as_object_mut(), call.sub_op_number) {
            op.entry("op").or_insert_with(|| number.into());
        }
        let piece = self.value(ty, &op, "args.op", None)?;
        let len = piece.bytes.len() as u64;
        let buffer = self.place(piece, "args.op")?;
        let word = self.width.word_bytes() as usize;
        let mut list = Piece::zero(2 * word);
        list.pointers.push((0, buffer));
        list.bytes[word..].copy_from_slice(&len.to_le_bytes()[..word]);
        let target = self.place(list, "args.bufs")?;
        self.plan.relocations.push(Relocation { place: Place::Register(index), target });
        if !given.contains_key("nr_bufs") {
            self.plan.registers[1] = 1;
        }
        Ok(())
    }

    /// Puts a piece into memory.
    fn place(&mut self, piece: Piece, path: &str) -> Result<u32, EncodeError> {
        let at = self.plan.memory.len().next_multiple_of(ALIGNMENT);
        if at + piece.bytes.len() > MAX_MEMORY_BYTES {
            return wrong(path, format!("the call's memory is larger than {MAX_MEMORY_BYTES} bytes"));
        }
        self.plan.memory.resize(at, 0);
        self.plan.memory.extend_from_slice(&piece.bytes);
        for (offset, target) in piece.pointers {
            let place = Place::Memory((at + offset) as u32);
            self.plan.relocations.push(Relocation { place, target });
        }
        self.plan
            .fields
            .extend(piece.fields.into_iter().map(|(path, offset, bytes)| (path, at + offset, bytes)));
        Ok(at as u32)
    }
}

/// The sub-op's number goes into the memory, unless the campaign puts something else there.
fn with_command(hypercall: &Hypercall, call: &CallSpec, register: u8, value: &Value) -> Value {
    let mut value = value.clone();
    let from = hypercall.sub_ops.map(|ops| ops.from);
    if let (Some(SubOpFrom::Memory { index }), Some(map), Some(number)) =
        (from, value.as_object_mut(), call.sub_op_number)
        && index == register
    {
        map.entry("cmd").or_insert_with(|| number.into());
    }
    value
}

fn first_buffer(hypercall: &Hypercall) -> Option<(u8, &'static Type)> {
    match hypercall.sub_ops?.from {
        SubOpFrom::FirstBuffer { index, ty } => Some((index, ty)),
        SubOpFrom::Arg { .. } | SubOpFrom::Memory { .. } => None,
    }
}

pub(crate) fn find_sub_op(hypercall: &Hypercall, name: &str) -> Option<&'static SubOp> {
    hypercall.sub_ops?.ops.iter().find(|op| op.name == name)
}

pub(crate) fn find_call(name: &str) -> Option<&'static Hypercall> {
    XEN.call_named(name)
}
