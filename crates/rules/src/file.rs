//! One rule file: from nodes to checked fields.

use std::collections::HashMap;
use std::path::Path;

use hypovisor_abi::errno;
use hypovisor_verdict::{Action, Moment};

use crate::condition::Expr;
use crate::problem::{Place, Problems};
use crate::rule::{Rule, Sequence, Severity, Step, Target};
use crate::schema::Keys;
use crate::suggest::{did_you_mean, some_of};
use crate::yaml::{Content, Node, Scalar};

mod conditions;
mod targets;
mod windows;

/// The most `let`, exceptions, targets, references or tags of a rule.
const MAX_ITEMS: usize = 128;
/// The most steps of a sequence.
const MAX_STEPS: usize = 8;

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
