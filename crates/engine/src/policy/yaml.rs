//! The YAML that a policy needs: maps, lists and scalars that know their line. Anchors, aliases and tags are refused, so
//! no small file stands for a large tree; size and depth are bounded.

use saphyr_parser::{Event, Parser, ScalarStyle};

/// The most nodes of a file.
const MAX_NODES: usize = 200_000;
/// The deepest nesting.
const MAX_DEPTH: usize = 16;

/// What is wrong, and in which line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) line: usize,
    pub(super) what: String,
}

/// A node and its line, from 1.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) line: usize,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Scalar { text: String, plain: bool },
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

impl Node {
    pub(super) fn wrong(&self, what: impl Into<String>) -> Wrong {
        Wrong { line: self.line, what: what.into() }
    }

    /// Its text, if it is a single value.
    pub(super) fn text(&self) -> Result<&str, Wrong> {
        match &self.content {
            Content::Scalar { text, .. } => Ok(text),
            _ => Err(self.wrong("a single value is needed here")),
        }
    }

    /// A number, decimal or `0x…`.
    pub(super) fn number(&self) -> Result<u64, Wrong> {
        let text = self.text()?;
        let number = text
            .strip_prefix("0x")
            .map_or_else(|| text.parse().ok(), |hex| u64::from_str_radix(hex, 16).ok());
        number.ok_or_else(|| self.wrong(format!("{text:?} is no number")))
    }

    /// Its elements, if it is a list.
    pub(super) fn list(&self) -> Result<&[Self], Wrong> {
        match &self.content {
            Content::List(nodes) => Ok(nodes),
            _ if self.is_null() => Ok(&[]),
            _ => Err(self.wrong("a list is needed here")),
        }
    }

    /// Its keys and values, if it is a map.
    pub(super) fn map(&self) -> Result<&[(Self, Self)], Wrong> {
        match &self.content {
            Content::Map(pairs) => Ok(pairs),
            _ if self.is_null() => Ok(&[]),
            _ => Err(self.wrong("a map (`key: value`) is needed here")),
        }
    }

    fn is_null(&self) -> bool {
        matches!(&self.content, Content::Scalar { text, plain: true } if text.is_empty() || text == "~" || text == "null")
    }
}

/// A list or map that is not complete.
struct Open {
    line: usize,
    is_map: bool,
    nodes: Vec<Node>,
}

/// Reads the one document in `text`.
pub(super) fn parse(text: &str) -> Result<Node, Wrong> {
    let (mut open, mut root, mut count): (Vec<Open>, Option<Node>, usize) = (Vec::new(), None, 0);
    for event in Parser::new_from_str(text) {
        let (event, span) =
            event.map_err(|error| Wrong { line: error.marker().line(), what: error.info().to_owned() })?;
        let line = span.start.line();
        let refuse = |what: String| Err(Wrong { line, what });
        let node = match event {
            Event::Alias(_) => return refuse("aliases (`*…`) are not used here".to_owned()),
            Event::Scalar(_, _, anchor, ref tag)
            | Event::SequenceStart(anchor, ref tag)
            | Event::MappingStart(anchor, ref tag)
                if anchor != 0 || tag.is_some() =>
            {
                return refuse("anchors (`&…`) and tags (`!…`) are not used here".to_owned());
            }
            Event::Scalar(text, style, ..) => {
                let content = Content::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain };
                Node { line, content }
            }
            Event::SequenceStart(..) | Event::MappingStart(..) if open.len() == MAX_DEPTH => {
                return refuse(format!("more than {MAX_DEPTH} levels of nesting"));
            }
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                open.push(Open { line, is_map: matches!(event, Event::MappingStart(..)), nodes: Vec::new() });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(closed) => closed.into_node()?,
                None => continue,
            },
            Event::DocumentStart(_) if root.is_some() => {
                return refuse("a second document begins here".to_owned());
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => continue,
        };
        count += 1;
        if count > MAX_NODES {
            return refuse(format!("more than {MAX_NODES} values"));
        }
        match open.last_mut() {
            Some(open) => open.nodes.push(node),
            None => root = Some(node),
        }
    }
    root.ok_or_else(|| Wrong { line: 1, what: "the file is empty".to_owned() })
}

impl Open {
    fn into_node(self) -> Result<Node, Wrong> {
        let line = self.line;
        if !self.is_map {
            return Ok(Node { line, content: Content::List(self.nodes) });
        }
        let (mut pairs, mut nodes) = (Vec::<(Node, Node)>::new(), self.nodes.into_iter());
        let mut keys = std::collections::HashSet::new();
        while let (Some(key), Some(value)) = (nodes.next(), nodes.next()) {
            if !keys.insert(key.text()?.to_owned()) {
                return Err(key.wrong(format!("{:?} is there twice", key.text()?)));
            }
            pairs.push((key, value));
        }
        Ok(Node { line, content: Content::Map(pairs) })
    }
}
