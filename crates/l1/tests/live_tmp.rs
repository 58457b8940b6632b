//! Temporary.
use hypovisor_l1::*;
use hypovisor_machine::*;
use std::os::unix::fs::FileExt;
struct Ram(std::fs::File);
impl PhysicalMemory for Ram {
    fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), MemoryError> {
        self.0.read_exact_at(buf, gpa.0).map_err(|_| MemoryError::NoRam(gpa))
    }
}
#[test]
fn live() {
    for v in ["4.17", "4.20"] {
        let text = std::fs::read_to_string(format!("/tmp/l1/live-{v}.out")).unwrap();
        let get = |line: &str, key: &str| {
            let l = text.lines().find(|l| l.starts_with(line)).unwrap();
            let w = l.split_whitespace().find_map(|w| w.strip_prefix(&format!("{key}="))).unwrap();
            u64::from_str_radix(w, 16).unwrap()
        };
        let syms = std::fs::read(format!("/tmp/l1/syms-{v}")).unwrap();
        for stage in ["high", "pv"] {
            let ram = Ram(std::fs::File::open(format!("/tmp/l1/ram-{v}.{stage}")).unwrap());
            let key = stage.to_uppercase();
            let memory = VirtualMemory::new(&ram, get(&key, "cr3"));
            let t = std::time::Instant::now();
            let image = Image::from_memory(&memory, Gva(get(&key, "rip"))).unwrap();
            println!("{v} {stage} base {:?} len {:#x} runs {:?} {:?}", image.base(), image.bytes().len(), image.runs(), t.elapsed());
            let embedded = Profile::build(&image, None);
            let file = Profile::build(&image, Some(("syms", &syms)));
            println!("{v} {stage} embedded {:?}", embedded.as_ref().map(|p| (&p.0.version, &p.0.build_id, &p.0.hints)));
            println!("{v} {stage} file {:?}", file.as_ref().map(|p| (&p.0.version, &p.0.build_id, &p.0.hints)));
            if let (Ok(a), Ok(b)) = (&embedded, &file) { println!("same hooks {}", a.0.hooks == b.0.hooks); }
            if stage == "pv" {
                for p in [embedded, file].into_iter().flatten() {
                    let mut p = p.0;
                    let frame = Gva(get("PV", "rdi"));
                    println!("settle {:?}", p.settle_layout(&memory, frame));
                    println!("{:?}", p.layout.as_ref().map(|l| (&l.source, l.frame.size, l.processor_id, l.current_vcpu, &l.vcpu, &l.domain, l.multicall_call)));
                    let hints = LayoutHints::default();
                    println!("blind {:?}", discover_layout(&memory, frame, &hints, None).map(|l| (l.processor_id, l.current_vcpu, l.vcpu.domain, l.domain.vcpus)));
                }
            }
        }
    }
}
