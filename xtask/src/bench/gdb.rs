//! What stopping at hypercalls costs with the tool at hand: QEMU's gdbstub, driven by as little as does it.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use hypovisor_l1::SymbolFile;
use hypovisor_machine::clock::now_ticks;

/// Where a register stands in the answer to `g`: RDI is the sixth of 8 bytes each.
const RDI_AT: usize = 5 * 16;
/// Bytes of the guest's frame.
const FRAME_BYTES: usize = 200;

/// A connection to the gdbstub, with a hardware breakpoint where PV hypercalls enter.
pub(crate) struct Breakpoint {
    stub: UnixStream,
}

impl Breakpoint {
    pub(crate) fn at(socket: &Path, symbols: &Path) -> anyhow::Result<Self> {
        let contents =
            std::fs::read(symbols).with_context(|| format!("cannot read {}", symbols.display()))?;
        let entry = SymbolFile::parse(&contents)?.symbols().address_of("pv_hypercall");
        let entry = entry.context("no pv_hypercall in the symbols")?;
        let stub = UnixStream::connect(socket).context("cannot reach the gdbstub")?;
        stub.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut breakpoint = Self { stub };
        breakpoint.ask("?")?;
        breakpoint.ask(&format!("Z1,{entry:x},1"))?;
        Ok(breakpoint)
    }

    /// Lets the machine run from stop to stop, and reads at each what a monitor would have to.
    pub(crate) fn median_ticks(mut self, stops: usize) -> anyhow::Result<u64> {
        let mut ticks = Vec::with_capacity(stops);
        self.ask("c")?;
        for _ in 0..stops {
            let start = now_ticks();
            let registers = self.ask("g")?;
            let rdi = registers.get(RDI_AT..RDI_AT + 16).context("the stub sent too few registers")?;
            let frame = u64::from_str_radix(rdi, 16)?.swap_bytes();
            self.ask(&format!("m{frame:x},{FRAME_BYTES:x}"))?;
            self.ask("c")?;
            ticks.push(now_ticks() - start);
        }
        Ok(super::median(&mut ticks))
    }

    /// Sends a packet and gives the next one that comes: the answer or, after `c`, the stop.
    fn ask(&mut self, packet: &str) -> anyhow::Result<String> {
        let sum = packet.bytes().fold(0u8, u8::wrapping_add);
        write!(self.stub, "${packet}#{sum:02x}")?;
        let answer = self.receive()?;
        self.stub.write_all(b"+")?;
        Ok(answer)
    }

    fn receive(&mut self) -> anyhow::Result<String> {
        let mut packet = Vec::new();
        let mut inside = false;
        let mut byte = [0];
        loop {
            if self.stub.read(&mut byte)? == 0 {
                bail!("the gdbstub closed the connection");
            }
            match (inside, byte[0]) {
                (false, b'$') => inside = true,
                (true, b'#') => break,
                (true, other) => packet.push(other),
                (false, _) => {}
            }
        }
        self.stub.read_exact(&mut [0; 2])?;
        Ok(String::from_utf8(packet)?)
    }
}
