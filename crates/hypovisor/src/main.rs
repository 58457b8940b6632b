//! The command line (experiment).
#![allow(clippy::all, clippy::pedantic, clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]
use hypovisor_abi::{text, xen::XEN};
use hypovisor_engine::{call::*, command::*, qmp::Qmp, session::*};
use std::collections::BTreeMap;

struct Print { n: u64, counts: BTreeMap<(u16, u64), u64>, unfinished: u64, cont: u64, max: u64 }
impl CallSink for Print {
    type Error = std::convert::Infallible;
    fn call(&mut self, call: &Call<'_>) -> Result<(), Self::Error> {
        self.n += 1;
        *self.counts.entry((call.caller.domain, call.registers.number)).or_default() += 1;
        if call.outcome == Outcome::Unfinished { self.unfinished += 1; }
        if call.continues.is_some() { self.cont += 1; }
        if self.n < self.max || self.n % 5000 < 12 || call.continues.is_some() {
            let mut s = String::new();
            text::write_call(&mut s, &XEN, &call.captured(), text::Detail::Line);
            match call.outcome { Outcome::Returned(r) => { s.push_str(" = "); text::write_result(&mut s, &XEN, &call.captured(), r) }, o => s.push_str(&format!(" = {o:?}")) }
            println!("{}:{} d{}v{} {:?} rip={:x} {}{:?} {} <{:?}>", call.id.pcpu, call.id.sequence, call.caller.domain, call.caller.vcpu, call.caller.mode, call.caller.rip, if call.parent.is_some() {"  inner "} else {""}, call.continues, s, call.duration_ns);
        }
        Ok(())
    }
    fn loss(&mut self, loss: &Loss) -> Result<(), Self::Error> { println!("LOSS {loss:?}"); Ok(()) }
}
fn main() -> anyhow::Result<()> {
    let mut args: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
    let symbols = std::env::var_os("SYMBOLS");
    let max = std::env::var("MAX").ok().and_then(|s| s.parse().ok()).unwrap_or(200);
    if args.first().is_some_and(|a| a == "--") { args.remove(0); }
    let dir = tempfile::tempdir()?;
    let command = QemuCommand::from_line(&args)?;
    let version = command.version()?;
    let plugin = find_plugin(version.plugin_api()?)?;
    let (control, qmp) = (dir.path().join("control"), dir.path().join("qmp"));
    let watched = command.watched(&plugin, &Additions { control_socket: &control, qmp_socket: &qmp, ring_bytes: None, only_hooks: false })?;
    let mut child = watched.to_command().spawn()?;
    let mut session = Session::connect(&control, until(START_TIMEOUT))?;
    println!("hello {:?}", session.hello());
    if let Some(s) = symbols { session.use_symbols(s.into()); }
    let mut monitor = loop { match Qmp::connect(&qmp) { Ok(q) => break q, Err(_) => std::thread::sleep(std::time::Duration::from_millis(20)) } };
    let map = monitor.ram()?;
    session.describe_ram(&map)?;
    monitor.cont()?;
    let mut sink = Print { n: 0, counts: BTreeMap::new(), unfinished: 0, cont: 0, max };
    loop {
        match session.step(&mut sink) {
            Ok(Step::Running { .. }) => {}
            Ok(Step::Ended) => break,
            Err(e) => { println!("error {e}"); child.kill()?; break; }
        }
    }
    session.finish(&mut sink).unwrap();
    println!("{:?}", child.wait());
    println!("n={} unfinished={} cont={} domains={:?}", sink.n, sink.unfinished, sink.cont, session.note().domains);
    println!("version {:?} layout {:?}", session.note().profile.as_ref().map(|p| p.version.clone()), session.note().profile.as_ref().and_then(|p| p.layout.clone()).map(|l| l.current_vcpu));
    for c in session.counters() { println!("{c:?}"); }
    for ((d, n), c) in sink.counts { println!("{d} {:?} {c}", XEN.call(n).map(|c| c.name)); }
    Ok(())
}
