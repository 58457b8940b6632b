//! Addresses in profiles are written as hexadecimal text: a person compares them with a debugger's output, and
//! JSON readers that keep numbers as doubles would round them.

/// Serde adapter for one [`hypovisor_machine::Gva`].
pub(crate) mod gva {
    use hypovisor_machine::Gva;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(gva: &Gva, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{gva:#x}"))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Gva, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse(&text).ok_or_else(|| D::Error::custom(format!("not an address: {text:?}")))
    }
}

/// Serde adapter for an address that may be absent.
pub(crate) mod gva_option {
    use hypovisor_machine::Gva;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(gva: &Option<Gva>, serializer: S) -> Result<S::Ok, S::Error> {
        match gva {
            Some(gva) => serializer.collect_str(&format_args!("{gva:#x}")),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Gva>, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
        let gva = super::parse(&text).ok_or_else(|| D::Error::custom(format!("not an address: {text:?}")))?;
        Ok(Some(gva))
    }
}

/// Serde adapter for a list of addresses.
pub(crate) mod gva_list {
    use hypovisor_machine::Gva;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(list: &[Gva], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(list.iter().map(|gva| format!("{gva:#x}")))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Gva>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let parsed: Option<Vec<Gva>> = texts.iter().map(|text| super::parse(text)).collect();
        parsed.ok_or_else(|| D::Error::custom("not a list of addresses"))
    }
}

fn parse(text: &str) -> Option<hypovisor_machine::Gva> {
    let digits = text.strip_prefix("0x")?;
    u64::from_str_radix(digits, 16).ok().map(hypovisor_machine::Gva)
}

#[cfg(test)]
mod tests {
    use super::parse;
    use hypovisor_machine::Gva;

    #[test]
    fn only_prefixed_hexadecimal_is_an_address() {
        assert_eq!(parse("0xffff82d040200000"), Some(Gva(0xffff_82d0_4020_0000)));
        assert_eq!(parse("12"), None);
        assert_eq!(parse("0x"), None);
        assert_eq!(parse("0x1ffffffffffffffff"), None);
    }
}
