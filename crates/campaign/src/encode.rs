//! Named arguments to registers and memory, by the ABI's tables.

use hypovisor_abi::xen::XEN;
use hypovisor_abi::{Arg, Count, Handle, Hypercall, Struct, SubOp, SubOpFrom, Type, Union, Width};
use serde_json::{Map, Value};

use crate::call::CallSpec;
use crate::value::{self, Context};

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

/// Bytes under construction.
#[derive(Default)]
struct Piece {
    bytes: Vec<u8>,
    /// Offsets of pointers, and what they point to in memory.
    pointers: Vec<(usize, u32)>,
    /// Paths of integers, their offsets and sizes.
    fields: Vec<(String, usize, usize)>,
}

impl Piece {
    fn zero(len: usize) -> Self {
        Self { bytes: vec![0; len], ..Self::default() }
    }

    /// Puts `other` at `at`; it fits, because both come of the same tables.
    fn put(&mut self, at: usize, other: Self) {
        let end = at + other.bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[at..end].copy_from_slice(&other.bytes);
        self.pointers.extend(other.pointers.into_iter().map(|(offset, target)| (at + offset, target)));
        self.fields.extend(other.fields.into_iter().map(|(path, offset, bytes)| (path, at + offset, bytes)));
    }
}

/// What a handle was given.
enum Pointed {
    /// This very pointer.
    Raw(u64),
    /// So many elements, at this offset in memory.
    Memory { target: u32, elements: u64 },
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

    fn handle(&mut self, handle: &'static Handle, value: &Value, path: &str) -> Result<Pointed, EncodeError> {
        let (piece, elements) = match value {
            Value::Null => return Ok(Pointed::Raw(0)),
            Value::Object(map) if is_generator(map) => return self.raw_pointer(value, path),
            Value::Number(_) => return self.raw_pointer(value, path),
            Value::Object(map) if map.contains_key("hex") => {
                (Piece { bytes: hex(value, path)?, ..Piece::default() }, 1)
            }
            Value::String(text) if value::parse_number(text).is_some() || text.starts_with("${") => {
                return self.raw_pointer(value, path);
            }
            Value::String(text) => {
                (Piece { bytes: [text.as_bytes(), &[0]].concat(), ..Piece::default() }, text.len() as u64 + 1)
            }
            Value::Array(items) => (self.elements(handle.to, items, path)?, items.len() as u64),
            Value::Object(_) | Value::Bool(_) => (self.value(handle.to, value, path, None)?, 1),
        };
        Ok(Pointed::Memory { target: self.place(piece, path)?, elements })
    }

    fn raw_pointer(&self, value: &Value, path: &str) -> Result<Pointed, EncodeError> {
        let number = value::number(value, &hypovisor_abi::Show::Address, self.context);
        number
            .map(|number| Pointed::Raw(number as u64))
            .map_err(|message| EncodeError { path: path.to_owned(), message })
    }

    fn elements(&mut self, ty: &'static Type, items: &[Value], path: &str) -> Result<Piece, EncodeError> {
        let size = ty.bytes(self.width) as usize;
        let mut all = Piece::zero(size.saturating_mul(items.len()).min(MAX_MEMORY_BYTES + 1));
        if all.bytes.len() > MAX_MEMORY_BYTES {
            return wrong(path, format!("the call's memory is larger than {MAX_MEMORY_BYTES} bytes"));
        }
        for (index, item) in items.iter().enumerate() {
            let path = if index == 0 { path.to_owned() } else { format!("{path}[{index}]") };
            let piece = self.value(ty, item, &path, None)?;
            all.put(index * size, piece);
        }
        Ok(all)
    }

