//! Reads a policy that people may have edited.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use hypovisor_abi::Show;

use super::fields::{self, flag_bits};
use super::yaml::{self, Node, Wrong};
use super::{Entry, Limits, Matcher, Policy, PolicyError};
use crate::profile::{CallerKind, Operation};

/// The only version there is.
const VERSION: u64 = 1;
/// A larger file is no policy.
const MAX_BYTES: u64 = 4 << 20;
/// The most entries; each makes some rules.
const MAX_ENTRIES: usize = 64;

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// [`PolicyError`], with the line.
    pub fn load(path: &Path) -> Result<Self, PolicyError> {
        let failed = |source| PolicyError::File { path: path.to_owned(), source };
        let malformed = |Wrong { line, what }| PolicyError::Malformed { path: path.to_owned(), line, what };
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(malformed(Wrong { line: 1, what: format!("more than {MAX_BYTES} bytes") }));
        }
        let text = String::from_utf8(bytes);
        let text =
            text.map_err(|error| malformed(Wrong { line: 1, what: format!("no UTF-8 text: {error}") }))?;
        read(&text).map_err(malformed)
    }

    /// Reads a policy from memory.
    ///
    /// # Errors
    /// What is wrong in which line.
    pub fn from_yaml(text: &str) -> Result<Self, String> {
        read(text).map_err(|Wrong { line, what }| format!("line {line}: {what}"))
    }
}

fn read(text: &str) -> Result<Policy, Wrong> {
    let root = yaml::parse(text)?;
    let mut policy = Policy::default();
    let mut version = None;
    for (key, value) in root.map()? {
        match key.text()? {
            "version" => version = Some(value.number()?),
            "recordings" => policy.recordings = u32::try_from(value.number()?).unwrap_or(u32::MAX),
            "entries" => policy.entries = value.list()?.iter().map(entry).collect::<Result<_, _>>()?,
            other => return Err(key.wrong(format!("{other:?} is none of version, recordings, entries"))),
        }
    }
    if version != Some(VERSION) {
        return Err(root.wrong(format!("`version: {VERSION}` is needed")));
    }
    if policy.entries.len() > MAX_ENTRIES {
        return Err(root.wrong(format!("{} entries, more than {MAX_ENTRIES}", policy.entries.len())));
    }
    for (at, entry) in policy.entries.iter().enumerate() {
        if policy.entries[..at].iter().any(|earlier| earlier.matcher == entry.matcher) {
            return Err(root.wrong(format!("two entries are for {:?}", entry.matcher)));
        }
    }
    Ok(policy)
}

fn entry(node: &Node) -> Result<Entry, Wrong> {
    let (mut matcher, mut allowed) = (None, BTreeMap::new());
    for (key, value) in node.map()? {
        let found = match key.text()? {
            "kind" => Matcher::Kind(kind(value)?),
            "name" => Matcher::Name(value.text()?.to_owned()),
            "calls" => {
                allowed =
                    value.map()?.iter().map(|(name, limits)| call(name, limits)).collect::<Result<_, _>>()?;
                continue;
            }
            other => return Err(key.wrong(format!("{other:?} is none of kind, name, calls"))),
        };
        if matcher.replace(found).is_some() {
            return Err(key.wrong("an entry has either `kind` or `name`"));
        }
    }
    let matcher = matcher.ok_or_else(|| node.wrong("an entry needs `kind` or `name`"))?;
    Ok(Entry { matcher, domains: 0, calls: 0, allowed })
}

fn kind(node: &Node) -> Result<CallerKind, Wrong> {
    let name = node.text()?;
    let names = CallerKind::ALL.map(CallerKind::name).join(", ");
    CallerKind::ALL
        .into_iter()
        .find(|kind| kind.name() == name)
        .ok_or_else(|| node.wrong(format!("{name:?} is none of {names}")))
}

fn call(name: &Node, node: &Node) -> Result<(String, Limits), Wrong> {
    let text = name.text()?;
    let operation = Operation::parse(text).ok_or_else(|| {
        name.wrong(format!(
            "no hypercall or sub-op is called {text:?}; write it as memory_op/XENMEM_exchange"
        ))
    })?;
    let mut limits = Limits::default();
    for (key, value) in node.map()? {
        match key.text()? {
            "max" => {
                for (path, most) in value.map()? {
                    scalar(operation, path)?;
                    limits.max.insert(path.text()?.to_owned(), most.number()?);
                }
            }
            "flags" => {
                for (path, names) in value.map()? {
                    limits.flags.insert(path.text()?.to_owned(), flags(operation, path, names)?);
                }
            }
            other => return Err(key.wrong(format!("{other:?} is none of max, flags"))),
        }
    }
    Ok((operation.name(), limits))
}

fn scalar(operation: Operation, path: &Node) -> Result<&'static hypovisor_abi::Scalar, Wrong> {
    let text = path.text()?;
    fields::find(operation, text)
        .ok_or_else(|| path.wrong(format!("{} has no argument {text:?} that is a number", operation.name())))
}

fn flags(operation: Operation, path: &Node, names: &Node) -> Result<Vec<String>, Wrong> {
    let Show::Flags(set) = scalar(operation, path)?.show else {
        return Err(path.wrong(format!("{} is no set of flags", path.text()?)));
    };
    let one = |node: &Node| {
        let name = node.text()?;
        let known = flag_bits(set, name).is_some();
        if known {
            Ok(name.to_owned())
        } else {
            Err(node.wrong(format!("{name:?} is no flag of {}", set.name)))
        }
    };
    names.list()?.iter().map(one).collect()
}
