//! The command line.
//!
//! Exit codes: 0 all is well; 1 there are findings (events were lost); 2 an error, told in one line. `lab run` passes
//! the exit code of its script through instead.

mod attach;
mod check;
mod cli;
mod detect;
mod doctor;
mod eval;
mod in_place;
mod inject;
mod integrity;
mod lab;
mod learn;
mod live;
mod output;
mod remote;
mod rules;
mod run;
mod signals;
mod standstill;
mod view;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command, LabCommand};

/// Findings: the work was done, but not everything was seen.
const FINDINGS: u8 = 1;
/// An error.
const ERROR: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli.command) {
        Ok(code) => ExitCode::from(code),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to be told if standard error is closed.
            let _ = writeln!(std::io::stderr(), "hypovisor: {}", in_one_line(&error));
            ExitCode::from(ERROR)
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Run(args) => run::run(&args),
        Command::Attach(args) => attach::attach(&args),
        Command::Check(args) => check::check(&args),
        Command::Ls(args) => check::ls(&args),
        Command::Trace(args) => view::trace(&args),
        Command::Stats(args) => view::stats(&args),
        Command::Report(args) => view::report(&args),
        Command::Rules { command } => rules::rules(&command),
        Command::Learn(args) => learn::learn(&args),
        Command::Policy(args) => learn::policy(&args),
        Command::Inject(args) => inject::inject(&args),
        Command::Eval(args) => eval::eval(&args),
        Command::Resume(args) => remote::resume(&args),
        Command::Reload(args) => remote::reload(&args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Status(args) => remote::status(&args),
        Command::Lab { command: LabCommand::Fetch(args) } => lab::fetch(&args),
        Command::Lab { command: LabCommand::Run(args) } => lab::run(&args),
        Command::Lab { command: LabCommand::Witness(args) } => lab::witness::witness(&args),
        Command::Lab { command: LabCommand::Guests(args) } => lab::guests(&args),
        Command::Lab { command: LabCommand::Arsenal(args) } => lab::arsenal(&args),
        Command::Lab { command: LabCommand::KvmHost(args) } => lab::nested::host(&args),
    }
}

/// The error and its causes; a cause that the error before it has told already is not told again.
fn in_one_line(error: &anyhow::Error) -> String {
    let mut line = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !line.ends_with(&cause) {
            line.push_str(": ");
            line.push_str(&cause);
        }
    }
    line
}

/// A reader like `head` that has seen enough is no error.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |cause: &std::io::Error| cause.kind() == std::io::ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref().is_some_and(broken))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn no_cause_is_told_twice() {
        let told = anyhow!("gone").context("cannot read x: gone").context("no rules");
        assert_eq!(in_one_line(&told), "no rules: cannot read x: gone");
    }
}
