//! The lab machine, and QEMU's arguments for it.
//!
//! An ordinary PC without network or display: Xen loaded by QEMU's multiboot loader with dom0's kernel and initrd as its
//! modules, disks and channels over virtio, the serial port as Xen's console.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::command::QemuCommand;
use crate::host::KvmHost;
use crate::prepare::Prepared;

/// The processor: one with AMD's virtualization, which TCG can emulate. MONITOR makes MWAIT fault in Xen, and intercepts
/// of RDTSCP confuse Xen's instruction decoder, so both are off. The rest is what TCG does not have and would warn about.
const CPU: &str = "EPYC,+svm,+npt,-monitor,-rdtscp,-misalignsse,-osvw,-topoext,-nrip-save,-xsavec,-fxsr-opt";

/// The processor under KVM: the host's. MONITOR as above.
const KVM_CPU: &str = "host,-monitor";

/// Xen's own options. Switching FPU state eagerly keeps it from intercepting CR0 reads, which QEMU's TCG reports wrongly
/// (10.0 to 11.1 at least).
const XEN_OPTIONS: &str = "com1=115200,8n1 console=com1 loglvl=all guest_loglvl=all spec-ctrl=eager-fpu";

/// The options of dom0's kernel. A panic ends the machine.
const DOM0_OPTIONS: &str = "console=hvc0 loglevel=5 panic=1";

/// What runs a lab machine's processors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accelerator {
    /// QEMU's translator: works everywhere.
    #[default]
    Tcg,
    /// This machine's KVM, which must be able to nest.
    Kvm,
}

/// The size of a lab machine and extra options. [`Machine::default`] is the machine that everything was tried with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// What runs it.
    pub accelerator: Accelerator,
    /// Not a Xen but a plain Linux that offers KVM, with the host's files in it.
    pub kvm_host: Option<KvmHost>,
    /// Virtual processors.
    pub vcpus: u32,
    /// Memory of the whole machine, in MiB.
    pub memory_mib: u32,
    /// Memory of dom0, in MiB.
    pub dom0_memory_mib: u32,
    /// Whether each virtual processor has a thread of its own in QEMU. With two busy ones the machine is not faster than
    /// with one thread for all, and about one boot in fifteen hangs: an interrupt from one processor to another that
    /// sleeps in HLT gets lost (seen with QEMU 10.0: Xen's `flush_area_mask` waits for ever, the other APIC has neither
    /// a pending nor a serviced interrupt).
    pub parallel: bool,
    /// Options appended to Xen's command line.
    pub xen_options: Vec<String>,
    /// Options appended to the command line of dom0's kernel.
    pub dom0_options: Vec<String>,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            accelerator: Accelerator::Tcg,
            kvm_host: None,
            vcpus: 2,
            memory_mib: 4096,
            dom0_memory_mib: 1536,
            parallel: false,
            xen_options: Vec::new(),
            dom0_options: Vec::new(),
        }
    }
}

/// Set in an emulated KVM host, where every exit of a machine takes a tenth of a millisecond.
pub const EMULATED_VARIABLE: &str = "HYPOVISOR_LAB_EMULATED";

/// What makes Xen exit less often: no chatter on the serial port, nothing against attacks on a processor that is only
/// emulated, and timer ticks for one of dom0's processors only.
const FEWER_EXITS: [&str; 4] =
    ["loglvl=warning", "guest_loglvl=warning", "spec-ctrl=no,eager-fpu", "dom0_max_vcpus=1"];

impl Machine {
    /// The usual machine on this accelerator. Where KVM is emulated ([`EMULATED_VARIABLE`]) it makes fewer exits.
    pub fn on(accelerator: Accelerator) -> Self {
        let usual = Self { accelerator, ..Self::default() };
        if accelerator == Accelerator::Tcg || std::env::var_os(EMULATED_VARIABLE).is_none() {
            return usual;
        }
        let xen_options = FEWER_EXITS.map(str::to_owned).to_vec();
        Self { xen_options, dom0_options: vec!["mitigations=off".to_owned()], ..usual }
    }
}

/// The channels between host and machine, each a socket called after it in the session's directory.
pub(crate) const CHANNELS: [&str; 4] = ["console", "control", "stdout", "stderr"];

/// What of a machine belongs to one session.
pub(crate) struct SessionFiles<'a> {
    /// The session's directory, with the channels' sockets.
    pub(crate) dir: &'a Path,
    pub(crate) control_disk: PathBuf,
    pub(crate) files_disk: Option<PathBuf>,
}

impl Machine {
    /// QEMU's command for this machine.
    pub(crate) fn command(&self, prepared: &Prepared, session: &SessionFiles<'_>) -> QemuCommand {
        let mut qemu = launch(prepared);
        self.hardware(&mut qemu);
        match &self.kvm_host {
            Some(host) => host.boot(&mut qemu, session.dir, &self.dom0_options),
            None => self.boot(&mut qemu, session.dir),
        }
        disk(&mut qemu, "root", &prepared.dom0_root(), "snapshot=on");
        disk(&mut qemu, "control", &session.control_disk, "readonly=on");
        if let Some(files) = &session.files_disk {
            disk(&mut qemu, "files", files, "readonly=on");
        }
        channels(&mut qemu, session.dir);
        // Where QEMU keeps what dom0 writes to its root disk, for as long as it runs.
        qemu.env.push(("TMPDIR".into(), session.dir.into()));
        qemu
    }

