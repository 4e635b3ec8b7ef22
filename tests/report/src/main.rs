// SPDX-License-Identifier: GPL-2.0-only

//! The bench's results as JSON, a table and plots.

mod costs;
mod goals;
mod introduction;
mod json;
mod plot;
mod read;
mod stats;
mod summary;
mod table;
mod text;

use std::fs;
use std::io::{ErrorKind, Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use summary::Summary;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Says what the bench has measured, and whether sleepy's goals are reached.
#[derive(Parser)]
#[command(name = "sleepy-report", version)]
struct Arguments {
    /// What the bench has written; several files count as one
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Also write bench.json and the plots here
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sleepy-report: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let summary = Summary::new(read::files(&arguments.files)?);
    let goals = goals::all(&summary);
    if let Some(dir) = &arguments.out {
        fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        json::write(&dir.join("bench.json"), &summary, &goals)?;
        plot::write_all(dir, &summary.rows)?;
    }
    match stdout().write_all(text::report(&summary, &goals).as_bytes()) {
        // Whoever reads has seen enough, as `head` has.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}
