//! What the command line takes.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::detect::DetectArgs;
use crate::eval::EvalArgs;
use crate::inject::InjectArgs;
use crate::learn::{LearnArgs, PolicyArgs};
use crate::remote::{AskArgs, ReloadArgs, StatusArgs};
use crate::rules::RulesCommand;
use crate::view::AlertArgs;

/// Watches a hypervisor from the layer below it.
///
/// The hypervisor (Xen) runs unmodified in QEMU; hypovisor sees every hypercall that any of its virtual machines makes,
/// decodes it and says who made it. Nothing in the hypervisor or its guests is changed.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, disable_help_subcommand = true)]
#[command(
    after_help = "Exit codes: 0 all is well; 1 findings, such as lost events; 2 an error, told in one line.\n\
    Start with `hypovisor lab run --record DIR`: it needs no hypervisor of your own."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a QEMU command line of your own and watch the hypervisor in it
    Run(RunArgs),
    /// Go on watching a QEMU whose engine was killed
    Attach(AttachArgs),
    /// Say whether a hypervisor was tampered with: a running one, or one in an image of its memory
    Check(CheckArgs),
    /// List the domains that really are there, beside those that the hypervisor lists
    Ls(LookArgs),
    /// Make hypercalls in the name of a running domain, with nothing installed in it
    Inject(InjectArgs),
    /// Measure the detection: benign workloads and rehearsed attacks on a real Xen
    Eval(EvalArgs),
    /// Let a machine go on that a rule has stopped
    Resume(AskArgs),
    /// Have the running engine load its rules again, or take them out of force
    Reload(ReloadArgs),
    /// What the running engine watches, by how many rules, and how often they alerted
    Status(StatusArgs),
    /// Print a recording's hypercalls, in the manner of strace
    Trace(TraceArgs),
    /// Sum a recording up: counts, failures and latencies per domain and hypercall
    Stats(StatsArgs),
    /// Draw a recording as one HTML file that opens anywhere
    Report(ReportArgs),
    /// Check, try out and describe detection rules
    Rules {
        #[command(subcommand)]
        command: RulesCommand,
    },
    /// Learn from recordings what is usual, so that what is not raises alerts (--profile)
    Learn(LearnArgs),
    /// Write down which hypercalls, flags and sizes each domain really uses, to be read, edited and enforced (--policy)
    Policy(PolicyArgs),
    /// Say what this machine can do, and what to do about what is missing
    Doctor(DoctorArgs),
    /// Fetch and boot real hypervisors, ready to be watched
    Lab {
        #[command(subcommand)]
        command: LabCommand,
    },
}

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "made once")]
pub(crate) enum LabCommand {
    /// Fetch the parts of the lab from the Debian archive into the cache, and prepare them
    Fetch(FetchArgs),
    /// Boot Xen with a privileged and, if wanted, unprivileged virtual machines, watch it, and power it off
    Run(LabRunArgs),
    /// Run a command of this machine on a Linux that has KVM, emulated where this machine has none
    KvmHost(KvmHostArgs),
    /// Compare a recording with Xen's own trace (xentrace) of the same time, call for call
    Witness(WitnessArgs),
    /// Build the lab's small guests and tools into a directory, for use with `lab run --files`
    Guests(GuestsArgs),
    /// Build live patches that attack the lab's own Xen from inside, for use with `lab run --files` (docs/arsenal.md)
    Arsenal(ArsenalArgs),
}

