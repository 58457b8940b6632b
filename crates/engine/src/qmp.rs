//! A small client for QEMU's monitor protocol: where RAM is, and letting the machine start.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use hypovisor_machine::{Gpa, RamRange};
use serde_json::{Value, json};

/// How long QEMU may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why the monitor did not help.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The socket failed.
    #[error("QEMU's monitor: {0}")]
    Io(#[from] std::io::Error),
    /// QEMU answered with an error or with something else than an answer.
    #[error("QEMU's monitor answered {0}")]
    Answer(String),
    /// The machine has no RAM that could be mapped.
    #[error("QEMU's memory map shows no RAM backend")]
    NoRam,
}

/// A connection to the monitor.
#[derive(Debug)]
pub struct Qmp {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

/// The machine's RAM: the backend's id, and where its bytes stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RamMap {
    /// Id of QEMU's memory backend.
    pub backend: String,
    /// The runs of guest-physical addresses.
    pub ranges: Vec<RamRange>,
}

impl RamMap {
    /// Bytes the backend has at least.
    #[must_use]
    pub fn backend_bytes(&self) -> u64 {
        self.ranges.iter().map(|range| range.file_offset.saturating_add(range.len)).max().unwrap_or(0)
    }
}

impl Qmp {
    /// Connects and goes through the greeting.
    ///
    /// # Errors
    /// When the socket is not there or does not speak QMP.
    pub fn connect(socket: &Path) -> Result<Self, QmpError> {
        Self::connect_within(socket, TIMEOUT)
    }

    /// As [`Qmp::connect`]; gives up on any answer that takes longer than this. QEMU serves one client at a time.
    ///
    /// # Errors
    /// As [`Qmp::connect`].
    pub fn connect_within(socket: &Path, timeout: Duration) -> Result<Self, QmpError> {
        let writer = UnixStream::connect(socket)?;
        writer.set_read_timeout(Some(timeout))?;
        let mut qmp = Self { reader: BufReader::new(writer.try_clone()?), writer };
        qmp.read()?;
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// From now on, gives up on an answer only after as long as by [`Qmp::connect`].
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn be_patient(&self) -> Result<(), QmpError> {
        Ok(self.writer.set_read_timeout(Some(TIMEOUT))?)
    }

    fn read(&mut self) -> Result<Value, QmpError> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        serde_json::from_str(&line).map_err(|_| QmpError::Answer(format!("{:?}", line.trim())))
    }

    /// Runs a command and gives what it returns; events that arrive meanwhile are passed over.
    ///
    /// # Errors
    /// When QEMU refuses it or is gone.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.writer, "{request}")?;
        loop {
            let mut answer = self.read()?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if answer.get("error").is_some() {
                return Err(QmpError::Answer(answer.to_string()));
            }
        }
    }

    /// Lets a machine that was started with `-S` run.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub fn cont(&mut self) -> Result<(), QmpError> {
        self.execute("cont", json!({})).map(|_| ())
    }

    /// Stops the machine; when this returns, no vCPU runs.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub fn stop(&mut self) -> Result<(), QmpError> {
        self.execute("stop", json!({})).map(|_| ())
    }

    /// Whether its processors run.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub fn is_running(&mut self) -> Result<bool, QmpError> {
        Ok(self.execute("query-status", json!({}))?["running"] == true)
    }

    /// What state the machine is in (`RunState`, QEMU qapi/run-state.json).
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub fn status(&mut self) -> Result<String, QmpError> {
        let answer = self.execute("query-status", json!({}))?;
        answer["status"].as_str().map(Into::into).ok_or_else(|| QmpError::Answer(answer.to_string()))
    }

    /// Where the machine's RAM is.
    ///
    /// # Errors
    /// [`QmpError::NoRam`] if the memory map shows none.
    pub fn ram(&mut self) -> Result<RamMap, QmpError> {
        let answer = self.human("info mtree -f")?;
        parse_memory_map(&answer).ok_or(QmpError::NoRam)
    }

    /// What a command of the monitor for people prints.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub fn human(&mut self, line: &str) -> Result<String, QmpError> {
        let answer = self.execute("human-monitor-command", json!({ "command-line": line }))?;
        Ok(answer.as_str().unwrap_or_default().to_owned())
    }

    /// The process that listens: QEMU's.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn pid(&self) -> Result<i32, QmpError> {
        let peer = rustix::net::sockopt::socket_peercred(&self.writer).map_err(std::io::Error::from)?;
        Ok(peer.pid.as_raw_nonzero().get())
    }
}

