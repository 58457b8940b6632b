//! Building with cargo, and where what was built stands.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

/// The packages whose artefacts a user runs.
const PACKAGES: [&str; 4] =
    ["hypovisor", "hypovisor-adapter-tcg-v4", "hypovisor-adapter-tcg-v7", "hypovisor-adapter-kvm"];

/// How much the compiler is to optimise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Quick to build; the vCPU's path is optimised all the same.
    Dev,
    /// What users run, and what is measured.
    Release,
}

/// The workspace's directory.
pub(crate) fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_owned()
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The cargo that runs this.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// Where a profile's program stands.
pub(crate) fn program(profile: Profile) -> PathBuf {
    let dir = if profile == Profile::Release { "release" } else { "debug" };
    target().join(dir).join("hypovisor")
}

/// Builds the program and its plugins; gives the program's path.
pub(crate) fn hypovisor(profile: Profile) -> anyhow::Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--locked"]);
    for package in PACKAGES {
        build.args(["--package", package]);
    }
    if profile == Profile::Release {
        build.arg("--release");
    }
    run(&mut build)?;
    Ok(program(profile))
}

/// Runs a command to its end; its output goes where ours goes.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("cannot run {name}"))?;
    if !status.success() {
        bail!("{name} ended with {status}");
    }
    Ok(())
}