#[derive(Debug, Args)]
pub(crate) struct WitnessArgs {
    /// The recording
    #[arg(value_name = "DIR")]
    pub(crate) recording: PathBuf,
    /// What xentrace wrote in dom0 between the marks of the lab's window script, plain or gzipped
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: PathBuf,
    /// The outcome as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 a hypervisor under KVM can be watched here; 1 it cannot.")]
pub(crate) struct DoctorArgs {
    /// The QEMU to look at
    #[arg(long, value_name = "PROGRAM", default_value = "qemu-system-x86_64")]
    pub(crate) qemu: PathBuf,
    /// The findings as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "The command finds this machine's files at their own places. They can be read; only the lab's cache, \
    what is named with --writable and what is below /run (in memory) can be written."
)]
pub(crate) struct KvmHostArgs {
    /// A directory that the command may write to; may be repeated
    #[arg(long, value_name = "DIR")]
    pub(crate) writable: Vec<PathBuf>,
    /// Give up after so many seconds
    #[arg(long, value_name = "S", default_value_t = 3600)]
    pub(crate) timeout: u64,
    /// Show the console of the emulated Linux on standard error
    #[arg(long)]
    pub(crate) console: bool,
    /// Time in which nothing is to be done passes at once. (Every clock inside counts instructions, one a nanosecond.) For
    /// measurements, not for what waits for something outside
    #[arg(long)]
    pub(crate) skip_idle_time: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct GuestsArgs {
    /// Where to put them
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ArsenalArgs {
    /// Where to put them
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    #[command(flatten)]
    pub(crate) parts: FetchArgs,
    /// How long `flicker` and `flicker_run` leave Xen's text changed
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 1000)]
    pub(crate) flicker_us: u32,
    /// How often they do so
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) flicker_times: u32,
    /// How long they wait after each time
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 10_000)]
    pub(crate) flicker_gap_us: u32,
    /// The domain that `hide_domain` hides [default: the domU with the lowest number]
    #[arg(long, value_name = "DOMID", value_parser = clap::value_parser!(u16).range(1..0x7ff0))]
    pub(crate) hide_domain: Option<u16>,
    /// The interrupt vector whose gate `idt` swaps: not 2, 8 or 18, which switch stacks
    #[arg(long, value_name = "VECTOR", default_value_t = 3)]
    pub(crate) vector: u8,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Where to record; a new directory. Without it, calls are printed as they happen
    #[arg(long, value_name = "DIR")]
    pub(crate) record: Option<PathBuf>,
    /// Symbols of the Xen in the guest (xen-syms with or without DWARF); without it, those its image carries
    #[arg(long, value_name = "FILE")]
    pub(crate) symbols: Option<PathBuf>,
    /// Print calls as JSON lines (docs/events.md); only without --record
    #[arg(long, conflicts_with = "record")]
    pub(crate) json: bool,
    /// End QEMU if it cannot be watched, rather than let it run on unwatched. Always so under TCG
    #[arg(long)]
    pub(crate) require: bool,
    /// Become QEMU rather than start it, the engine beside it: for libvirt and other managers, which look after the
    /// process that they started (docs/libvirt.md). Under KVM only
    #[arg(long)]
    pub(crate) in_place: bool,
    /// Size of the ring of each vCPU, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub(crate) ring_mib: u64,
    #[command(flatten)]
    pub(crate) detect: DetectArgs,
    /// QEMU and its arguments, as you would run it: qemu-system-x86_64 -accel tcg …
    #[arg(last = true, value_name = "QEMU COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// The recording of the engine that was killed: it is gone on with
    #[arg(value_name = "DIR")]
    pub(crate) recording: PathBuf,
    #[command(flatten)]
    pub(crate) detect: DetectArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LookArgs {
    /// A machine that runs: the directory of its recording, or the socket of QEMU's monitor (QMP); alone, the one that is
    /// watched now
    #[arg(long, value_name = "VM", num_args = 0..=1, required_unless_present = "dump", conflicts_with = "dump")]
    pub(crate) attach: Option<Option<PathBuf>>,
    /// An image of its memory: QEMU's ELF dump (dump-guest-memory), LiME's, or raw
    #[arg(long, value_name = "FILE")]
    pub(crate) dump: Option<PathBuf>,
    /// What Xen was made with: xen-syms of its debug package. Not needed for a machine that is being recorded with one
    #[arg(long, value_name = "FILE")]
    pub(crate) symbols: Option<PathBuf>,
    /// Stop the machine meanwhile, so that all is seen as of one moment
    #[arg(long, conflicts_with = "dump")]
    pub(crate) stop: bool,
    /// As one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 no tampering was found; 1 signs of tampering; 2 it could not be checked.\n\
    docs/integrity.md says what is looked at and what is not."
)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) look: LookArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TraceArgs {
    /// The recording
    #[arg(value_name = "DIR")]
    pub(crate) recording: PathBuf,
    /// One JSON object a line (docs/events.md)
    #[arg(long)]
    pub(crate) json: bool,
    /// Only calls of this domain id; may be repeated
    #[arg(long, value_name = "N")]
    pub(crate) domain: Vec<u16>,
    /// Only this hypercall or sub-op, by name (memory_op, XENMEM_exchange) or number; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) hypercall: Vec<String>,
    /// Only calls that returned an error
    #[arg(long)]
    pub(crate) failed: bool,
    /// Everything that was captured, rather than as much as fits a line
    #[arg(long)]
    pub(crate) full: bool,
    /// Go on as the recording grows, until it is complete
    #[arg(long)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) alerts: AlertArgs,
}