/// Reads `info mtree -f`: the flat view of the address space "memory", and in it the backend with most RAM.
fn parse_memory_map(text: &str) -> Option<RamMap> {
    let view = text.split("FlatView #").find(|view| view.contains("AS \"memory\","))?;
    let ranges: Vec<(&str, RamRange)> = view.lines().filter_map(parse_ram_line).collect();
    let bytes_of = |name: &str| -> u64 {
        ranges.iter().filter(|(backend, _)| *backend == name).map(|(_, range)| range.len).sum()
    };
    let (backend, _) = ranges.iter().max_by_key(|(name, _)| bytes_of(name))?;
    let of_backend = ranges.iter().filter(|(name, _)| name == backend);
    let mut ranges: Vec<RamRange> = of_backend.map(|(_, range)| *range).collect();
    // The longest first: it is the one looked for most often.
    ranges.sort_by_key(|range| std::cmp::Reverse(range.len));
    Some(RamMap { backend: (*backend).to_owned(), ranges })
}

/// `  0000000000100000-00000000bfffffff (prio 0, ram): NAME @0000000000100000`
fn parse_ram_line(line: &str) -> Option<(&str, RamRange)> {
    let (addresses, rest) = line.trim().split_once(" (prio ")?;
    let (kind, name) = rest.split_once("): ")?;
    kind.ends_with(", ram").then_some(())?;
    let (first, last) = addresses.split_once('-')?;
    let hex = |digits: &str| u64::from_str_radix(digits, 16).ok();
    let (first, last) = (hex(first)?, hex(last)?);
    let (name, offset) = name.split_once(" @").unwrap_or((name, "0"));
    let offset = hex(offset.split_whitespace().next()?)?;
    let name = name.split_whitespace().next()?;
    let len = last.checked_sub(first)?.checked_add(1)?;
    Some((name, RamRange { gpa: Gpa(first), len, file_offset: offset }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_map_of_a_pc_is_read() {
        let text = "FlatView #0\n AS \"cpu-smm-1\", root: memory\n  0000000000000000-ffff (prio 0, ram): other\n\
             FlatView #1\n AS \"I/O\", root: io\n\nFlatView #2\n AS \"memory\", root: system\n Root memory region: system\n  \
             0000000000000000-000000000009ffff (prio 0, ram): hypovisor-ram\n  \
             00000000000a0000-00000000000bffff (prio 1, i/o): vga-lowmem\n  \
             00000000000c0000-00000000000dffff (prio 1, rom): pc.rom\n  \
             0000000000100000-00000000bfffffff (prio 0, ram): hypovisor-ram @0000000000100000\n  \
             00000000fd000000-00000000fdffffff (prio 1, ram): vga.vram\n  \
             0000000100000000-000000013fffffff (prio 0, ram): hypovisor-ram @00000000c0000000 KVM\n";
        let map = parse_memory_map(text).unwrap();
        assert_eq!((map.backend.as_str(), map.ranges.len()), ("hypovisor-ram", 3));
        assert_eq!(map.backend_bytes(), 4 << 30);
        let high = RamRange { gpa: Gpa(4 << 30), len: 1 << 30, file_offset: 3 << 30 };
        assert!(map.ranges.contains(&high));
        assert_eq!(map.ranges[0].gpa, Gpa(0x10_0000));
    }

    #[test]
    fn nonsense_is_no_memory_map() {
        assert_eq!(parse_memory_map(""), None);
        let odd =
            "FlatView #0\n AS \"memory\", root: system\n  ffff-0000 (prio 0, ram): x\n  zz (prio 0, ram): \n";
        assert_eq!(parse_memory_map(odd), None);
    }
}
