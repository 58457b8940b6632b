//! One call by name, with its arguments.

use hypovisor_abi::{Hypercall, SubOp, SubOpFrom, Width};
use serde_json::{Map, Value};

use crate::encode::{self, EncodeError, Plan, find_call, find_sub_op};
use crate::value::{Context, parse_number};

/// `__HYPERVISOR_multicall` (Xen public/xen.h).
const MULTICALL: u64 = 13;

/// Why a text names no call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No hypercall has this name.
    #[error("no hypercall is called `{0}`; see `hypovisor trace` for the names, or give its number")]
    Unknown(String),
    /// The hypercall has no such sub-operation.
    #[error("{call} has no sub-operation `{sub_op}`{hint}")]
    SubOp {
        /// The hypercall.
        call: String,
        /// What was asked for.
        sub_op: String,
        /// A name that may have been meant.
        hint: String,
    },
    /// Arguments on the command line mix two forms.
    #[error("`{0}`: give either field=value pairs or plain register values")]
    Mixed(String),
    /// A plain register value is no number.
    #[error("`{0}` is no number")]
    Number(String),
    /// A path has too many parts or meets a value that is no map.
    #[error("`{0}` is no path to a field")]
    Path(String),
}

/// A call, not laid out yet.
#[derive(Clone, Debug, PartialEq)]
pub struct CallSpec {
    /// The hypercall's number.
    pub number: u64,
    /// The sub-operation's number, if one is named.
    pub sub_op_number: Option<u64>,
    /// Arguments by name, or a list of register values.
    pub args: Value,
    /// A multicall's inner calls.
    pub inner: Vec<CallSpec>,
}

impl CallSpec {
    /// The call of this name: `hypercall`, or `hypercall/sub-op`; numbers stand for names.
    ///
    /// # Errors
    /// When there is none.
    pub fn named(name: &str, args: Value) -> Result<Self, CallError> {
        let (call, sub_op) = name.split_once('/').map_or((name, None), |(call, sub_op)| (call, Some(sub_op)));
        let hypercall = find_call(call);
        let plain = || parse_number(call).and_then(|number| u64::try_from(number).ok());
        let number = hypercall.map(|found| found.number).or_else(plain);
        let number = number.ok_or_else(|| CallError::Unknown(call.to_owned()))?;
        let hypercall = hypercall.or_else(|| hypovisor_abi::xen::XEN.call(number));
        let sub_op_number = sub_op.map(|sub_op| sub_op_number(call, hypercall, sub_op)).transpose()?;
        Ok(Self { number, sub_op_number, args, inner: Vec::new() })
    }

    /// One multicall of these.
    #[must_use]
    pub const fn multicall(inner: Vec<Self>) -> Self {
        Self { number: MULTICALL, sub_op_number: None, args: Value::Null, inner }
    }

    /// As on a command line: a name, then either `path=value` pairs or plain register values.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn parse(name: &str, args: &[String]) -> Result<Self, CallError> {
        let mut spec = Self::named(name, Value::Null)?;
        let pairs = args.iter().filter(|arg| arg.contains('=')).count();
        if pairs == 0 && !args.is_empty() {
            let number = |arg: &String| {
                parse_number(arg)
                    .map(|_| Value::String(arg.clone()))
                    .ok_or_else(|| CallError::Number(arg.clone()))
            };
            let mut registers: Vec<Value> = args.iter().map(number).collect::<Result<_, _>>()?;
            if let (Some(sub_op), Some(SubOpFrom::Arg { index: 0, .. })) =
                (spec.sub_op_number, spec.hypercall().and_then(|call| call.sub_ops).map(|ops| ops.from))
            {
                registers.insert(0, sub_op.into());
            }
            spec.args = Value::Array(registers);
            return Ok(spec);
        }
        let mut map = Value::Object(Map::new());
        for arg in args {
            let (path, value) = arg.split_once('=').ok_or_else(|| CallError::Mixed(arg.clone()))?;
            let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
            put(&mut map, path.strip_prefix("args.").unwrap_or(path), value)?;
        }
        spec.args = map;
        Ok(spec)
    }

    /// What the tables know of it.
    #[must_use]
    pub fn hypercall(&self) -> Option<&'static Hypercall> {
        hypovisor_abi::xen::XEN.call(self.number)
    }

    /// What the tables know of its sub-operation.
    #[must_use]
    pub fn sub_op(&self) -> Option<&'static SubOp> {
        self.hypercall()?.sub_op(self.sub_op_number?)
    }

    /// The name, as [`CallSpec::named`] takes it.
    #[must_use]
    pub fn name(&self) -> String {
        let call = self.hypercall().map_or_else(|| self.number.to_string(), |call| call.name.to_owned());
        match (self.sub_op(), self.sub_op_number) {
            (Some(op), _) => format!("{call}/{}", op.name),
            (None, Some(number)) => format!("{call}/{number}"),
            (None, None) => call,
        }
    }

    /// Lays the call out for a caller of this width.
    ///
    /// # Errors
    /// [`EncodeError`], which names the argument.
    pub fn encode(&self, width: Width, context: &Context) -> Result<Plan, EncodeError> {
        if self.inner.is_empty() {
            return encode::encode(self, width, context);
        }
        encode::multicall(&self.inner, width, context)
    }
}

