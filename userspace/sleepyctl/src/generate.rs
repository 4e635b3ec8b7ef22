// SPDX-License-Identifier: GPL-2.0-only

//! Man pages and shell completions, for `make install`.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::error::{Error, Result};

/// Writes `sleepyctl*.8` and the completions of bash, fish and zsh into `dir`.
pub fn run(dir: &Path) -> Result<()> {
    write(dir).map_err(|error| Error::failed(format!("{}: {error}", dir.display())))
}

fn write(dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    pages(&Cli::command(), "sleepyctl", dir)?;
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(shell, &mut Cli::command(), "sleepyctl", dir)?;
    }
    Ok(())
}

/// A page for the command, and one for each command below it.
fn pages(command: &clap::Command, line: &str, dir: &Path) -> std::io::Result<()> {
    let name = line.replace(' ', "-");
    let named = command
        .clone()
        .display_name(name.clone())
        .bin_name(line.to_string())
        .disable_help_subcommand(true);
    let mut page = Vec::new();
    clap_mangen::Man::new(named)
        .section("8")
        .source(concat!("sleepyctl ", env!("CARGO_PKG_VERSION")))
        .manual("sleepy")
        .render(&mut page)?;
    std::fs::write(dir.join(format!("{name}.8")), page)?;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        pages(sub, &format!("{line} {}", sub.get_name()), dir)?;
    }
    Ok(())
}
