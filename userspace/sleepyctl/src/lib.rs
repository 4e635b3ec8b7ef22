// SPDX-License-Identifier: GPL-2.0-only

//! `sleepyctl` shows and controls sleepy, which keeps a KVM host's CPU for the virtual machines that have work.

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use serde::Serialize;

use cli::{Cli, Command, Vm};
use error::{Error, Exit, Result};
use output::{ErrorJson, Output};

mod apply;
mod attempt;
mod boost;
mod cgroup;
mod check;
mod cli;
mod device;
mod error;
mod events;
mod export;
mod filter;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod generate;
mod help;
mod histogram;
mod host;
mod index;
mod ioctl;
mod kvm_debug;
mod lever;
mod link;
mod manifest;
mod netns;
mod output;
mod policy;
mod probe;
mod processes;
mod program;
mod rule;
mod similar;
mod stats;
mod stats_text;
mod time;
mod vcpus;
mod vm_add;
mod vm_list;
mod vm_remove;
mod vm_set;
mod vm_show;
mod vmm;
mod wanted;

/// Runs it, with this process's arguments.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return wrong_command_line(&error),
    };
    let name = cli.command.as_ref().map_or("sleepyctl", Command::name);
    match run(&cli) {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(error) => {
            let error = error.of(name);
            if cli.json {
                print_json(&error);
            }
            output::say(&error);
            ExitCode::from(error.exit as u8)
        }
    }
}

fn run(cli: &Cli) -> Result<Exit> {
    let output = Output { json: cli.json };
    match &cli.command {
        None => vm_list::run_with_module(output),
        Some(Command::Vm(Vm::Add(args))) => vm_add::run(output, args),
        Some(Command::Vm(Vm::List)) => vm_list::run(output),
        Some(Command::Vm(Vm::Show { name })) => vm_show::run(output, name),
        Some(Command::Vm(Vm::Set(args))) => vm_set::run(output, args),
        Some(Command::Vm(Vm::Remove(args))) => vm_remove::run(output, args),
        Some(Command::Stats(args)) => stats::run(output, args),
        Some(Command::Probe(args)) => probe::run(output, args),
        Some(Command::Check(args)) => return check::run(output, args),
        Some(Command::Apply(args)) => return apply::run(output, args),
        Some(Command::Export { names }) => export::run(output, names),
        Some(Command::Schema) => output::write(manifest::SCHEMA).map(drop),
        Some(Command::Generate { dir }) => generate::run(dir),
    }
    .map(|()| Exit::Done)
}

/// `--help` and `--version` end up here too, but are no errors.
fn wrong_command_line(error: &clap::Error) -> ExitCode {
    let asks_for_json = || {
        std::env::args_os()
            .skip(1)
            .any(|arg| arg == "-j" || arg == "--json")
    };
    if error.use_stderr() && asks_for_json() {
        print_json(&Error::usage(in_short(error)));
    }
    // Where to print, if not even that works?
    let _ = error.print();
    ExitCode::from(if error.use_stderr() {
        Exit::Usage as u8
    } else {
        0
    })
}

/// The first paragraph of what clap says, on one line; the rest is help.
fn in_short(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "the command is not complete; see --help".to_string();
    }
    let text = error.to_string();
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.is_empty())
        .collect();
    let line = lines.join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_string()
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorJson<'a>,
}

fn print_json(error: &Error) {
    let body = ErrorBody {
        error: ErrorJson::from(error),
    };
    // The text goes to standard error in any case.
    let _ = output::write(&(output::json(body) + "\n"));
}
