//! Conditions: `when`, named sub-expressions, exceptions.

use super::{MAX_ITEMS, Reader, below};
use crate::compile::VALUES;
use crate::condition::{self, Expr};
use crate::rule::Exception;
use crate::schema::Keys;
use crate::yaml::{Content, Node, Scalar};

impl<'r, 'f> Reader<'r, 'f> {
    /// A condition's tree.
    pub(super) fn condition(&mut self, node: &Node, field: &str) -> Option<(String, Expr)> {
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

    pub(super) fn lets(&mut self, node: Option<&Node>) -> Vec<(String, Expr)> {
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
            if !is_word(name) {
                self.problems.add(key.at, &field, "a name has letters, digits and `_`");
            } else if has_meaning(name) {
                self.problems.add(key.at, &field, "the name has a meaning already");
            } else {
                let broken = Expr { at: 0, kind: condition::Kind::Broken };
                let expr = self.condition(value, &field).map_or(broken, |(_, expr)| expr);
                lets.push((name.clone(), expr));
            }
        }
        lets
    }

    pub(super) fn exceptions(&mut self, node: Option<&Node>) -> (Vec<Exception>, Vec<(String, Expr)>) {
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
}

fn is_word(name: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let begins = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    begins && name.chars().all(inside)
}

/// Whether the language uses the name itself.
fn has_meaning(name: &str) -> bool {
    VALUES.iter().any(|(known, _)| *known == name)
        || ["args", "raw_args", "math", "true", "false", "null", "in"].contains(&name)
}
