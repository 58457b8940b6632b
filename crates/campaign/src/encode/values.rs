//! Values in memory: what a field is given, as the bytes of its type.

use hypovisor_abi::{Count, Handle, Struct, Type, Union, Width};
use serde_json::{Map, Value};

use super::piece::{Piece, Pointed, check_range, hex, text};
use super::{EncodeError, Encoder, MAX_MEMORY_BYTES, wrong};
use crate::value;

impl Encoder<'_> {
    /// What a handle that is given this value points to.
    pub(super) fn handle(
        &mut self,
        handle: &'static Handle,
        value: &Value,
        path: &str,
    ) -> Result<Pointed, EncodeError> {
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

    /// The bytes of a value of this type. `around`: the struct that it stands in, and what that one is given.
    pub(super) fn value(
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

fn is_generator(map: &Map<String, Value>) -> bool {
    map.len() == 1 && ["values", "range", "random"].iter().any(|name| map.contains_key(*name))
}
