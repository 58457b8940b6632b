//! A policy as rules: everything that it does not list matches one of them.
//!
//! ```text
//!   an entry ─┬─ hypercalls that are not listed            on: [them]                    when: the entry's domains
//!             ├─ of each listed one, sub-ops that are not  on: [them]
//!             │                      and unknown numbers   on: call                      when: … && !has(sub_op)
//!             └─ of each listed sub-op, what goes beyond   on: call/sub-op               when: … && (field > most || …)
//! ```
//!
//! A rule file is written for each, as text, and loaded the way rule files are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use hypovisor_abi::xen::XEN;
use hypovisor_abi::{Hypercall, Show};
use hypovisor_rules::Rules;

use super::fields::{all_bits, find, flag_bits};
use super::{Entry, Limits, Matcher, Policy, PolicyError};
use crate::domains::Domains;
use crate::profile::{CallerKind, Operation};

/// Hypercall numbers below this are Xen's to give out; it fails all others with ENOSYS (Xen
/// include/asm-x86/hypercall.h, `NR_hypercalls`).
const NUMBERS: u64 = 64;
/// `__HYPERVISOR_iret` (Xen public/xen.h), which cannot be refused: it never returns to its caller.
const IRET: u64 = 23;
/// Calls that one rule names.
const PER_RULE: usize = 64;

impl Policy {
    /// The rules that whatever is not listed matches. With `deny` they ask for the call to be refused with `EPERM`, else
    /// for an alert. An entry for a domain's name needs the domain among `domains`.
    ///
    /// # Errors
    /// When a domain is not known; also if the rules do not load, which is a bug.
    pub fn to_rules(&self, domains: &Domains, deny: bool) -> Result<Rules, PolicyError> {
        let texts = self.to_rule_texts(domains, deny)?;
        let sources =
            texts.into_iter().map(|(id, text)| (PathBuf::from(format!("{id}.yaml")), text)).collect();
        Rules::from_texts(sources).map_err(|error| PolicyError::Rules(error.to_string()))
    }

    /// As [`Policy::to_rules`], but the rule files themselves: id and text.
    ///
    /// # Errors
    /// When a domain is not known.
    pub fn to_rule_texts(&self, domains: &Domains, deny: bool) -> Result<Vec<(String, String)>, PolicyError> {
        let mut named = BTreeMap::new();
        for entry in &self.entries {
            if let Matcher::Name(name) = &entry.matcher {
                let found = domains.iter().find(|domain| domain.name == *name).map(|domain| domain.id);
                let unknown = || PolicyError::UnknownDomain { name: name.clone() };
                named.insert(name.as_str(), found.ok_or_else(unknown)?);
            }
        }
        let mut texts = Vec::new();
        for entry in &self.entries {
            let who = Who::new(entry, &named);
            Writer { entry, who, deny, texts: &mut texts }.write();
        }
        Ok(texts)
    }
}

/// How the ids of a policy's rules begin.
pub const POLICY_PREFIX: &str = "policy.";

/// An entry's domains.
struct Who {
    /// In rules' ids.
    id: String,
    /// In titles.
    title: String,
    /// As a condition.
    condition: String,
}

impl Who {
    fn new(entry: &Entry, named: &BTreeMap<&str, u16>) -> Self {
        let kind = match &entry.matcher {
            Matcher::Name(name) => {
                let id = named.get(name.as_str()).copied().unwrap_or(u16::MAX);
                return Self {
                    id: format!("dom{id}"),
                    title: format!("domain {id}"),
                    condition: format!("domain == {id}"),
                };
            }
            Matcher::Kind(kind) => *kind,
        };
        let mut condition = match kind {
            CallerKind::Privileged => "privileged".to_owned(),
            other => format!("!privileged && kind == '{}'", other.name()),
        };
        // What another entry names is not this one's.
        for id in named.values() {
            let _ = write!(condition, " && domain != {id}");
        }
        Self { id: kind.name().to_owned(), title: format!("{} domain", kind.name()), condition }
    }
}

struct Writer<'p> {
    entry: &'p Entry,
    who: Who,
    deny: bool,
    texts: &'p mut Vec<(String, String)>,
}

