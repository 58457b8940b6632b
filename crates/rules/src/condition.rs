//! Conditions as trees: CEL, parsed by the `cel` crate and brought into a form of our own.
//!
//! Two things of CEL get in the way of Xen's names and numbers, so the text is prepared before it is parsed: a field
//! may be called `in`, and `0xffff830000000000` is a number without a `u` behind it. `has`, `exists` and `all` are
//! kept from being expanded, so that they can be checked as what they are. Positions are those of the text as written.

use cel::common::ast::{Expr as Cel, IdedExpr, LiteralValue, SourceInfo, operators};
use cel::parser::Parser;

/// The longest condition in bytes.
pub(crate) const MAX_TEXT_BYTES: usize = 4096;
/// The deepest nesting of a condition.
pub(crate) const MAX_DEPTH: usize = 24;

/// What an expression is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Bool(bool),
    Int(i128),
    Text(String),
    Name(String),
    /// `of.field`
    Select(Box<Expr>, String),
    /// `of[at]`
    Index(Box<Expr>, Box<Expr>),
    /// `name(args)` or `target.name(args)`; operators have CEL's names, e.g. `_&&_`.
    Call(Option<Box<Expr>>, String, Vec<Expr>),
    List(Vec<Expr>),
    /// What could not be parsed, which has been said already.
    Broken,
}

/// An expression, and where it starts in the condition's text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Expr {
    pub(crate) at: usize,
    pub(crate) kind: Kind,
}

impl Expr {
    /// Whether the function `name` is called anywhere in it.
    pub(crate) fn calls(&self, name: &str) -> bool {
        match &self.kind {
            Kind::Select(of, _) => of.calls(name),
            Kind::Index(of, at) => of.calls(name) || at.calls(name),
            Kind::List(items) => items.iter().any(|item| item.calls(name)),
            Kind::Call(target, called, args) => {
                called == name
                    || target.as_ref().is_some_and(|target| target.calls(name))
                    || args.iter().any(|arg| arg.calls(name))
            }
            Kind::Bool(_) | Kind::Int(_) | Kind::Text(_) | Kind::Name(_) | Kind::Broken => false,
        }
    }
}

/// What is wrong with a condition's form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flaw {
    /// Where in the text, in bytes.
    pub(crate) at: usize,
    pub(crate) message: String,
}

/// Parses a condition.
pub(crate) fn parse(text: &str) -> Result<Expr, Vec<Flaw>> {
    let flaw = |at, message: String| Err(vec![Flaw { at, message }]);
    if text.len() > MAX_TEXT_BYTES {
        return flaw(0, format!("condition of {} bytes, more than {MAX_TEXT_BYTES}", text.len()));
    }
    if let Some(at) = text.bytes().position(|byte| !(byte.is_ascii_graphic() || b" \t\r\n".contains(&byte))) {
        return flaw(at, "a condition has ASCII characters only".into());
    }
    if text.trim().is_empty() {
        return flaw(0, "the condition is empty".into());
    }
    if let Some(at) = too_deep(text) {
        return flaw(at, format!("more than {MAX_DEPTH} levels of brackets"));
    }
    let prepared = Prepared::of(text);
    let parser = Parser::new().enable_ident_escape_syntax(true).max_recursion_depth(96);
    match parser.parse_with_source_info(&prepared.text) {
        Ok((tree, info)) => {
            Conversion { prepared: &prepared, info: &info }.expr(&tree, 0).map_err(|flaw| vec![flaw])
        }
        Err(errors) => Err(errors
            .errors
            .iter()
            // The others follow from the first.
            .take(1)
            .map(|error| Flaw { at: prepared.offset(error.pos), message: syntax(&error.msg) })
            .collect()),
    }
}

/// Where brackets, or signs in a row, nest deeper than the parser should have to follow.
fn too_deep(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut signs = 0_usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        signs = match byte {
            b'!' | b'-' => signs + 1,
            b' ' => signs,
            _ => 0,
        };
        if depth > MAX_DEPTH || signs > MAX_DEPTH {
            return Some(at);
        }
    }
    None
}

