//! What holds for every call in every form.

use std::collections::BTreeSet;
use std::fmt;

use hypovisor_abi::fuzzing::Rendered;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Text is one line of printable characters, JSON is an object without a key that occurs twice.
pub(crate) fn well_formed(rendered: &Rendered) {
    for text in [&rendered.line, &rendered.full] {
        let printable = |c: char| c == '…' || c == ' ' || c.is_ascii_graphic();
        assert!(text.chars().all(printable), "not a line of printable characters: {text:?}");
        assert!(!text.contains("[, ") && !text.contains("{, ") && !text.contains("(, "), "{text}");
        assert!(!text.contains(", ]") && !text.contains(", }") && !text.contains(", )"), "{text}");
    }
    assert!(rendered.json.starts_with('{') && rendered.json.ends_with('}'));
    if let Err(error) = serde_json::from_str::<UniqueKeys>(&rendered.json) {
        panic!("{error}: {}", rendered.json);
    }
}

/// Any JSON value in which no object has the same key twice, or an empty one.
struct UniqueKeys;

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for UniqueKeys {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut keys = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if key.is_empty() || keys.contains(&key) {
                return Err(A::Error::custom(format!("key {key:?} is empty or occurs twice")));
            }
            map.next_value::<Self>()?;
            keys.insert(key);
        }
        Ok(self)
    }
}
