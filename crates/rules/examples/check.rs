//! Loads a directory of rules, or a file, and prints all that is wrong: `cargo run -p hypovisor-rules --example check -- DIR`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command")]

use std::path::Path;
use std::process::ExitCode;

use hypovisor_rules::Rules;

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("usage: check DIR");
        return ExitCode::from(2);
    };
    match Rules::load(Path::new(&path)) {
        Ok(rules) => {
            let bytes = rules.compiled().to_bytes().len();
            println!("{} rules, {bytes} bytes compiled, fingerprint {}", rules.len(), rules.fingerprint());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(1)
        }
    }
}