#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// The recording
    #[arg(value_name = "DIR")]
    pub(crate) recording: PathBuf,
    /// The summary as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// The recording
    #[arg(value_name = "DIR")]
    pub(crate) recording: PathBuf,
    /// The HTML file to write
    #[arg(short, long, value_name = "FILE", default_value = "report.html")]
    pub(crate) output: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum XenArg {
    /// Debian 13's
    #[value(name = "4.20")]
    V4_20,
    /// Debian 12's
    #[value(name = "4.17")]
    V4_17,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum QemuArg {
    /// Debian 13's: plugin API level 4
    #[value(name = "10.0")]
    V10_0,
    /// Debian 13's backports: plugin API level 7
    #[value(name = "11.1")]
    V11_1,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DomuArg {
    /// Paravirtualised
    Pv,
    /// Hardware virtualised, without a device model
    Pvh,
    /// Hardware virtualised, with emulated devices
    Hvm,
    /// No guest but dom0
    None,
}

/// What the lab's Xen runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum L0Arg {
    /// QEMU's translator
    Tcg,
    /// Linux KVM: this machine's if it can nest, else that of a Linux which QEMU emulates
    Kvm,
}

#[derive(Debug, Args)]
pub(crate) struct FetchArgs {
    /// Which Xen, with the dom0 that belongs to it
    #[arg(long, value_enum, default_value = "4.20")]
    pub(crate) xen: XenArg,
    /// Which QEMU
    #[arg(long, value_enum, default_value = "10.0")]
    pub(crate) qemu: QemuArg,
}

#[derive(Debug, Args)]
pub(crate) struct LabRunArgs {
    #[command(flatten)]
    pub(crate) parts: FetchArgs,
    /// What Xen runs on
    #[arg(long, value_enum, default_value = "tcg")]
    pub(crate) l0: L0Arg,
    /// Virtual processors of the machine [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) vcpus: Option<u32>,
    /// Guests to start: with --script they stay up while it runs, else each boots, works a little and shuts down
    #[arg(long, value_enum, value_delimiter = ',', default_value = "none")]
    pub(crate) domu: Vec<DomuArg>,
    /// A directory that dom0 sees, read-only, at /lab/files
    #[arg(long, value_name = "DIR")]
    pub(crate) files: Option<PathBuf>,
    /// A program that is run in dom0 as root once the toolstack is up; its output and exit code are passed through
    #[arg(long, value_name = "FILE")]
    pub(crate) script: Option<PathBuf>,
    /// Where to record; a new directory
    #[arg(long, value_name = "DIR")]
    pub(crate) record: Option<PathBuf>,
    /// Give up after so many seconds
    #[arg(long, value_name = "S", default_value_t = 600)]
    pub(crate) timeout: u64,
    /// Symbols for Xen: "file" for those of its debug package, "image" for those it carries, or a path
    #[arg(long, value_name = "WHICH", default_value = "file")]
    pub(crate) symbols: String,
    /// Show the machine's console on standard error
    #[arg(long)]
    pub(crate) console: bool,
    /// Boot without watching, to compare with
    #[arg(long, conflicts_with = "record")]
    pub(crate) unmonitored: bool,
    /// A thread for each vCPU in QEMU. Off because Xen then hangs in about one boot of fifteen, watched or not
    #[arg(long)]
    pub(crate) parallel: bool,
    #[command(flatten)]
    pub(crate) detect: DetectArgs,
    /// Appended to Xen's command line; may be repeated
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    pub(crate) xen_option: Vec<String>,
    /// Appended to the command line of dom0's kernel; may be repeated
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    pub(crate) dom0_option: Vec<String>,
    /// The hooks are placed but do nothing: for measuring their bare cost
    #[arg(long, hide = true, conflicts_with = "record")]
    pub(crate) only_hooks: bool,
    /// An address for QEMU's gdbstub, to measure it: passed as -gdb
    #[arg(long, hide = true, value_name = "ADDRESS")]
    pub(crate) gdb: Option<String>,
}
