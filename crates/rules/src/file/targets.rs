//! What a rule is `on`: hypercalls and sub-ops by name.

use hypovisor_abi::xen::XEN;
use hypovisor_abi::{Hypercall, SubOpFrom};
use hypovisor_verdict::NUMBERS;

use super::{Reader, short};
use crate::problem::Place;
use crate::rule::Target;
use crate::suggest::{did_you_mean, some_of};
use crate::yaml::{Content, Node};

impl<'r, 'f> Reader<'r, 'f> {
    pub(super) fn targets(&mut self, node: &Node, field: &str) -> Vec<(Target, Place)> {
        let nodes: Vec<(String, &Node)> = match &node.content {
            Content::List(items) if items.is_empty() => {
                self.refuse(node, field, "is empty");
                Vec::new()
            }
            Content::List(_) => self.list(Some(node), field),
            _ => vec![(field.to_owned(), node)],
        };
        let mut targets: Vec<(Target, Place)> = Vec::new();
        for (field, node) in nodes {
            let Some(scalar) = self.scalar(node, &field) else { continue };
            match target(scalar.text.trim()) {
                Ok(target) => {
                    let covered =
                        targets.iter().find(|(known, _)| covers(known, &target) || covers(&target, known));
                    if let Some((known, _)) = covered {
                        let message =
                            format!("overlaps with `{}`, so the rule would match twice", known.name);
                        self.refuse(node, &field, message);
                    } else {
                        targets.push((target, node.at));
                    }
                }
                Err(message) => self.refuse(node, &field, message),
            }
        }
        targets
    }
}

/// Whether every call of `inner` is one of `outer`.
fn covers(outer: &Target, inner: &Target) -> bool {
    match (outer.number, outer.sub_op) {
        (None, _) => true,
        (number, None) => number == inner.number,
        (number, sub_op) => number == inner.number && sub_op == inner.sub_op,
    }
}

/// `hypercall`, `hypercall/sub-op` or `*`, by names or numbers.
fn target(text: &str) -> Result<Target, String> {
    let name = text.to_owned();
    if text == "*" {
        return Ok(Target { name, number: None, sub_op: None });
    }
    let (call, sub_op) = text.split_once('/').map_or((text, None), |(call, op)| (call, Some(op)));
    let (number, hypercall) = hypercall(call)?;
    let sub_op = sub_op.map(|op| sub_op_number(hypercall, call, op)).transpose()?;
    Ok(Target { name, number: Some(number), sub_op })
}

fn hypercall(name: &str) -> Result<(u16, Option<&'static Hypercall>), String> {
    if let Ok(number) = name.parse::<u64>() {
        let small = u16::try_from(number).ok().filter(|number| usize::from(*number) < NUMBERS);
        let small = small.ok_or_else(|| {
            format!("numbers go to {}; for a larger one use `'*'` and `number == {number}`", NUMBERS - 1)
        })?;
        return Ok((small, XEN.call(number)));
    }
    let bare = name.strip_prefix("__HYPERVISOR_").unwrap_or(name);
    if let Some(call) = XEN.call_named(bare) {
        return Ok((call.number as u16, Some(call)));
    }
    let known = || XEN.calls.iter().flatten().map(|call| call.name);
    let owner = XEN
        .calls
        .iter()
        .flatten()
        .find(|call| call.sub_ops.is_some_and(|ops| ops.ops.iter().any(|op| op.name == bare)));
    if let Some(owner) = owner {
        return Err(format!("`{}` is a sub-op; write `{}/{bare}`", short(name), owner.name));
    }
    Err(format!("there is no hypercall `{}`{}", short(name), did_you_mean(bare, known())))
}

fn sub_op_number(call: Option<&'static Hypercall>, call_name: &str, name: &str) -> Result<u64, String> {
    let Some(ops) = call.and_then(|call| call.sub_ops) else {
        return Err(format!("`{}` has no sub-operations", short(call_name)));
    };
    if let Ok(number) = name.parse::<u64>() {
        return match ops.from {
            SubOpFrom::Arg { mask, .. } if number & !mask != 0 => {
                Err(format!("`{}` has room for sub-op numbers to {mask} only", short(call_name)))
            }
            _ => Ok(number),
        };
    }
    let known = || ops.ops.iter().map(|op| op.name);
    ops.ops.iter().find(|op| op.name == name).map(|op| op.number).ok_or_else(|| {
        let suggestion = did_you_mean(name, known());
        let suggestion =
            if suggestion.is_empty() { format!("; there are {}", some_of(known())) } else { suggestion };
        format!("`{}` has no sub-op `{}`{suggestion}", short(call_name), short(name))
    })
}
