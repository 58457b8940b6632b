//! One rule file: from nodes to checked fields.

use std::collections::HashMap;
use std::path::Path;

use hypovisor_abi::xen::XEN;
use hypovisor_abi::{Hypercall, SubOpFrom, errno};
use hypovisor_verdict::{Action, Moment, NUMBERS};

use crate::condition::{self, Expr};
use crate::problem::{Place, Problems};
use crate::rule::{Exception, Rate, Rule, Sequence, Severity, Step, Target, Window};
use crate::schema::Keys;
use crate::suggest::{did_you_mean, some_of};
use crate::yaml::{Content, Node, Scalar};

/// The most `let`, exceptions, targets, references or tags of a rule.
const MAX_ITEMS: usize = 128;
/// The most steps of a sequence.
const MAX_STEPS: usize = 8;
/// The longest window: a day, and as many calls as a domain may make in one.
const MAX_WINDOW_NS: u64 = 86_400_000_000_000;
/// The most matches that a rate counts to.
const MAX_RATE: u64 = 1_000_000;

/// A condition and the calls it is for.
pub(crate) struct Part {
    pub(crate) on: Vec<(Target, Place)>,
    /// The field that `on` is.
    pub(crate) on_field: String,
    /// The field that the condition is, and its tree; `None`: always true.
    pub(crate) when: Option<(String, Expr)>,
}

/// A file that could be read, with what the compiler needs.
pub(crate) struct Draft {
    pub(crate) rule: Rule,
    pub(crate) lets: Vec<(String, Expr)>,
    pub(crate) exceptions: Vec<(String, Expr)>,
    /// One, or one for each step of a sequence.
    pub(crate) parts: Vec<Part>,
    /// The texts of conditions by field, for the places of what is wrong in them.
    pub(crate) texts: HashMap<String, Scalar>,
    /// Where fields stand.
    pub(crate) places: HashMap<String, Place>,
}

impl Draft {
    /// Whether the condition of a part, or an exception, looks at every handle of a call.
    pub(crate) fn asks_for_handles(&self, part: usize) -> bool {
        let when = self.parts.get(part).and_then(|part| part.when.as_ref());
        let trees = when.into_iter().chain(&self.exceptions).chain(&self.lets);
        trees.into_iter().any(|(_, tree)| {
            tree.calls("handles_in_xen") || tree.calls("handles_not_canonical") || tree.calls("any_handle")
        })
    }

    /// Where character `at` of a condition stands.
    pub(crate) fn place(&self, field: &str, at: usize) -> Place {
        match self.texts.get(field) {
            Some(text) => text.place(at),
            None => self.places.get(field).copied().unwrap_or_default(),
        }
    }
}

/// Reads the fields of a file. `None` if it is not even a map; else problems say what is missing.
pub(crate) fn read(path: &Path, root: &Node, problems: &mut Problems<'_>) -> Option<Draft> {
    let mut reader = Reader { problems, texts: HashMap::new(), places: HashMap::new() };
    let Content::Map(_) = &root.content else {
        reader.problems.add(root.at, "", format!("a rule is a map of fields, this is {}", root.what()));
        return None;
    };
    let fields = reader.fields(root, "", &Keys::of_file());
    Some(reader.draft(path, root, &fields))
}

/// The values of a map by key.
struct Fields<'n>(HashMap<&'n str, &'n Node>);

impl<'n> Fields<'n> {
    fn get(&self, key: &str) -> Option<&'n Node> {
        self.0.get(key).copied()
    }
}

struct Reader<'r, 'f> {
    problems: &'r mut Problems<'f>,
    texts: HashMap<String, Scalar>,
    places: HashMap<String, Place>,
}

fn below(field: &str, key: &str) -> String {
    if field.is_empty() { key.to_owned() } else { format!("{field}.{key}") }
}

impl<'r, 'f> Reader<'r, 'f> {
    fn refuse(&mut self, node: &Node, field: &str, message: impl Into<String>) {
        self.problems.add(node.at, field, message);
    }

