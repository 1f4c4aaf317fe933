//! Cargo, on the scratch crates.

use std::{
    error::Error,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use crate::scratch::{Crate, Scratch};

/// How long `cargo check` of the crate takes.
pub(crate) fn check(scratch: &Scratch, which: Crate) -> Result<Duration, Box<dyn Error>> {
    let mut command = cargo(scratch, "target");
    command.args(["check", "--quiet", "--package", which.name()]);
    let began = Instant::now();
    succeed(&mut command)?;
    Ok(began.elapsed())
}

/// Forgets what was compiled of the crate.
pub(crate) fn clean(scratch: &Scratch, which: Crate) -> Result<(), Box<dyn Error>> {
    succeed(cargo(scratch, "target").args(["clean", "--quiet", "--package", which.name()]))?;
    Ok(())
}

/// What the macros of the crate expand to, as a nightly compiler counts it; `None` if there is no nightly.
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
    // It would be fresh if it had been counted before, and a fresh crate says nothing.
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
