//! Throwaway.
use hypovisor_abi::{Width, capture::Registers};
use hypovisor_engine::{call::*, recording::*};
use hypovisor_event::record::*;
fn main() {
    let mut r = Recorder::create(std::path::Path::new("/tmp/extreme"), Manifest::default(), RecorderOptions::default()).unwrap();
    let mut x = 88172645463325252u64; let mut n = || { x ^= x << 13; x ^= x >> 7; x ^= x << 17; x };
    for i in 0..100_000u64 {
        let v = |a: u64, b: u64| match a % 5 { 0 => 0, 1 => u64::MAX, 2 => 1 << 63, 3 => b, _ => b % 100 };
        let mut w = || { let a = n(); let b = n(); v(a, b) };
        let args = [w(), w(), w(), w(), w(), w()];
        let c = Call { id: CallId { pcpu: (w() % 300) as u32, sequence: w() }, time_ns: (w() >> 2) as i64, duration_ns: if w() % 3 == 0 { None } else { Some(w() >> 1) },
            caller: Caller { domain: w() as u16, vcpu: w() as u16, mode: CallerMode::Hvm64, cpl: 0, cs: w() as u16, rip: w(), rsp: w() },
            parent: if i % 7 == 0 { Some(CallId { pcpu: 0, sequence: w() }) } else { None }, continues: None,
            registers: Registers { number: w() % 60, args, width: Width::Bits64 }, entry_segments: &[], exit_segments: &args[0].to_le_bytes()[..(i % 9) as usize], cut: i % 3 == 0,
            outcome: Outcome::Returned(w() as i64) };
        r.call(&c).unwrap();
    }
    r.finish().unwrap();
    let mut sums = [0u128; 8];
    for c in Recording::open(std::path::Path::new("/tmp/extreme")).unwrap().calls().unwrap() {
        let c = c.unwrap();
        for k in 0..6 { sums[k] += c.registers.args[k] as u128 * (1 + c.id.pcpu as u128); }
        sums[6] += c.caller.rip as u128 * (1 + c.caller.vcpu as u128); sums[7] += c.id.sequence as u128;
    }
    println!("{sums:?}");
}