fn sub_op_number(call: &str, hypercall: Option<&Hypercall>, sub_op: &str) -> Result<u64, CallError> {
    if let Some(number) = parse_number(sub_op).and_then(|number| u64::try_from(number).ok()) {
        return Ok(number);
    }
    if let Some(found) = hypercall.and_then(|hypercall| find_sub_op(hypercall, sub_op)) {
        return Ok(found.number);
    }
    let ops = hypercall.and_then(|hypercall| hypercall.sub_ops).map_or(&[][..], |ops| ops.ops);
    let close = ops.iter().find(|op| op.name.to_lowercase().ends_with(&sub_op.to_lowercase()));
    let hint = close.map_or_else(String::new, |close| format!("; did you mean `{}`?", close.name));
    Err(CallError::SubOp { call: call.to_owned(), sub_op: sub_op.to_owned(), hint })
}

/// Puts a value into nested maps by a path with dots.
fn put(map: &mut Value, path: &str, value: Value) -> Result<(), CallError> {
    const DEEPEST: usize = 8;
    let parts: Vec<&str> = path.split('.').collect();
    let bad = || CallError::Path(path.to_owned());
    let (last, outer) = parts.split_last().filter(|_| parts.len() <= DEEPEST).ok_or_else(bad)?;
    let mut at = map;
    for part in outer {
        at = at.as_object_mut().ok_or_else(bad)?.entry(*part).or_insert_with(|| Value::Object(Map::new()));
    }
    at.as_object_mut().ok_or_else(bad)?.insert((*last).to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::{Place, Relocation};
    use serde_json::json;

    fn plan(name: &str, args: Value) -> Plan {
        CallSpec::named(name, args).unwrap().encode(Width::Bits64, &Context::default()).unwrap()
    }

    #[test]
    fn a_structure_goes_into_memory_and_its_pointer_into_a_register() {
        let plan = plan("event_channel_op/EVTCHNOP_status", json!({"arg": {"dom": "DOMID_SELF", "port": 7}}));
        assert_eq!((plan.number, plan.registers[0]), (32, 5));
        assert_eq!(plan.relocations, [Relocation { place: Place::Register(1), target: 0 }]);
        assert_eq!(plan.memory[..8], [0xf0, 0x7f, 0, 0, 7, 0, 0, 0]);
        let mut after = plan.memory.clone();
        after[4] = 9;
        assert_eq!(plan.read_back(&after, "args.arg.port"), Some(9));
    }

    #[test]
    fn lists_fill_in_their_counts_and_pointers_nest() {
        let exchange = plan(
            "memory_op/XENMEM_exchange",
            json!({"arg": {"in": {"extent_start": [1, 2], "domid": "DOMID_SELF"}, "nr_exchanged": 3}}),
        );
        assert!(exchange.relocations.iter().any(|one| matches!(one.place, Place::Memory(_))));
        let map = plan("grant_table_op/GNTTABOP_map_grant_ref", json!({"uop": [{"ref": 8}, {"ref": 9}]}));
        assert_eq!((map.registers[0], map.registers[2]), (0, 2));
    }

    #[test]
    fn the_command_line_has_two_forms() {
        let args = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
        let plain = CallSpec::parse("xen_version/XENVER_version", &[]).unwrap();
        assert_eq!(plain.encode(Width::Bits64, &Context::default()).unwrap().registers, [0; 6]);
        let raw = CallSpec::parse("17", &args(&["0x1", "5"])).unwrap();
        assert_eq!(raw.encode(Width::Bits64, &Context::default()).unwrap().registers[..2], [1, 5]);
        let named =
            CallSpec::parse("event_channel_op/EVTCHNOP_status", &args(&["arg.port=3", "arg.dom=DOMID_SELF"]));
        assert_eq!(named.unwrap().encode(Width::Bits64, &Context::default()).unwrap().memory[4], 3);
        assert!(matches!(CallSpec::parse("no_such", &[]), Err(CallError::Unknown(_))));
        assert!(matches!(CallSpec::parse("17", &args(&["a=1", "5"])), Err(CallError::Mixed(_))));
        let error = CallSpec::parse("xen_version/version", &[]).unwrap_err();
        assert!(error.to_string().ends_with("did you mean `XENVER_version`?"), "{error}");
    }

    #[test]
    fn wrong_fields_are_named() {
        let error = |args| {
            let spec = CallSpec::named("event_channel_op/EVTCHNOP_status", args).unwrap();
            spec.encode(Width::Bits64, &Context::default()).unwrap_err().to_string()
        };
        assert!(
            error(json!({"arg": {"prot": 1}}))
                .starts_with("args.arg.prot: no such field; there are dom, port")
        );
        assert!(error(json!({"argh": {}})).starts_with("args.argh: no such argument"));
        assert!(error(json!({"arg": {"dom": 0x1_0000}})).contains("does not fit into 16 bits"));
    }

    #[test]
    fn a_multicall_holds_its_inner_calls() {
        let inner = CallSpec::named("xen_version/XENVER_extraversion", json!({"arg": {}})).unwrap();
        let plan = CallSpec::multicall(vec![inner.clone(), inner]);
        let plan = plan.encode(Width::Bits64, &Context::default()).unwrap();
        assert_eq!((plan.number, plan.registers[1]), (13, 2));
        assert_eq!(plan.memory[..8], 17_u64.to_le_bytes());
        assert_eq!(plan.relocations.len(), 3, "the list, and a pointer for each");
    }
}
