//! Cargo, on the scratch crates.

use std::{
    error::Error,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use crate::scratch::{Crate, Scratch};

/// Returns the time that `cargo check` of the crate takes.
pub(crate) fn check(scratch: &Scratch, which: Crate) -> Result<Duration, Box<dyn Error>> {
    let mut command = cargo(scratch, "target");
    command.args(["check", "--quiet", "--package", which.name()]);
    let began = Instant::now();
    succeed(&mut command)?;
    Ok(began.elapsed())
}

/// Removes the build artifacts of the crate.
pub(crate) fn clean(scratch: &Scratch, which: Crate) -> Result<(), Box<dyn Error>> {
    succeed(cargo(scratch, "target").args(["clean", "--quiet", "--package", which.name()]))?;
    Ok(())
}

/// Returns the size of the expanded macros as a nightly compiler counts it, or `None` without a nightly.
pub(crate) fn macro_stats(scratch: &Scratch, which: Crate) -> Result<Option<String>, Box<dyn Error>> {
    let has_nightly = Command::new("rustup")
        .args(["run", "nightly", "rustc", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !has_nightly {
        return Ok(None);
    }
    // Cargo prints no statistics for a crate that is up to date, so the crate must look changed.
    scratch.touch(which)?;
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo", "rustc", "--profile", "check", "--package", which.name()]);
    let output = succeed(within(&mut command, scratch, "nightly").args(["--", "-Zmacro-stats"]))?;
    Ok(Some(String::from_utf8_lossy(&output.stderr).into_owned()))
}

fn cargo(scratch: &Scratch, target: &str) -> Command {
    let mut command = Command::new("cargo");
    within(&mut command, scratch, target);
    command
}

fn within<'a>(command: &'a mut Command, scratch: &Scratch, target: &str) -> &'a mut Command {
    command.current_dir(scratch.root()).env("CARGO_TARGET_DIR", scratch.root().join(target))
}

fn succeed(command: &mut Command) -> Result<Output, Box<dyn Error>> {
    let output = command.output()?;
    if output.status.success() {
        Ok(output)
    } else {
        Err(format!("{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr)).into())
    }
}