    fn hardware(&self, qemu: &mut QemuCommand) {
        qemu.args(["-no-user-config", "-nodefaults", "-display", "none", "-no-reboot"]);
        let threads = if self.parallel { "multi" } else { "single" };
        let (cpu, accelerator) = match self.accelerator {
            Accelerator::Tcg => (CPU, format!("tcg,thread={threads}")),
            Accelerator::Kvm => (KVM_CPU, "kvm".to_owned()),
        };
        qemu.args(["-machine", "pc", "-cpu", cpu, "-accel", &accelerator]);
        qemu.args(["-smp", &self.vcpus.to_string(), "-m", &format!("{}M", self.memory_mib)]);
    }

    fn boot(&self, qemu: &mut QemuCommand, dir: &Path) {
        let dom0_memory = format!("dom0_mem={0}M,max:{0}M", self.dom0_memory_mib);
        let xen_options = joined(&[XEN_OPTIONS, &dom0_memory], &self.xen_options);
        let dom0_options = joined(&[DOM0_OPTIONS], &self.dom0_options);
        let mut modules = escaped(&dir.join(KERNEL_LINK));
        modules.push(format!(" {}", dom0_options.replace(',', ",,")));
        modules.push(",");
        modules.push(escaped(&dir.join(INITRD_LINK)));
        qemu.args([
            OsString::from("-kernel"),
            dir.join(XEN_LINK).into(),
            "-append".into(),
            xen_options.into(),
        ]);
        qemu.args(["-initrd".into(), modules]);
    }
}

/// Names of links in the session's directory to what is booted: QEMU's multiboot loader takes no spaces in them.
pub(crate) const XEN_LINK: &str = "xen";
pub(crate) const KERNEL_LINK: &str = "vmlinuz";
pub(crate) const INITRD_LINK: &str = "initrd";

/// QEMU itself, run from its tree with the tree's loader, libraries, modules and firmware.
pub(crate) fn launch(prepared: &Prepared) -> QemuCommand {
    let tree = &prepared.qemu_tree;
    let mut qemu = QemuCommand { program: tree.loader(), args: Vec::new(), env: Vec::new() };
    qemu.args([
        OsString::from("--library-path"),
        tree.libraries().into(),
        tree.path("usr/bin/qemu-system-x86_64").into(),
    ]);
    for firmware in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
        qemu.args([OsString::from("-L"), tree.path(firmware).into()]);
    }
    // Without it, QEMU picks up the modules of another QEMU that is installed, and aborts.
    qemu.env.push(("QEMU_MODULE_DIR".into(), tree.path("usr/lib/x86_64-linux-gnu/qemu").into()));
    qemu
}

fn disk(qemu: &mut QemuCommand, name: &str, file: &Path, access: &str) {
    let mut drive = OsString::from(format!("if=none,id={name},format=raw,{access},file="));
    drive.push(escaped(file));
    qemu.args(["-drive".into(), drive]);
    qemu.args(["-device".to_owned(), format!("virtio-blk-pci,drive={name},serial=lab-{name}")]);
}

fn channels(qemu: &mut QemuCommand, dir: &Path) {
    qemu.args(["-device", "virtio-serial-pci"]);
    for name in CHANNELS {
        let mut socket = OsString::from(format!("socket,id={name},server=off,path="));
        socket.push(escaped(&dir.join(name)));
        qemu.args(["-chardev".into(), socket]);
        match name {
            "console" => qemu.args(["-serial".to_owned(), format!("chardev:{name}")]),
            _ => qemu.args(["-device".to_owned(), format!("virtserialport,chardev={name},name=lab.{name}")]),
        };
    }
}

pub(crate) fn joined(first: &[&str], more: &[String]) -> String {
    first.iter().copied().chain(more.iter().map(String::as_str)).collect::<Vec<_>>().join(" ")
}

/// A path as part of a list of options: QEMU wants commas doubled.
pub(crate) fn escaped(path: &Path) -> OsString {
    let mut bytes = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        bytes.extend(std::iter::repeat_n(*byte, if *byte == b',' { 2 } else { 1 }));
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_are_doubled_where_qemu_splits() {
        let mut qemu = QemuCommand { program: "qemu".into(), args: Vec::new(), env: Vec::new() };
        let machine = Machine { dom0_options: vec!["console=tty0,x".to_owned()], ..Machine::default() };
        machine.boot(&mut qemu, Path::new("/tmp/a,b"));
        let initrd = qemu.args.last().unwrap().to_str().unwrap();
        assert_eq!(
            initrd,
            "/tmp/a,,b/vmlinuz console=hvc0 loglevel=5 panic=1 console=tty0,,x,/tmp/a,,b/initrd"
        );
        assert!(qemu.args.iter().any(|arg| arg == "/tmp/a,b/xen"));
    }

    #[test]
    fn sizes_reach_the_arguments() {
        let mut qemu = QemuCommand { program: "qemu".into(), args: Vec::new(), env: Vec::new() };
        let machine = Machine { vcpus: 3, memory_mib: 2048, dom0_memory_mib: 900, ..Machine::default() };
        machine.hardware(&mut qemu);
        machine.boot(&mut qemu, Path::new("/d"));
        let has = |wanted: &str| qemu.args.iter().any(|arg| arg.to_string_lossy().contains(wanted));
        assert!(has("2048M") && has("dom0_mem=900M,max:900M") && has("eager-fpu"));
    }
}
