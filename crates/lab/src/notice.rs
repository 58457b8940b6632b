//! What dom0 tells over the control channel: one line each, read here. The writer is `assets/dom0-init.sh`.

/// A domain's number, as dom0's toolstack counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabDomainId(pub u16);

/// Something that dom0 wants known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// dom0 has begun, and waits to be greeted.
    Here,
    /// Booting has come so far.
    Stage(String),
    /// The toolstack is up; the work begins.
    Ready,
    /// The toolstack has given a domain its name.
    Domain {
        /// Its number.
        id: LabDomainId,
        /// Its name. A guest's owner chose it: treat it as untrusted text.
        name: String,
    },
    /// A domain is gone from the toolstack's records.
    DomainGone {
        /// Its number.
        id: LabDomainId,
    },
    /// The work has ended with this exit code.
    Exit(i32),
    /// dom0 could not be made ready, and gives up.
    Failed(String),
}

impl Notice {
    /// Reads a line; one that makes no sense is nothing.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.trim_end().split_once(' ').unwrap_or((line.trim_end(), ""));
        match word {
            "stage" => Some(Self::Stage(rest.to_owned())),
            "here" => Some(Self::Here),
            "ready" => Some(Self::Ready),
            "domain" => {
                let (id, name) = rest.split_once(' ')?;
                Some(Self::Domain { id: LabDomainId(id.parse().ok()?), name: name.to_owned() })
            }
            "gone" => Some(Self::DomainGone { id: LabDomainId(rest.parse().ok()?) }),
            "exit" => Some(Self::Exit(rest.parse().ok()?)),
            "failed" => Some(Self::Failed(rest.to_owned())),
            _ => None,
        }
    }
}

/// Puts lines together from the pieces in which they arrive.
#[derive(Default)]
pub(crate) struct Lines {
    partial: Vec<u8>,
}

/// A line that goes on for longer is cut: no notice is nearly as long.
const LONGEST_LINE_BYTES: usize = 4096;

impl Lines {
    /// Takes a piece and returns the notices that it completes.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Vec<Notice> {
        let mut notices = Vec::new();
        for byte in piece {
            if *byte == b'\n' {
                notices.extend(Notice::parse(&String::from_utf8_lossy(&self.partial)));
                self.partial.clear();
            } else if self.partial.len() < LONGEST_LINE_BYTES {
                self.partial.push(*byte);
            }
        }
        notices
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_arrive_in_pieces() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(b"ready\ndoma"), [Notice::Ready]);
        let domain = Notice::Domain { id: LabDomainId(3), name: "web one".to_owned() };
        assert_eq!(lines.push(b"in 3 web one\nexit 7\n"), [domain, Notice::Exit(7)]);
    }

    #[test]
    fn nonsense_is_nothing() {
        for line in ["", "domain x y", "domain 3", "exit", "gone -1", "boo"] {
            assert_eq!(Notice::parse(line), None, "{line}");
        }
    }
}