    /// The known keys of a map; complains of others and of those that are missing.
    fn fields<'n>(&mut self, node: &'n Node, field: &str, keys: &Keys) -> Fields<'n> {
        let mut fields = HashMap::new();
        let Content::Map(pairs) = &node.content else {
            self.refuse(node, field, format!("a map is needed here, this is {}", node.what()));
            return Fields(fields);
        };
        let known = || keys.0.iter().map(|(key, ..)| key.as_str());
        for (key, value) in pairs {
            let Content::Scalar(Scalar { text, .. }) = &key.content else { continue };
            self.places.insert(below(field, text), value.at);
            if known().any(|known| known == text) {
                fields.insert(text.as_str(), value);
            } else {
                let suggestion = did_you_mean(text, known());
                let suggestion = if suggestion.is_empty() {
                    format!("; there are {}", some_of(known()))
                } else {
                    suggestion
                };
                self.problems.add(key.at, field, format!("unknown field `{}`{suggestion}", short(text)));
            }
        }
        for (key, required, _) in &keys.0 {
            if *required && !fields.contains_key(key.as_str()) {
                self.refuse(node, &below(field, key), "is missing");
            }
        }
        Fields(fields)
    }

    fn scalar<'n>(&mut self, node: &'n Node, field: &str) -> Option<&'n Scalar> {
        if let Content::Scalar(scalar) = &node.content {
            return Some(scalar);
        }
        self.refuse(node, field, format!("a single value is needed here, this is {}", node.what()));
        None
    }

    /// Text that is not empty.
    fn text(&mut self, node: Option<&Node>, field: &str) -> String {
        let Some(node) = node else { return String::new() };
        let text = self.scalar(node, field).map(|scalar| scalar.text.trim().to_owned());
        if text.as_deref() == Some("") {
            self.refuse(node, field, "is empty");
        }
        text.unwrap_or_default()
    }

    fn list<'n>(&mut self, node: Option<&'n Node>, field: &str) -> Vec<(String, &'n Node)> {
        let Some(node) = node else { return Vec::new() };
        let Content::List(items) = &node.content else {
            self.refuse(node, field, format!("a list is needed here, this is {}", node.what()));
            return Vec::new();
        };
        if items.len() > MAX_ITEMS {
            self.refuse(node, field, format!("{} items, more than {MAX_ITEMS}", items.len()));
        }
        items.iter().take(MAX_ITEMS).enumerate().map(|(i, item)| (format!("{field}[{i}]"), item)).collect()
    }

    fn texts(&mut self, node: Option<&Node>, field: &str) -> Vec<String> {
        let items = self.list(node, field);
        items.into_iter().map(|(field, item)| self.text(Some(item), &field)).collect()
    }

    fn draft(mut self, path: &Path, root: &Node, fields: &Fields<'_>) -> Draft {
        let id = self.id(fields.get("id"));
        let title = self.text(fields.get("title"), "title");
        if let Some(node) = fields.get("title").filter(|_| title.contains('\n')) {
            self.refuse(node, "title", "has more than one line");
        }
        let lets = self.lets(fields.get("let"));
        let rate = fields.get("rate").and_then(|node| self.rate(node));
        let (sequence, parts) = self.parts(root, fields);
        let (exceptions, exception_trees) = self.exceptions(fields.get("exceptions"));
        let rule = Rule {
            id,
            title,
            description: self.text(fields.get("description"), "description"),
            blind_spots: self.text(fields.get("blind_spots"), "blind_spots"),
            references: self.texts(fields.get("references"), "references"),
            severity: self.severity(fields.get("severity")),
            tags: self.texts(fields.get("tags"), "tags"),
            on: match (&sequence, parts.first()) {
                (None, Some(part)) => part.on.iter().map(|(target, _)| target.clone()).collect(),
                _ => Vec::new(),
            },
            when: self.texts.get("when").map(|text| text.text.clone()).unwrap_or_default(),
            moment: Moment::Entry,
            rate,
            sequence,
            action: self.action(fields),
            exceptions,
            file: path.to_owned(),
        };
        if let Some(node) = fields.get("sequence")
            && fields.get("rate").is_some()
        {
            self.refuse(node, "sequence", "a rule has a rate or a sequence, not both");
        }
        let (texts, places) = (self.texts, self.places);
        Draft { rule, lets, exceptions: exception_trees, parts, texts, places }
    }

    fn id(&mut self, node: Option<&Node>) -> String {
        let id = self.text(node, "id");
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if let Some(node) = node
            && !id.is_empty()
            && (id.len() > 64 || !id.chars().all(allowed))
        {
            self.refuse(node, "id", "has up to 64 letters, digits, `.`, `_` and `-`");
        }
        id
    }

    fn severity(&mut self, node: Option<&Node>) -> Severity {
        let Some(node) = node else { return Severity::Medium };
        let name = self.text(Some(node), "severity");
        Severity::from_name(&name).unwrap_or_else(|| {
            let known = Severity::ALL.map(Severity::name);
            let suggestion = did_you_mean(&name, known);
            self.refuse(node, "severity", format!("is one of {}{suggestion}", some_of(known)));
            Severity::Medium
        })
    }

    fn action(&mut self, fields: &Fields<'_>) -> Action {
        let name = fields.get("action").map(|node| (node, self.text(Some(node), "action")));
        let errno = fields.get("errno").map(|node| (node, self.errno(node)));
        let action = match &name {
            None => Action::Alert,
            Some((node, name)) => match name.as_str() {
                "alert" => Action::Alert,
                "deny" => Action::Deny { errno: errno.as_ref().map_or(1, |(_, errno)| *errno) },
                "pause" => Action::Pause,
                _ => {
                    let known = ["alert", "deny", "pause"];
                    let suggestion = did_you_mean(name, known);
                    self.refuse(node, "action", format!("is one of {}{suggestion}", some_of(known)));
                    Action::Alert
                }
            },
        };
        if let Some((node, _)) = errno
            && !matches!(action, Action::Deny { .. })
        {
            self.refuse(node, "errno", "is only used with `action: deny`");
        }
        action
    }

    fn errno(&mut self, node: &Node) -> u16 {
        let name = self.text(Some(node), "errno");
        let known: Vec<(u16, &str)> =
            (1..=200).filter_map(|number| Some((number, errno::name(i64::from(number))?))).collect();
        match known.iter().find(|(_, known)| *known == name) {
            Some((number, _)) => *number,
            None => {
                let suggestion = did_you_mean(&name, known.iter().map(|(_, known)| *known));
                self.refuse(node, "errno", format!("Xen has no error `{}`{suggestion}", short(&name)));
                1
            }
        }
    }

    /// A condition's tree. What is simply `true` is none.
    fn condition(&mut self, node: &Node, field: &str) -> Option<(String, Expr)> {
        let scalar = self.scalar(node, field)?;
        self.texts.insert(field.to_owned(), scalar.clone());
        match condition::parse(&scalar.text) {
            Ok(expr) => Some((field.to_owned(), expr)),
            Err(flaws) => {
                for flaw in flaws {
                    self.problems.add(scalar.place(flaw.at), field, flaw.message);
                }
                None
            }
        }
    }

    fn lets(&mut self, node: Option<&Node>) -> Vec<(String, Expr)> {
        let Some(node) = node else { return Vec::new() };
        let Content::Map(pairs) = &node.content else {
            self.refuse(node, "let", format!("a map is needed here, this is {}", node.what()));
            return Vec::new();
        };
        if pairs.len() > MAX_ITEMS {
            self.refuse(node, "let", format!("{} names, more than {MAX_ITEMS}", pairs.len()));
        }
        let mut lets = Vec::new();
        for (key, value) in pairs.iter().take(MAX_ITEMS) {
            let Content::Scalar(Scalar { text: name, .. }) = &key.content else { continue };
            let field = format!("let.{name}");
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let begins = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
            let taken = crate::compile::VALUES.iter().any(|(known, _)| known == name)
                || ["args", "raw_args", "math", "true", "false", "null", "in"].contains(&name.as_str());
            if !begins || !name.chars().all(word) {
                self.problems.add(key.at, &field, "a name has letters, digits and `_`");
            } else if taken {
                self.problems.add(key.at, &field, "the name has a meaning already");
            } else {
                let broken = Expr { at: 0, kind: condition::Kind::Broken };
                let expr = self.condition(value, &field).map_or(broken, |(_, expr)| expr);
                lets.push((name.clone(), expr));
            }
        }
        lets
    }

    fn exceptions(&mut self, node: Option<&Node>) -> (Vec<Exception>, Vec<(String, Expr)>) {
        let (mut exceptions, mut trees) = (Vec::new(), Vec::new());
        let keys = Keys::of_part("Exception");
        for (field, item) in self.list(node, "exceptions") {
            let fields = self.fields(item, &field, &keys);
            let reason = self.text(fields.get("reason"), &below(&field, "reason"));
            let Some(when) = fields.get("when") else { continue };
            let tree = self.condition(when, &below(&field, "when"));
            let text = self.scalar(when, &below(&field, "when")).map(|scalar| scalar.text.clone());
            exceptions.push(Exception { when: text.unwrap_or_default(), reason });
            trees.extend(tree);
        }
        (exceptions, trees)
    }

    fn parts(&mut self, root: &Node, fields: &Fields<'_>) -> (Option<Sequence>, Vec<Part>) {
        let Some(node) = fields.get("sequence") else {
            if fields.get("on").is_none() {
                self.refuse(root, "on", "is missing; name the calls, or `'*'` for every one");
            }
            let part = self.part(fields.get("on"), fields.get("when"), "");
            return (None, vec![part]);
        };
        for key in ["on", "when"] {
            if let Some(node) = fields.get(key) {
                self.refuse(node, key, "a rule with a sequence has it in each step instead");
            }
        }
        let own = self.fields(node, "sequence", &Keys::of_part("Sequence"));
        let window = self.window(node, &own, "sequence");
        let (mut steps, mut parts) = (Vec::new(), Vec::new());
        let keys = Keys::of_part("Step");
        for (field, item) in self.list(own.get("steps"), "sequence.steps") {
            let own = self.fields(item, &field, &keys);
            let part = self.part(own.get("on"), own.get("when"), &field);
            let when = self.texts.get(&below(&field, "when")).map(|text| text.text.clone());
            let on = part.on.iter().map(|(target, _)| target.clone()).collect();
            steps.push(Step { on, when: when.unwrap_or_default(), moment: Moment::Entry });
            parts.push(part);
        }
        if let Some(list) = own.get("steps")
            && !(2..=MAX_STEPS).contains(&steps.len())
        {
            let count = steps.len();
            self.refuse(list, "sequence.steps", format!("has 2 to {MAX_STEPS} steps, not {count}"));
            parts.truncate(MAX_STEPS);
            steps.truncate(MAX_STEPS);
        }
        (Some(Sequence { steps, window }), parts)
    }

    fn part(&mut self, on: Option<&Node>, when: Option<&Node>, field: &str) -> Part {
        let on_field = below(field, "on");
        let on = on.map(|node| self.targets(node, &on_field)).unwrap_or_default();
        let when = when.and_then(|node| self.condition(node, &below(field, "when")));
        Part { on, on_field, when }
    }

    fn targets(&mut self, node: &Node, field: &str) -> Vec<(Target, Place)> {
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

    fn rate(&mut self, node: &Node) -> Option<Rate> {
        let fields = self.fields(node, "rate", &Keys::of_part("Rate"));
        let count = fields.get("count").and_then(|node| self.number(node, "rate.count", 2..=MAX_RATE));
        let window = self.window(node, &fields, "rate");
        Some(Rate { count: count? as u32, window })
    }

    fn number(&mut self, node: &Node, field: &str, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let scalar = self.scalar(node, field)?;
        match scalar.text.parse().ok().filter(|number| range.contains(number)) {
            Some(number) => Some(number),
            None => {
                let message = format!("is a number from {} to {}", range.start(), range.end());
                self.refuse(node, field, message);
                None
            }
        }
    }

    fn window(&mut self, node: &Node, fields: &Fields<'_>, field: &str) -> Window {
        let nothing = Window::Calls(1);
        match (fields.get("within"), fields.get("within_calls")) {
            (Some(within), None) => {
                let field = below(field, "within");
                let Some(scalar) = self.scalar(within, &field) else { return nothing };
                match duration_ns(scalar.text.trim()) {
                    Some(ns) => Window::Nanoseconds(ns),
                    None => {
                        self.refuse(
                            within,
                            &field,
                            "is a duration such as `250ms`, `10s` or `5m`, a day at most",
                        );
                        nothing
                    }
                }
            }
            (None, Some(calls)) => {
                let most = u64::from(u32::MAX);
                let calls = self.number(calls, &below(field, "within_calls"), 2..=most);
                Window::Calls(calls.unwrap_or(1))
            }
            (None, None) => {
                self.refuse(node, field, "needs `within` or `within_calls`");
                nothing
            }
            (Some(_), Some(_)) => {
                self.refuse(node, field, "has `within` or `within_calls`, not both");
                nothing
            }
        }
    }
}

/// Foreign text, cut for a message.
fn short(text: &str) -> String {
    const LONGEST: usize = 80;
    if text.chars().count() <= LONGEST {
        return text.to_owned();
    }
    let start: String = text.chars().take(LONGEST).collect();
    format!("{start}…")
}

/// Whether every call of `inner` is one of `outer`.
fn covers(outer: &Target, inner: &Target) -> bool {
    match (outer.number, outer.sub_op) {
        (None, _) => true,
        (number, None) => number == inner.number,
        (number, sub_op) => number == inner.number && sub_op == inner.sub_op,
    }
}

fn duration_ns(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit_ns = match unit {
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit_ns).filter(|ns| (1..=MAX_WINDOW_NS).contains(ns))
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
