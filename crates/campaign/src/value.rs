//! Values of arguments as a campaign gives them: numbers, names, and generators of numbers.

use std::collections::HashMap;

use hypovisor_abi::Show;
use serde_json::Value;

/// Numbers that earlier calls returned through their arguments, by the names a campaign gave them.
pub type Saved = HashMap<String, u64>;

/// What a value may depend on.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// Which repetition of its step the call is, from 0.
    pub repetition: u64,
    /// Where random numbers begin; the same seed gives the same numbers.
    pub seed: u64,
    /// Numbers of earlier calls.
    pub saved: Saved,
}

/// Reserved domain ids (Xen public/xen.h).
const DOMAINS: [(&str, u64); 6] = [
    ("DOMID_SELF", 0x7ff0),
    ("DOMID_IO", 0x7ff1),
    ("DOMID_XEN", 0x7ff2),
    ("DOMID_COW", 0x7ff3),
    ("DOMID_INVALID", 0x7ff4),
    ("DOMID_IDLE", 0x7fff),
];

/// A number of 64 bits, signed or not, of which an argument takes as many as it has.
pub(crate) fn number(value: &Value, show: &Show, context: &Context) -> Result<i128, String> {
    match value {
        Value::Null => Ok(0),
        Value::Bool(truth) => Ok(i128::from(*truth)),
        Value::Number(number) => {
            let exact = number.as_u64().map(i128::from).or_else(|| number.as_i64().map(i128::from));
            exact.ok_or_else(|| format!("{number} is no whole number of 64 bits"))
        }
        Value::String(text) => named(text, show, context),
        Value::Object(generator) => {
            let [(kind, list)] = generator.iter().collect::<Vec<_>>()[..] else {
                return Err("a number is wanted, not a map".to_owned());
            };
            generated(kind, list, show, context)
        }
        Value::Array(_) => Err("a number is wanted, not a list".to_owned()),
    }
}

fn named(text: &str, show: &Show, context: &Context) -> Result<i128, String> {
    if let Some(name) = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) {
        let saved = context.saved.get(name).map(|number| i128::from(*number));
        return saved.ok_or_else(|| format!("no earlier call saved `{name}`"));
    }
    if let Some(number) = parse_number(text) {
        return Ok(number);
    }
    let parts: Result<Vec<i128>, String> = text.split('|').map(|part| name(part.trim(), show)).collect();
    Ok(parts?.into_iter().fold(0, |all, part| all | part))
}

/// A number as C writes it, with an optional sign.
pub(crate) fn parse_number(text: &str) -> Option<i128> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let parsed = match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => digits.parse(),
    };
    parsed.ok().map(|number| sign * i128::from(number))
}

fn name(text: &str, show: &Show) -> Result<i128, String> {
    let known: Vec<(&str, u64)> = match show {
        Show::Enum(list) => list.values.iter().map(|(value, name)| (*name, *value)).collect(),
        Show::Flags(set) => set.bits.iter().map(|(_, value, name)| (*name, *value)).collect(),
        _ => DOMAINS.to_vec(),
    };
    let domain = || DOMAINS.iter().find(|(name, _)| *name == text);
    let found = known.iter().find(|(name, _)| *name == text).or_else(domain);
    found.map(|(_, value)| i128::from(*value)).ok_or_else(|| {
        let close = known.iter().map(|(name, _)| *name).find(|name| name.eq_ignore_ascii_case(text));
        let hint = close.map_or_else(String::new, |close| format!("; did you mean `{close}`?"));
        format!("`{text}` is neither a number nor a name of this field{hint}")
    })
}

fn generated(kind: &str, list: &Value, show: &Show, context: &Context) -> Result<i128, String> {
    let items = list.as_array().filter(|items| !items.is_empty());
    let items = items.ok_or_else(|| format!("`{kind}` wants a list"))?;
    let numbers: Vec<i128> =
        items.iter().map(|item| number(item, show, context)).collect::<Result<_, _>>()?;
    match (kind, &numbers[..]) {
        ("values", _) => Ok(numbers[(context.repetition % numbers.len() as u64) as usize]),
        ("range", [from, to]) => in_range(*from, *to, 1, context.repetition),
        ("range", [from, to, step]) => in_range(*from, *to, *step, context.repetition),
        ("random", [from, to]) if from <= to => Ok(from + random(context, (to - from) as u128 + 1) as i128),
        ("range" | "random", _) => Err(format!("`{kind}` wants [from, to], the lower first")),
        _ => Err(format!("`{kind}` is no generator: use values, range or random")),
    }
}

fn in_range(from: i128, to: i128, step: i128, repetition: u64) -> Result<i128, String> {
    if from > to || step <= 0 {
        return Err("`range` wants [from, to] or [from, to, step], the lower first".to_owned());
    }
    let steps = (to - from) / step + 1;
    Ok(from + i128::from(repetition) % steps * step)
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
fn random(context: &Context, below: u128) -> u128 {
    let mut state =
        context.seed.wrapping_add(context.repetition.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    u128::from(state ^ (state >> 31)) % below
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(value: &Value, repetition: u64) -> Result<i128, String> {
        number(value, &Show::Domain, &Context { repetition, seed: 7, saved: Saved::from([("p".into(), 9)]) })
    }

    #[test]
    fn numbers_names_and_saved_values() {
        assert_eq!(of(&json!("DOMID_SELF"), 0), Ok(0x7ff0));
        assert_eq!(of(&json!("0x10"), 0), Ok(16));
        assert_eq!(of(&json!(-1), 0), Ok(-1));
        assert_eq!(of(&json!("${p}"), 0), Ok(9));
        assert!(of(&json!("${q}"), 0).unwrap_err().contains("`q`"));
        assert!(of(&json!("domid_self"), 0).unwrap_err().contains("did you mean `DOMID_SELF`"));
    }

    #[test]
    fn generators_go_by_the_repetition() {
        assert_eq!(of(&json!({"values": [4, 5]}), 3), Ok(5));
        assert_eq!(of(&json!({"range": [4, 8, 2]}), 2), Ok(8));
        assert_eq!(of(&json!({"range": [4, 8, 2]}), 3), Ok(4));
        let random: Vec<i128> = (0..100).map(|at| of(&json!({"random": [1, 6]}), at).unwrap()).collect();
        assert!(random.iter().all(|number| (1..=6).contains(number)));
        assert_eq!(random[3], of(&json!({"random": [1, 6]}), 3).unwrap(), "the same again");
        assert!(of(&json!({"range": [8, 4]}), 0).is_err() && of(&json!({"odd": [1]}), 0).is_err());
    }
}