    fn value(
        &mut self,
        ty: &'static Type,
        value: &Value,
        path: &str,
        around: Option<(&'static Struct, &Map<String, Value>)>,
    ) -> Result<Piece, EncodeError> {
        let size = ty.bytes(self.width) as usize;
        match ty.for_width(self.width) {
            Type::Int(scalar) => {
                let number = value::number(value, &scalar.show, self.context)
                    .map_err(|message| EncodeError { path: path.to_owned(), message })?;
                check_range(number, size, path)?;
                let bytes = (number as u64).to_le_bytes()[..size].to_vec();
                Ok(Piece { bytes, pointers: Vec::new(), fields: vec![(path.to_owned(), 0, size)] })
            }
            Type::Handle(handle) => self.pointer(handle, value, path, size),
            Type::Struct(structure) => self.structure(structure, value, path),
            Type::Union(union) => self.union(union, value, path, size, around),
            Type::Array(_) | Type::Chars(_) | Type::Bytes(_) if value.is_null() => Ok(Piece::zero(size)),
            Type::Array(array) => match value {
                Value::Array(items) if items.len() <= array.len as usize => {
                    let mut piece = self.elements(array.of, items, path)?;
                    piece.bytes.resize(size, 0);
                    Ok(piece)
                }
                _ => wrong(path, format!("a list of at most {} is wanted", array.len)),
            },
            Type::Chars(_) | Type::Bytes(_) => text(value, size, path),
            Type::Tail(_) => Ok(Piece::default()),
            Type::PerWidth(_) => wrong(path, "this field cannot be given"),
        }
    }

    /// A pointer inside memory.
    fn pointer(
        &mut self,
        handle: &'static Handle,
        value: &Value,
        path: &str,
        size: usize,
    ) -> Result<Piece, EncodeError> {
        let mut piece = Piece::zero(size);
        match self.handle(handle, value, path)? {
            Pointed::Raw(pointer) => piece.bytes.copy_from_slice(&pointer.to_le_bytes()[..size]),
            Pointed::Memory { target, .. } => piece.pointers.push((0, target)),
        }
        Ok(piece)
    }

    fn structure(
        &mut self,
        structure: &'static Struct,
        value: &Value,
        path: &str,
    ) -> Result<Piece, EncodeError> {
        let empty = Map::new();
        let given = match value {
            Value::Object(map) if map.contains_key("hex") && structure.position("hex").is_none() => {
                let mut bytes = hex(value, path)?;
                bytes.resize(structure.size[usize::from(self.width == Width::Bits32)] as usize, 0);
                return Ok(Piece { bytes, ..Piece::default() });
            }
            Value::Object(map) => map,
            Value::Null => &empty,
            _ => return wrong(path, format!("a map of the fields of {} is wanted", structure.c_name)),
        };
        if let Some(unknown) = given
            .keys()
            .find(|name| structure.position(name).is_none() && !self.in_anonymous(structure, name))
        {
            let names: Vec<&str> =
                structure.fields.iter().map(|field| field.name).filter(|name| !name.is_empty()).collect();
            return wrong(
                &format!("{path}.{unknown}"),
                format!("no such field; there are {}", names.join(", ")),
            );
        }
        let mut piece = Piece::zero(structure.size[usize::from(self.width == Width::Bits32)] as usize);
        for (index, field) in structure.fields.iter().enumerate() {
            let at = structure.offset(index, self.width) as usize;
            let path = if field.name.is_empty() { path.to_owned() } else { format!("{path}.{}", field.name) };
            if field.name.is_empty() {
                let inside = self.value(&field.ty, value, &path, Some((structure, given)))?;
                piece.put(at, inside);
            } else if let Some(value) = given.get(field.name) {
                let inside = self.value(&field.ty, value, &path, Some((structure, given)))?;
                piece.put(at, inside);
                self.fill_count(structure, field, value, given, &mut piece);
            } else if let Type::Int(scalar) = field.ty.for_width(self.width) {
                piece.fields.push((path, at, scalar.int.bytes(self.width) as usize));
            } else if matches!(field.ty.for_width(self.width), Type::Struct(_) | Type::Union(_)) {
                // All zero; walked for the places of its fields.
                let inside = self.value(&field.ty, &Value::Null, &path, Some((structure, given)))?;
                piece.put(at, inside);
            }
        }
        Ok(piece)
    }

    /// Whether a nameless union or struct of this one has such a field.
    fn in_anonymous(&self, structure: &'static Struct, name: &str) -> bool {
        structure.fields.iter().filter(|field| field.name.is_empty()).any(|field| {
            match field.ty.for_width(self.width) {
                Type::Struct(inside) => inside.position(name).is_some(),
                Type::Union(union) => union.cases.iter().any(|case| case.name == name),
                _ => false,
            }
        })
    }

    /// The number of elements of a list, unless it is given.
    fn fill_count(
        &self,
        structure: &'static Struct,
        field: &'static hypovisor_abi::Field,
        value: &Value,
        given: &Map<String, Value>,
        piece: &mut Piece,
    ) {
        let (Type::Handle(handle), Value::Array(items)) = (field.ty.for_width(self.width), value) else {
            return;
        };
        let Count::Field(name) = handle.count else { return };
        let Some(index) = structure.position(name).filter(|_| !given.contains_key(name)) else { return };
        let at = structure.offset(index, self.width) as usize;
        let bytes = structure.fields[index].ty.bytes(self.width) as usize;
        if let Some(slot) = piece.bytes.get_mut(at..at + bytes).filter(|_| bytes <= 8) {
            slot.copy_from_slice(&(items.len() as u64).to_le_bytes()[..bytes]);
        }
    }

    fn union(
        &mut self,
        union: &'static Union,
        value: &Value,
        path: &str,
        size: usize,
        around: Option<(&'static Struct, &Map<String, Value>)>,
    ) -> Result<Piece, EncodeError> {
        let mut piece = Piece::zero(size);
        let Value::Object(map) = value else {
            let unnamed = union.cases.iter().find(|case| case.name.is_empty());
            let Some(case) = unnamed.filter(|_| !value.is_null()) else { return Ok(piece) };
            piece.put(0, self.value(&case.ty, value, path, around)?);
            return Ok(piece);
        };
        let mut failed = None;
        for case in union.cases.iter().filter(|case| map.contains_key(case.name)) {
            match self.value(&case.ty, &map[case.name], &format!("{path}.{}", case.name), around) {
                Ok(inside) => {
                    piece.put(0, inside);
                    return Ok(piece);
                }
                // Several members may have a name, for several tags.
                Err(error) => failed = Some(error),
            }
        }
        match (failed, map.keys().next()) {
            (Some(error), _) => Err(error),
            (None, Some(name)) if around.is_none_or(|(structure, _)| structure.position(name).is_none()) => {
                let names: Vec<&str> = union.cases.iter().map(|case| case.name).collect();
                wrong(&format!("{path}.{name}"), format!("no such member; there are {}", names.join(", ")))
            }
            _ => Ok(piece),
        }
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

fn is_generator(map: &Map<String, Value>) -> bool {
    map.len() == 1 && ["values", "range", "random"].iter().any(|name| map.contains_key(*name))
}

/// An integer may be given signed or unsigned, whatever its C type: attacks do not care.
fn check_range(number: i128, bytes: usize, path: &str) -> Result<(), EncodeError> {
    let bits = 8 * bytes as u32;
    let fits = number >= -(1_i128 << (bits - 1)) && number < 1_i128 << bits;
    if fits { Ok(()) } else { wrong(path, format!("{number} does not fit into {bits} bits")) }
}

fn text(value: &Value, size: usize, path: &str) -> Result<Piece, EncodeError> {
    let mut bytes = match value {
        Value::String(text) => text.clone().into_bytes(),
        Value::Object(map) if map.is_empty() => Vec::new(),
        _ => hex(value, path)?,
    };
    if bytes.len() > size {
        return wrong(path, format!("{} bytes where {size} have room", bytes.len()));
    }
    bytes.resize(size, 0);
    Ok(Piece { bytes, ..Piece::default() })
}

fn hex(value: &Value, path: &str) -> Result<Vec<u8>, EncodeError> {
    let digits = value.get("hex").and_then(Value::as_str);
    let digits = digits.filter(|digits| digits.is_ascii() && digits.len().is_multiple_of(2));
    let pairs =
        digits.map(|digits| digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap_or("")));
    let bytes = pairs.and_then(|pairs| pairs.map(|pair| u8::from_str_radix(pair, 16).ok()).collect());
    bytes.map_or_else(|| wrong(path, "bytes are wanted, as {hex: \"00ff\"}"), Ok)
}

pub(crate) fn find_sub_op(hypercall: &Hypercall, name: &str) -> Option<&'static SubOp> {
    hypercall.sub_ops?.ops.iter().find(|op| op.name == name)
}

pub(crate) fn find_call(name: &str) -> Option<&'static Hypercall> {
    XEN.call_named(name)
}

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
