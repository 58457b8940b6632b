//! Developer chores: `cargo xtask demo`, `test`, `bench`, `soak`.
//!
//! Each sets up what it needs on a fresh Debian 12 or 13 with cargo, gcc and python3: the lab fetches its parts into
//! the cache without being root.

mod bench;
mod build;
mod demo;
mod l0;
mod soak;
mod test;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::l0::L0;

/// Developer chores of Hypovisor.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Boot Xen with a PV and a PVH guest, record every hypercall, and report (target/demo/)
    Demo,
    /// Run all tests: unit, property and snapshot tests, and those that boot the lab
    Test {
        /// Only tests whose name contains this
        filter: Option<String>,
        /// What the machines of the lab tests run on; under `kvm` only those tests are run that are about it
        #[arg(long, value_enum, default_value = "tcg")]
        l0: L0,
    },
    /// Measure cost and speed side by side (target/bench/results.json, results-kvm.json)
    Bench {
        /// Only these measurements; under `kvm` all are one, but for `stealth`, which is by itself
        #[arg(value_enum)]
        only: Vec<bench::Measurement>,
        /// What the machines run on; under `kvm`, figures are instructions, and it takes three quarters of an hour
        #[arg(long, value_enum, default_value = "tcg")]
        l0: L0,
        /// Everything is built: set inside the emulated KVM host
        #[arg(long, hide = true)]
        inside: bool,
    },
    /// Have busy domains watched for a long time, with rules and with --integrity: nothing may be told (target/soak/)
    Soak {
        /// For how long, in the machine's own time
        #[arg(long, value_name = "N", default_value_t = 30)]
        minutes: u64,
        /// What the machine runs on; time in emulated KVM passes several times slower than outside
        #[arg(long, value_enum, default_value = "tcg")]
        l0: L0,
        /// Everything is built: set inside the emulated KVM host
        #[arg(long, hide = true)]
        inside: bool,
    },
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Demo => demo::demo(),
        Command::Test { filter, l0: L0::Tcg } => test::test(filter.as_deref()),
        Command::Test { filter, l0: L0::Kvm } => l0::test(filter.as_deref()),
        Command::Bench { inside: true, only, .. } => bench::inside_kvm_host(&only),
        Command::Bench { only, l0: L0::Kvm, .. } => l0::bench(&only),
        Command::Bench { only, l0: L0::Tcg, .. } => bench::tcg(&only),
        Command::Soak { minutes, l0, inside } => soak::soak(minutes, l0, inside),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to be told if standard error is closed.
            let _ = writeln!(std::io::stderr(), "xtask: {error:#}");
            ExitCode::from(2)
        }
    }
}
