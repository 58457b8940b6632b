//! Asking gcc: the value of many C expressions under one set of headers.

use std::io::Write as _;
use std::process::{Command, Stdio};

use hypovisor_abi::Width;

use crate::trees::Tree;

/// Headers with types or constants that the tables use. Not every version has each of them.
const HEADERS: &[&str] = &[
    "xen.h",
    "version.h",
    "features.h",
    "memory.h",
    "grant_table.h",
    "event_channel.h",
    "sched.h",
    "vcpu.h",
    "callback.h",
    "nmi.h",
    "physdev.h",
    "domctl.h",
    "sysctl.h",
    "platform.h",
    "trace.h",
    "kexec.h",
    "argo.h",
    "hypfs.h",
    "pmu.h",
    "xenoprof.h",
    "vm_event.h",
    "tmem.h",
    "elfnote.h",
    "xsm/flask_op.h",
    "arch-x86/xen-mca.h",
    "arch-x86/cpuid.h",
    "arch-x86/pmu.h",
    "hvm/hvm_op.h",
    "hvm/hvm_vcpu.h",
    "hvm/dm_op.h",
    "hvm/params.h",
    "hvm/ioreq.h",
    "hvm/e820.h",
    "hvm/save.h",
];

/// Headers that hide what was dropped from callers of the latest interface, although Xen still has the number.
/// They are read as a caller of interface 4.7 reads them.
const WITH_OLD_PARTS: &[&str] = &["xsm/flask_op.h", "hvm/hvm_op.h"];

/// A C expression, and what it should be.
pub(crate) struct Question {
    /// An integer constant expression of at most 32 bits.
    pub(crate) expression: String,
    /// The value the tables have.
    pub(crate) expected: u64,
    /// For people.
    pub(crate) what: String,
    /// The member or constant that it is about; empty for a struct as a whole.
    pub(crate) subject: String,
}

/// The value of each expression; `None` where a name in it is not declared.
pub(crate) fn ask<'a>(
    tree: &Tree,
    width: Width,
    questions: impl Iterator<Item = &'a Question>,
) -> Vec<Option<u64>> {
    let expressions: Vec<&str> = questions.map(|question| question.expression.as_str()).collect();
    let mut missing = vec![false; expressions.len()];
    loop {
        let (source, first_line) = source(&expressions, &missing);
        match compile(tree, width, &source) {
            Ok(assembly) => {
                let values = values(&assembly);
                assert_eq!(values.len(), expressions.len(), "not every value is in the assembly");
                return values.into_iter().zip(missing).map(|(v, missing)| (!missing).then_some(v)).collect();
            }
            Err(messages) => strike_out(&messages, first_line, &mut missing),
        }
    }
}

/// The C file, and the number of the line with the first expression.
fn source(expressions: &[&str], missing: &[bool]) -> (String, usize) {
    let mut text = String::from("#include <stdint.h>\n#include <stddef.h>\n#define __XEN_TOOLS__ 1\n");
    text += "#include <xen/xen-compat.h>\n";
    for header in HEADERS {
        let version = match WITH_OLD_PARTS.contains(header) {
            true => "0x00040700",
            false => "__XEN_LATEST_INTERFACE_VERSION__",
        };
        text += "#undef __XEN_INTERFACE_VERSION__\n";
        text += &format!("#define __XEN_INTERFACE_VERSION__ {version}\n");
        text += &format!("#if __has_include(<xen/{header}>)\n#include <xen/{header}>\n#endif\n");
    }
    text += "const unsigned int answers[] = {\n";
    let first_line = text.lines().count() + 1;
    for (expression, missing) in expressions.iter().zip(missing) {
        text += if *missing { "0" } else { expression };
        text += ",\n";
    }
    text += "};\n";
    (text, first_line)
}

/// The assembly, or gcc's messages.
fn compile(tree: &Tree, width: Width, source: &str) -> Result<String, String> {
    let width = match width {
        Width::Bits64 => "-m64",
        Width::Bits32 => "-m32",
    };
    let mut child = Command::new("cc")
        .args([width, "-std=gnu11", "-ffreestanding", "-w", "-fmax-errors=0", "-fno-pic"])
        .args(["-fno-diagnostics-show-caret", "-fdiagnostics-color=never", "-S", "-o", "-", "-x", "c", "-"])
        .arg("-I")
        .arg(&tree.include)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run cc: {error}"));
    let mut stdin = child.stdin.take().unwrap_or_else(|| panic!("cc has no standard input"));
    stdin.write_all(source.as_bytes()).unwrap_or_else(|error| panic!("cannot write to cc: {error}"));
    drop(stdin);
    let output = child.wait_with_output().unwrap_or_else(|error| panic!("cannot wait for cc: {error}"));
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Marks the expressions that gcc complains about. (It names an undeclared identifier only once.)
fn strike_out(messages: &str, first_line: usize, missing: &mut [bool]) {
    let mut progress = false;
    for message in messages.lines().filter(|line| line.contains("error:")) {
        let line = message.strip_prefix("<stdin>:").and_then(|rest| rest.split(':').next()?.parse().ok());
        let slot = line.and_then(|line: usize| missing.get_mut(line.checked_sub(first_line)?));
        let slot = slot.unwrap_or_else(|| panic!("cc does not take the headers:\n{messages}"));
        progress |= !*slot;
        *slot = true;
    }
    assert!(progress, "cc fails for no reason that it tells:\n{messages}");
}

/// The numbers of the array in gcc's assembly.
fn values(assembly: &str) -> Vec<u64> {
    let mut values = Vec::new();
    for line in assembly.lines().skip_while(|line| !line.starts_with("answers:")).skip(1) {
        let (directive, operand) = line.trim().split_once('\t').unwrap_or_default();
        match (directive, operand.parse::<i64>()) {
            (".long", Ok(value)) => values.push(u64::from(value as u32)),
            (".zero", Ok(bytes)) => values.extend(std::iter::repeat_n(0, bytes as usize / 4)),
            _ => break,
        }
    }
    values
}
