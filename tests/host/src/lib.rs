// SPDX-License-Identifier: GPL-2.0-only

//! What the programs that run in the test host have in common: microVMs, sleepyctl, CPUs.

pub mod cpu;
pub mod ctl;
pub mod vm;

use std::error::Error;
use std::process::Command;

/// With an error that is to be read.
pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Runs a command that prints nothing of interest.
pub fn call(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{program} {}: {}", arguments.join(" "), said.trim()).into());
    }
    Ok(())
}
