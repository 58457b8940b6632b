//! QEMU's own debugger beside the sensor. Under KVM it is refused the processor's breakpoints, and nothing else.
//!
//! That a software breakpoint is met cannot be tested on an emulated processor: QEMU's emulation of SVM takes INT3 for a
//! software interrupt, which KVM does not intercept.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use hypovisor_l1::SymbolFile;
use hypovisor_machine::Gva;

use crate::resets::marks;
use crate::support::{Driven, one_machine, text};

/// For so long nothing comes from the machine: longer than it takes until somebody asks why.
const STANDSTILL: Duration = Duration::from_secs(15);
/// How long the debugger may take to answer.
const TIMEOUT: Duration = Duration::from_secs(120);

const SCRIPT: &str = "echo ready
sleep 10
/lab/files/hcall --loop 100 29 0x48590007
echo done
";

/// A client of the gdb remote serial protocol that knows what the test needs.
struct Debugger {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl Debugger {
    fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        Self { reader: BufReader::new(stream.try_clone().unwrap()), writer: stream }
    }

    /// Sends a packet; gives the next that comes.
    fn ask(&mut self, packet: &str) -> String {
        let sum = packet.bytes().fold(0u8, u8::wrapping_add);
        write!(self.writer, "${packet}#{sum:02x}").unwrap();
        let (mut before, mut answer) = (Vec::new(), Vec::new());
        self.reader.read_until(b'$', &mut before).unwrap();
        self.reader.read_until(b'#', &mut answer).unwrap();
        answer.pop();
        self.reader.read_exact(&mut [0; 2]).unwrap();
        self.writer.write_all(b"+").unwrap();
        text(&answer)
    }
}

fn arguments(socket: &Path) -> [OsString; 2] {
    ["-gdb".into(), format!("unix:{},server=on,wait=off", socket.display()).into()]
}

/// A machine that runs the script, with a debugger that knows where `do_sched_op` is, to its own end; what the engine said.
fn debugged(dir: &Path, recording: &Path, debug: impl FnOnce(&mut Debugger, Gva)) -> Output {
    let (machine, socket) = (Driven::new(dir, SCRIPT), dir.join("gdb"));
    let symbols = std::fs::read(machine.symbols()).unwrap();
    let place = SymbolFile::parse(&symbols).unwrap().symbols().address_of("do_sched_op").unwrap();
    std::thread::scope(|scope| {
        let engine = machine.start_with(recording, &arguments(&socket));
        let driver = scope.spawn(|| machine.drive());
        machine.wait_for("ready");
        let mut debugger = Debugger::connect(&socket);
        debugger.ask("?");
        debug(&mut debugger, place);
        assert_eq!(debugger.ask("D"), "OK");
        driver.join().unwrap().unwrap();
        engine.wait_with_output().unwrap()
    })
}

#[test]
#[ignore = "needs KVM: `cargo xtask test --l0 kvm` runs it"]
fn a_debugger_is_refused_the_processors_breakpoints_and_the_machine_goes_on() {
    let _machine = one_machine();
    let dir = tempfile::tempdir().unwrap();
    let recording = dir.path().join("recording");
    let output = debugged(dir.path(), &recording, |debugger, place| {
        let refused = debugger.ask(&format!("Z1,{place:x},1"));
        assert!(refused.starts_with('E'), "the hooks stand there, so not {refused:?}");
        // QEMU (10.0) keeps one that was refused, and asks for it again with the next one, until it is taken back.
        debugger.ask(&format!("z1,{place:x},1"));
        assert_eq!(debugger.ask(&format!("Z0,{place:x},1")), "OK");
        assert_eq!(debugger.ask(&format!("z0,{place:x},1")), "OK");
    });
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("hardware breakpoints, which Hypovisor uses: refused"), "{said}");
    assert_eq!(marks(&recording, 7), 100);
}

/// Not under KVM, where the breakpoint that this takes is refused.
#[test]
fn who_watches_is_told_that_qemu_has_stopped_the_machine() {
    let _machine = one_machine();
    let dir = tempfile::tempdir().unwrap();
    let output = debugged(dir.path(), &dir.path().join("recording"), |debugger, place| {
        assert_eq!(debugger.ask(&format!("Z1,{place:x},1")), "OK");
        let stopped = debugger.ask("c");
        assert!(stopped.starts_with("T05"), "{stopped}");
        std::thread::sleep(STANDSTILL);
        assert_eq!(debugger.ask(&format!("z1,{place:x},1")), "OK");
    });
    let said = text(&output.stderr);
    assert_eq!(said.matches("QEMU itself has stopped the machine (debug)").count(), 1, "{said}");
}