impl Writer<'_> {
    fn write(&mut self) {
        let allowed: Vec<(Operation, &Limits)> = self
            .entry
            .allowed
            .iter()
            .filter_map(|(name, limits)| Some((Operation::parse(name)?, limits)))
            .collect();
        let numbers: BTreeSet<u64> = allowed.iter().map(|(operation, _)| operation.number).collect();
        self.write_calls(&numbers);
        for call in XEN.calls.iter().copied().flatten().filter(|call| numbers.contains(&call.number)) {
            let listed: Vec<u64> = allowed
                .iter()
                .filter(|(operation, _)| operation.number == call.number)
                .filter_map(|(operation, _)| operation.sub_op)
                .collect();
            let all = allowed
                .iter()
                .any(|(operation, _)| *operation == Operation { number: call.number, sub_op: None });
            if !all {
                self.write_sub_ops(call, &listed);
            }
        }
        for (operation, limits) in allowed {
            self.write_limits(operation, limits);
        }
    }

    /// Hypercalls that are not listed at all.
    fn write_calls(&mut self, listed: &BTreeSet<u64>) {
        let unlisted =
            (0..NUMBERS).filter(|number| !(listed.contains(number) || self.deny && *number == IRET));
        let names: Vec<String> = unlisted.map(|number| on(number, None)).collect();
        let title = format!("A {} makes a hypercall that the policy does not list", self.who.title);
        self.write_chunks("calls", &title, &names);
        let title = format!("A {} makes a hypercall that Xen does not have", self.who.title);
        let listed: Vec<u64> = listed.iter().copied().filter(|number| *number >= NUMBERS).collect();
        let condition = format!("number >= {NUMBERS}{}", none_of("number", &listed));
        // Xen refuses these by itself, and a rule for every call cannot.
        self.write_rule("unknown-calls", &title, &["*".to_owned()], &condition, false);
        if self.deny && !self.entry.allowed.contains_key("iret") {
            let title = format!("A {} makes a hypercall that the policy does not list", self.who.title);
            self.write_rule("iret", &title, &["iret".to_owned()], "", false);
        }
    }

    /// Sub-ops of a listed hypercall that are not.
    fn write_sub_ops(&mut self, call: &Hypercall, listed: &[u64]) {
        let Some(ops) = call.sub_ops.map(|sub_ops| sub_ops.ops) else { return };
        let unlisted = ops.iter().filter(|op| !listed.contains(&op.number));
        let names: Vec<String> = unlisted.map(|op| on(call.number, Some(op.number))).collect();
        let title =
            format!("A {} makes a sub-op of {} that the policy does not list", self.who.title, call.name);
        self.write_chunks(&format!("{}.sub-ops", call.name), &title, &names);
        let title = format!("A {} makes a sub-op of {} that does not exist", self.who.title, call.name);
        let unknown: Vec<u64> =
            listed.iter().copied().filter(|number| call.sub_op(*number).is_none()).collect();
        let condition = format!("has(sub_op_number) && !has(sub_op){}", none_of("sub_op_number", &unknown));
        self.write_rule(
            &format!("{}.unknown", call.name),
            &title,
            &[call.name.to_owned()],
            &condition,
            self.deny,
        );
    }

    /// What goes beyond a listed call's limits.
    fn write_limits(&mut self, operation: Operation, limits: &Limits) {
        let sizes = limits.max.iter().map(|(path, most)| beyond(path, &|field| format!("{field} > {most}")));
        let flags = limits.flags.iter().filter_map(|(path, names)| {
            let scalar = find(operation, path)?;
            let Show::Flags(set) = scalar.show else { return None };
            let allowed =
                names.iter().filter_map(|name| flag_bits(set, name)).fold(0, |all, bits| all | bits);
            let others = all_bits(scalar.int) & !allowed;
            (others != 0).then(|| beyond(path, &|field| format!("math.bitAnd({field}, {others:#x}) != 0")))
        });
        let conditions: Vec<String> = sizes.chain(flags).collect();
        if conditions.is_empty() {
            return;
        }
        let name = operation.name();
        let title =
            format!("A {} makes {name} larger or with other flags than the policy allows", self.who.title);
        // Xen keeps its own state in the arguments of a call that it has the guest issue again.
        let condition = format!("!continuation && ({})", conditions.join(" || "));
        let id = limits_id(operation);
        self.write_rule(
            &id,
            &title,
            &[on(operation.number, operation.sub_op)],
            &condition,
            self.deny && operation.number != IRET,
        );
    }

    fn write_chunks(&mut self, id: &str, title: &str, names: &[String]) {
        for (at, chunk) in names.chunks(PER_RULE).enumerate() {
            let id = if at == 0 { id.to_owned() } else { format!("{id}.{}", at + 1) };
            self.write_rule(&id, title, chunk, "", self.deny);
        }
    }

    fn write_rule(&mut self, id: &str, title: &str, names: &[String], condition: &str, deny: bool) {
        let id = format!("{POLICY_PREFIX}{}.{id}", self.who.id);
        let names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
        let and = if condition.is_empty() { "" } else { " && " };
        let when = quoted(&format!("{}{and}{condition}", self.who.condition));
        let action = if deny { "action: deny\nerrno: EPERM\n" } else { "action: alert\n" };
        let text = format!(
            "id: {id}\ntitle: {}\ndescription: The policy lists what these domains use; this is something else.\n\
             blind_spots: What a domain does with calls that the policy lists.\nreferences: []\nseverity: medium\n\
             tags: [policy]\non: [{}]\nwhen: {when}\n{action}",
            quoted(title),
            names.join(", "),
        );
        self.texts.push((id, text));
    }
}

/// A short name that no other operation has: ids have at most 64 letters. Old forms of a call have the same sub-ops.
fn limits_id(operation: Operation) -> String {
    let call = XEN.call(operation.number);
    match call.and_then(|call| Some((call.name, call.sub_op(operation.sub_op?)?.name))) {
        Some((call, sub_op)) if call.ends_with("_compat") => format!("{sub_op}.compat"),
        Some((_, sub_op)) => sub_op.to_owned(),
        None => operation.name().replace('/', "."),
    }
}

/// As a rule's `on` has it.
fn on(number: u64, sub_op: Option<u64>) -> String {
    let call = XEN.call(number).map_or_else(|| number.to_string(), |call| call.name.to_owned());
    match (Operation { number, sub_op }).sub_op_name() {
        Some(sub_op) => format!("{call}/{sub_op}"),
        None => call,
    }
}

/// ` && x != 1 && x != 2`
fn none_of(name: &str, numbers: &[u64]) -> String {
    numbers.iter().map(|number| format!(" && {name} != {number}")).collect()
}

/// The condition `test` on the field at `path`, or on any element if a list stands in it.
fn beyond(path: &str, test: &dyn Fn(&str) -> String) -> String {
    match path.split_once("[]") {
        Some((list, rest)) => format!("args.{list}.exists(e, {})", test(&format!("e{rest}"))),
        None => test(&format!("args.{path}")),
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}