/// The parser's message, without the tool's own words.
fn syntax(message: &str) -> String {
    let message = message.trim_start_matches("Syntax error: ");
    let hint = if message.contains("error at: '= ") { "; equality is `==`" } else { "" };
    format!("not a condition: {message}{hint}")
}

const KEYWORDS: [&str; 4] = ["in", "true", "false", "null"];
const MACROS: [&str; 8] = ["has", "exists", "all", "exists_one", "existsOne", "map", "filter", "optMap"];

/// Text ready for the parser, and where each of its bytes comes from.
struct Prepared {
    text: String,
    origin: Vec<u32>,
}

impl Prepared {
    fn of(text: &str) -> Self {
        let mut prepared = Self { text: String::new(), origin: Vec::new() };
        let mut at = 0;
        let mut behind_dot = false;
        while let Some(first) = text.as_bytes().get(at).copied() {
            let rest = &text[at..];
            let len = token_len(rest, first);
            let token = &rest[..len];
            let called = rest[len..].trim_start().starts_with('(');
            if behind_dot && KEYWORDS.contains(&token) {
                prepared.add(at, &format!("`{token}`"));
            } else if called && MACROS.contains(&token) {
                prepared.add(at, &format!("_{token}"));
            } else if first.is_ascii_digit() && is_large(token) {
                prepared.add(at, &format!("{token}u"));
            } else {
                prepared.add(at, token);
            }
            if !first.is_ascii_whitespace() {
                behind_dot = first == b'.';
            }
            at += len;
        }
        prepared
    }

    fn add(&mut self, at: usize, token: &str) {
        self.origin.resize(self.origin.len() + token.len(), at as u32);
        self.text.push_str(token);
    }

    /// Where a place of the prepared text, as line from 1 and column, lies in the condition.
    fn offset(&self, (line, column): (isize, isize)) -> usize {
        let line = usize::try_from(line - 1).unwrap_or(0);
        let start: usize = self.text.split_inclusive('\n').take(line).map(str::len).sum();
        self.at(start + usize::try_from(column - 1).unwrap_or(0))
    }

    fn at(&self, offset: usize) -> usize {
        self.origin.get(offset).or(self.origin.last()).map_or(0, |at| *at as usize)
    }
}

/// Bytes of the token that `rest` begins with: a word, a number, a quoted text, or one character.
fn token_len(rest: &str, first: u8) -> usize {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if word(first) {
        return rest.bytes().position(|byte| !word(byte)).unwrap_or(rest.len());
    }
    if first != b'\'' && first != b'"' {
        return 1;
    }
    let mut escaped = false;
    for (index, byte) in rest.bytes().enumerate().skip(1) {
        if !escaped && byte == first {
            return index + 1;
        }
        escaped = !escaped && byte == b'\\';
    }
    rest.len()
}

/// Whether a number without a suffix is an unsigned one only.
fn is_large(token: &str) -> bool {
    let value = match token.strip_prefix("0x").or_else(|| token.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => token.parse(),
    };
    value.is_ok_and(|value| value > i64::MAX.cast_unsigned())
}

struct Conversion<'p> {
    prepared: &'p Prepared,
    info: &'p SourceInfo,
}

