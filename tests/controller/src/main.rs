// SPDX-License-Identifier: GPL-2.0-only

//! A controller of VM weights that does its work from userspace: what sleepy is compared with.
//!
//! It captures the packets of each VM's tap. A VM with no request in flight has its vCPU threads niced, after a
//! linger; a request gives them nice 0 back. One thread serves all VMs. It says READY on its standard output when it
//! captures on every tap; SIGTERM or SIGINT ends it, with all threads back at nice 0.

mod packet;
mod spec;
mod state;
mod vm;
mod watch;

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use spec::Spec;
use state::Times;
use vm::Vm;

/// With an error that is to be read.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Nices the vCPU threads of VMs that have no request in flight.
#[derive(Parser)]
#[command(name = "sleepy-controller", version)]
struct Arguments {
    /// A VM: its tap, the TCP port that it serves, the threads of its vCPUs; may be repeated
    #[arg(
        long,
        value_name = "NAME=TAP:PORT:TID[,TID...]",
        required_unless_present = "vms"
    )]
    vm: Vec<Spec>,
    /// VMs, one in each line, as for --vm
    #[arg(long, value_name = "FILE")]
    vms: Option<PathBuf>,
    /// Nice value of a VM with no request in flight
    #[arg(long, default_value_t = 19, value_parser = clap::value_parser!(i32).range(1..=19))]
    nice: i32,
    /// How long a VM keeps nice 0 after its last answer
    #[arg(long, default_value_t = 2, value_name = "MILLISECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    linger: u64,
    /// After this, a request counts as lost
    #[arg(long, default_value_t = 300, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    request_timeout: u64,
    /// Where to write, at the end, the times from a request to nice 0: a JSON array, in ns
    #[arg(long, value_name = "FILE")]
    log: PathBuf,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sleepy-controller: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let mut specs = arguments.vm;
    if let Some(file) = arguments.vms {
        let text =
            fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        for line in text.lines() {
            specs.push(line.parse()?);
        }
    }
    let times = Times {
        linger: Duration::from_millis(arguments.linger),
        request_timeout: Duration::from_secs(arguments.request_timeout),
    };
    let vms = specs
        .into_iter()
        .map(|spec| Vm::new(spec, times, arguments.nice))
        .collect::<Result<_>>()?;
    let reactions = watch::watch(vms, || println!("READY"))?;
    fs::write(&arguments.log, serde_json::to_vec(&reactions)?)
        .map_err(|error| format!("{}: {error}", arguments.log.display()))?;
    Ok(())
}
