//! YAML as nodes that know where they stand.
//!
//! Only what a rule needs: one document of maps, lists and scalars. Anchors, aliases and tags are refused, so no small
//! file stands for a large tree; nodes and depth are bounded.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use crate::problem::Place;

/// The most nodes of a file.
const MAX_NODES: usize = 4096;
/// The deepest nesting.
const MAX_DEPTH: usize = 16;

/// What stands somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

/// Text, a number or a truth value: what it is depends on who reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    /// Written without quotes, so that it may also be a number, a truth value or nothing.
    pub(crate) plain: bool,
    /// Where the text's own lines and columns lie in the file, if that is simple to tell.
    pub(crate) layout: TextLayout,
}

/// How positions in a scalar's text become positions in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextLayout {
    /// On one line, from this column.
    Line(Place),
    /// Line by line from this one, indented alike.
    Block(Place),
    /// Folded or escaped: only where it starts is known.
    Start(Place),
}

impl Scalar {
    /// Where character `offset` of the text stands in the file.
    pub(crate) fn place(&self, offset: usize) -> Place {
        match self.layout {
            TextLayout::Line(place) => Place { column: place.column + offset as u32, ..place },
            TextLayout::Start(place) => place,
            TextLayout::Block(place) => {
                let before = self.text.get(..offset).unwrap_or(&self.text);
                let line = before.matches('\n').count();
                let column = before.len() - before.rfind('\n').map_or(0, |end| end + 1);
                Place { line: place.line + line as u32, column: place.column + column as u32 }
            }
        }
    }
}

/// A node of the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) at: Place,
    pub(crate) content: Content,
}

impl Node {
    pub(crate) fn what(&self) -> &'static str {
        match &self.content {
            Content::Scalar(_) => "a single value",
            Content::List(_) => "a list",
            Content::Map(_) => "a map",
        }
    }
}

/// A file that is no YAML, or more of YAML than a rule may use.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct YamlError {
    pub(crate) at: Place,
    pub(crate) message: String,
}

fn place(span: Span) -> Place {
    Place { line: span.start.line() as u32, column: span.start.col() as u32 + 1 }
}

fn refuse<T>(at: Place, message: impl Into<String>) -> Result<T, YamlError> {
    Err(YamlError { at, message: message.into() })
}

const TAG_HINT: &str = "tags (`!…`) are not used in rules; put a condition that begins with `!` in quotes";
const ALIAS_HINT: &str =
    "aliases and anchors (`*…`, `&…`) are not used in rules; write `*` for every call in quotes";

/// Reads the one document in `text`.
pub(crate) fn parse(text: &str) -> Result<Node, YamlError> {
    let mut reader = Reader { text, open: Vec::new(), root: None, nodes: 0 };
    for event in Parser::new_from_str(text) {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => {
                let marker = error.marker();
                let at = Place { line: marker.line() as u32, column: marker.col() as u32 + 1 };
                return refuse(at, format!("not valid YAML: {}{}", error.info(), hint(text, at)));
            }
        };
        reader.event(event, span)?;
    }
    reader.root.map_or_else(|| refuse(Place::default(), "the file is empty"), Ok)
}

/// What people most often forget to put in quotes.
fn hint(text: &str, at: Place) -> &'static str {
    let line = text.lines().nth((at.line as usize).saturating_sub(1)).unwrap_or("");
    let value = line.split_once(": ").map_or("", |(_, value)| value.trim_start());
    if value.starts_with('!') {
        " (put a condition that begins with `!` in quotes)"
    } else if value.starts_with('*') {
        " (write `*` for every call in quotes)"
    } else {
        ""
    }
}

/// A list or map whose end has not come.
struct Open {
    at: Place,
    map: bool,
    items: Vec<Node>,
}

struct Reader<'t> {
    text: &'t str,
    open: Vec<Open>,
    root: Option<Node>,
    nodes: usize,
}

impl Reader<'_> {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), YamlError> {
        let at = place(span);
        match event {
            Event::Alias(_) => refuse(at, ALIAS_HINT),
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => refuse(at, TAG_HINT),
            Event::Scalar(_, _, anchor, _)
            | Event::SequenceStart(anchor, _)
            | Event::MappingStart(anchor, _)
                if anchor != 0 =>
            {
                refuse(at, ALIAS_HINT)
            }
            Event::Scalar(text, style, ..) => {
                let scalar = self.scalar(text.into_owned(), style, span);
                self.add(Node { at, content: Content::Scalar(scalar) })
            }
            Event::SequenceStart(..) => self.begin(at, false),
            Event::MappingStart(..) => self.begin(at, true),
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::DocumentStart(_) if self.root.is_some() => refuse(at, "a file holds one rule"),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    fn scalar(&self, text: String, style: ScalarStyle, span: Span) -> Scalar {
        let at = place(span);
        let one_line = span.start.line() == span.end.line();
        let layout = match style {
            ScalarStyle::Plain if one_line => TextLayout::Line(at),
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted if one_line => {
                TextLayout::Line(Place { column: at.column + 1, ..at })
            }
            ScalarStyle::Literal => self.block(at),
            _ => TextLayout::Start(at),
        };
        Scalar { text, plain: style == ScalarStyle::Plain, layout }
    }

    /// The text of a literal block begins on the next line that is not empty, behind its indentation.
    fn block(&self, at: Place) -> TextLayout {
        let indent = |line: &str| line.len() - line.trim_start_matches(' ').len();
        // Some spans begin at the `|`, others at the text behind it.
        let line = self.text.lines().nth((at.line as usize).saturating_sub(1)).unwrap_or("");
        let first = if line.trim_end().ends_with(['|', '-', '+']) { at.line + 1 } else { at.line };
        match self.text.lines().nth((first as usize).saturating_sub(1)) {
            Some(line) if !line.trim().is_empty() => {
                TextLayout::Block(Place { line: first, column: indent(line) as u32 + 1 })
            }
            _ => TextLayout::Start(at),
        }
    }

    fn begin(&mut self, at: Place, map: bool) -> Result<(), YamlError> {
        if self.open.len() >= MAX_DEPTH {
            return refuse(at, format!("more than {MAX_DEPTH} levels of nesting"));
        }
        self.open.push(Open { at, map, items: Vec::new() });
        Ok(())
    }

    fn end(&mut self) -> Result<(), YamlError> {
        let Some(Open { at, map, items }) = self.open.pop() else { return Ok(()) };
        let content = if map { Content::Map(pairs(items)?) } else { Content::List(items) };
        self.add(Node { at, content })
    }

    fn add(&mut self, node: Node) -> Result<(), YamlError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return refuse(node.at, format!("more than {MAX_NODES} values in one file"));
        }
        match self.open.last_mut() {
            Some(open) => open.items.push(node),
            None => self.root = Some(node),
        }
        Ok(())
    }
}

/// Keys and values of a map, in turn.
fn pairs(items: Vec<Node>) -> Result<Vec<(Node, Node)>, YamlError> {
    let mut pairs: Vec<(Node, Node)> = Vec::new();
    let mut items = items.into_iter();
    while let (Some(key), Some(value)) = (items.next(), items.next()) {
        let Content::Scalar(scalar) = &key.content else {
            return refuse(key.at, "a key has to be a single word");
        };
        let same =
            |known: &Node| matches!(&known.content, Content::Scalar(known) if known.text == scalar.text);
        if pairs.iter().any(|(known, _)| same(known)) {
            return refuse(key.at, format!("`{}` is there twice", scalar.text));
        }
        pairs.push((key, value));
    }
    Ok(pairs)
}
