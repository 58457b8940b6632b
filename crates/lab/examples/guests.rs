//! Compiles the lab's small guests into a directory, for `boot --files`:
//!
//! ```text
//!     cargo run -p hypovisor-lab --example guests -- DIR
//! ```

use std::error::Error;
use std::io::{Write, stdout};
use std::path::PathBuf;

use hypovisor_lab::guests;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args_os().nth(1).map(PathBuf::from).ok_or("usage: guests DIR")?;
    writeln!(stdout(), "{}", guests::build(&dir)?.dir().display())?;
    Ok(())
}
