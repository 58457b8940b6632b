//! What QEMU's monitor prints for `info registers -a`.

use hypovisor_machine::{DescriptorTable, Gva, SystemRegisters, TaskRegister};

/// The most processors that are read.
const MAX_CPUS: usize = 1024;

/// The registers of all processors, in their order. What is missing of one is zero.
pub(super) fn parse(text: &str) -> Vec<SystemRegisters> {
    let mut cpus = Vec::new();
    for line in text.lines() {
        if line.starts_with("CPU#") {
            if cpus.len() == MAX_CPUS {
                break;
            }
            cpus.push(SystemRegisters::default());
        } else if let Some(cpu) = cpus.last_mut() {
            read_line(cpu, line);
        }
    }
    cpus
}

fn read_line(cpu: &mut SystemRegisters, line: &str) {
    let value = |name: &str| value_of(line, name);
    let segment = |name: &str| {
        let words: Vec<u64> = line.strip_prefix(name)?.split_whitespace().filter_map(hex).collect();
        (words.len() >= 3).then_some(words)
    };
    if let Some(rsp) = value("RSP=") {
        cpu.rsp = Gva(rsp);
    }
    if let Some(rip) = value("RIP=") {
        cpu.rip = Gva(rip);
    }
    if let Some(cs) = segment("CS =") {
        cpu.cs = cs[0] as u16;
    }
    if let Some(task) = segment("TR =") {
        cpu.task = TaskRegister { selector: task[0] as u16, base: Gva(task[1]), limit: task[2] as u32 };
    }
    if let Some(table) = table(line, "GDT=") {
        cpu.gdt = table;
    }
    if let Some(table) = table(line, "IDT=") {
        cpu.idt = table;
    }
    for (name, register) in
        [("CR0=", &mut cpu.cr0), ("CR2=", &mut cpu.cr2), ("CR3=", &mut cpu.cr3), ("CR4=", &mut cpu.cr4)]
    {
        *register = value(name).unwrap_or(*register);
    }
    cpu.efer = value("EFER=").or(cpu.efer);
    read_breakpoints(cpu, line);
}

fn read_breakpoints(cpu: &mut SystemRegisters, line: &str) {
    let names = ["DR0=", "DR1=", "DR2=", "DR3="];
    if let [Some(a), Some(b), Some(c), Some(d)] = names.map(|name| value_of(line, name)) {
        cpu.breakpoints = Some(([a, b, c, d], 0));
    }
    if let (Some(control), Some((addresses, _))) = (value_of(line, "DR7="), cpu.breakpoints) {
        cpu.breakpoints = Some((addresses, control));
    }
}

fn table(line: &str, name: &str) -> Option<DescriptorTable> {
    let mut words = line.strip_prefix(name)?.split_whitespace().filter_map(hex);
    Some(DescriptorTable { base: Gva(words.next()?), limit: words.next()? as u16 })
}

fn value_of(line: &str, name: &str) -> Option<u64> {
    let starts_word = |at: usize| at == 0 || line.as_bytes().get(at - 1) == Some(&b' ');
    let (at, _) = line.match_indices(name).find(|(at, _)| starts_word(*at))?;
    hex(line[at + name.len()..].split_whitespace().next()?)
}

fn hex(word: &str) -> Option<u64> {
    u64::from_str_radix(word, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "\r\nCPU#0\r\nRAX=0000000000000000 RBX=ffff83013ad3fef8\r\n\
        RSI=0000000000000048 RDI=0000000000000000 RBP=0000000000000000 RSP=ffff83013ad3fe98\r\n\
        RIP=ffff82d040302617 RFL=00000202 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=1\r\n\
        CS =e008 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]\r\n\
        LDT=0000 0000000000000000 00000000 00000000\r\n\
        TR =e040 ffff82d040581040 00000067 00008900 DPL=0 TSS64-avl\r\n\
        GDT=     ffff820000000000 0000efff\r\nIDT=     ffff82d04057f000 00000fff\r\n\
        CR0=80050033 CR2=ffff8880072a7f08 CR3=00000001373e0000 CR4=00350660\r\n\
        DR0=0000000000000000 DR1=0000000000000000 DR2=0000000000000000 DR3=ffff82d040302617 \r\n\
        DR6=00000000ffff0ff0 DR7=0000000000000440\r\nEFER=0000000000001d01\r\nCPU#1\r\nCR0=1\r\n";

    #[test]
    fn what_qemu_prints_is_read() {
        let cpus = parse(TEXT);
        assert_eq!(cpus.len(), 2);
        assert_eq!((cpus[0].rip, cpus[0].rsp), (Gva(0xffff_82d0_4030_2617), Gva(0xffff_8301_3ad3_fe98)));
        assert_eq!((cpus[0].cs, cpus[0].cr0, cpus[0].cr4), (0xe008, 0x8005_0033, 0x35_0660));
        assert_eq!(cpus[0].cr3, 0x1_373e_0000);
        assert_eq!(cpus[0].gdt, DescriptorTable { base: Gva(0xffff_8200_0000_0000), limit: 0xefff });
        assert_eq!(cpus[0].task.base, Gva(0xffff_82d0_4058_1040));
        assert_eq!(cpus[0].breakpoints, Some(([0, 0, 0, 0xffff_82d0_4030_2617], 0x440)));
        assert_eq!(cpus[0].efer, Some(0x1d01));
        assert_eq!((cpus[1].cr0, cpus[1].efer), (1, None));
    }

    proptest! {
        #[test]
        fn anything_is_read_without_panic(text in "(CPU#|CR0=|GDT=|DR7=|CS =|[0-9a-f]| |\n){0,200}") {
            let _ = parse(&text);
        }
    }
}