impl Conversion<'_> {
    fn expr(&self, tree: &IdedExpr, depth: usize) -> Result<Expr, Flaw> {
        let at = self.info.offset_for(tree.id).map_or(0, |(start, _)| self.prepared.at(start as usize));
        let refuse = |what: &str| Err(Flaw { at, message: format!("{what} are not used in conditions") });
        if depth > MAX_DEPTH {
            return Err(Flaw { at, message: format!("the condition nests deeper than {MAX_DEPTH}") });
        }
        let list = |items: &[IdedExpr]| -> Result<Vec<Expr>, Flaw> {
            items.iter().map(|item| self.expr(item, depth + 1)).collect()
        };
        let kind = match &tree.expr {
            Cel::Literal(literal) => match literal {
                LiteralValue::Boolean(value) => Kind::Bool(*value.inner()),
                LiteralValue::Int(value) => Kind::Int(i128::from(*value.inner())),
                LiteralValue::UInt(value) => Kind::Int(i128::from(*value.inner())),
                LiteralValue::String(value) => Kind::Text(value.inner().to_owned()),
                LiteralValue::Double(_) => return refuse("fractions"),
                LiteralValue::Bytes(_) => return refuse("byte strings"),
                LiteralValue::Null => {
                    let message = "there is no `null`; ask `has(x)` whether a value is at hand".into();
                    return Err(Flaw { at, message });
                }
            },
            Cel::Ident(name) => Kind::Name(name.trim_start_matches('.').to_owned()),
            Cel::Select(select) => {
                Kind::Select(Box::new(self.expr(&select.operand, depth + 1)?), select.field.clone())
            }
            Cel::List(items) => Kind::List(list(&items.elements)?),
            Cel::Call(call) => match (call.func_name.as_str(), call.args.as_slice()) {
                (operators::INDEX, [of, index]) => {
                    Kind::Index(Box::new(self.expr(of, depth + 1)?), Box::new(self.expr(index, depth + 1)?))
                }
                (name, args) => {
                    let target = call.target.as_ref().map(|target| self.expr(target, depth + 1));
                    let target = target.transpose()?.map(Box::new);
                    let name = name.strip_prefix('_').filter(|name| MACROS.contains(name)).unwrap_or(name);
                    Kind::Call(target, name.to_owned(), list(args)?)
                }
            },
            Cel::Map(_) | Cel::Struct(_) => return refuse("maps"),
            Cel::Comprehension(_) => return refuse("comprehensions"),
            Cel::Unspecified => return Err(Flaw { at, message: "not a condition".into() }),
        };
        Ok(Expr { at, kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_may_be_called_in_and_large_numbers_need_no_suffix() {
        let tree = parse("args.arg.in.nr >= 0xffff830000000000").unwrap();
        let Kind::Call(None, name, args) = tree.kind else { panic!("{tree:?}") };
        assert_eq!(name, "_>=_");
        let fields = |expr: &Expr| match &expr.kind {
            Kind::Select(of, field) => (of.clone(), field.clone()),
            other => panic!("{other:?}"),
        };
        let (of, nr) = fields(&args[0]);
        assert_eq!(nr, "nr");
        assert_eq!(fields(&of).1, "in");
        assert_eq!(args[1].kind, Kind::Int(0xffff_8300_0000_0000));
    }

    #[test]
    fn macros_stay_calls() {
        let tree = parse("args.list.exists(x, has(x.y))").unwrap();
        let Kind::Call(Some(_), name, args) = tree.kind else { panic!("{tree:?}") };
        assert_eq!((name.as_str(), args.len()), ("exists", 2));
        assert!(matches!(&args[1].kind, Kind::Call(None, name, _) if name == "has"));
    }

    #[test]
    fn flaws_say_where() {
        for (text, at) in [("domain == ", 9), ("1.5 < 2", 0), ("a == null", 5), ("has(x) && ((", 11)] {
            let flaws = parse(text).unwrap_err();
            assert!(flaws[0].at.abs_diff(at) <= 1, "{text}: {flaws:?}");
        }
        let deep = format!("{}1{}", "(".repeat(200), ")".repeat(200));
        assert!(parse(&deep).is_err());
        assert!(parse(&"!".repeat(4000)).is_err());
        assert!(parse(&vec!["a"; 1500].join("-")).is_err());
        assert!(parse(&format!("a{}", ".b".repeat(2000))).is_err());
        assert!(parse(&"x".repeat(5000)).is_err());
        assert!(parse("ä").is_err());
        assert!(parse(&format!("{}a", "a ? a : ".repeat(500))).is_err());
        assert!(parse(&format!("{}a", "a in ".repeat(800))).is_err());
        assert!(parse(&format!("{}a", "a < ".repeat(1000))).is_err());
        assert!(parse(&"a.b(c)[0]".repeat(400)).is_err());
        // Long chains of and and or are balanced, so they are fine.
        assert!(parse(&format!("{}a", "a && ".repeat(500))).is_ok());
    }
}
