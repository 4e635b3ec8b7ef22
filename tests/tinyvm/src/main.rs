// SPDX-License-Identifier: GPL-2.0-only

//! A virtual machine of one page: a stand-in for a VMM in tests that need real vCPU threads but no guest
//! system, since they run on a slow kernel or need many.
//!
//! When the vCPUs run, it prints a line `{"name":"tiny","pid":12,"tids":[13,14]}`; a vCPU that comes later
//! prints `{"name":"tiny","pid":12,"added":15}`. It runs until it is killed.

mod machine;

use std::ffi::CString;
use std::io::Write;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;
use std::{io, process, thread};

use clap::Parser;
use machine::{Error, Machine, Mode};
use serde_json::json;

/// The longest name that the kernel keeps of a thread.
const NAME_LENGTH: usize = 15;

/// A virtual machine of one page.
#[derive(Parser)]
#[command(name = "tinyvm", version)]
struct Arguments {
    /// What the guest does for ever
    #[arg(value_enum)]
    mode: Mode,
    /// Number of vCPUs
    #[arg(long, default_value_t = 1, value_name = "N")]
    vcpus: usize,
    /// Name of the process
    #[arg(long, default_value = "tinyvm")]
    name: String,
    /// Hold this tap open; it is made if it is not there
    #[arg(long, value_name = "NAME")]
    tap: Vec<String>,
    /// Open the taps with IFF_VNET_HDR
    #[arg(long)]
    vnet_hdr: bool,
    /// Create one more vCPU after this time
    #[arg(long, value_name = "SECONDS")]
    add_vcpu_after: Option<f64>,
    /// Send every vCPU an interrupt after each such time
    #[arg(long, value_name = "MILLISECONDS")]
    interrupt: Option<u64>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tinyvm: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Error> {
    let short: String = arguments.name.chars().take(NAME_LENGTH).collect();
    let name = CString::new(short).map_err(|_| Error::Name)?;
    rustix::thread::set_name(&name).map_err(io::Error::from)?;
    let taps = arguments
        .tap
        .iter()
        .map(|name| tap(name, arguments.vnet_hdr))
        .collect::<Result<Vec<_>, _>>()?;

    let machine = Machine::new(arguments.mode)?;
    let mut tids = Vec::new();
    for index in 0..arguments.vcpus {
        tids.push(start(&machine, index)?);
    }
    report(json!({ "name": arguments.name, "pid": process::id(), "tids": tids }))?;
    if let Some(seconds) = arguments.add_vcpu_after {
        thread::sleep(Duration::try_from_secs_f64(seconds).map_err(|_| Error::Time)?);
        let tid = start(&machine, arguments.vcpus)?;
        report(json!({ "name": arguments.name, "pid": process::id(), "added": tid }))?;
    }
    loop {
        match arguments.interrupt {
            Some(period) => {
                thread::sleep(Duration::from_millis(period));
                machine.interrupt()?;
            }
            None => thread::park(),
        }
        // Held to here.
        let _ = &taps;
    }
}

/// Starts a vCPU in a thread of its own; returns the thread's id.
fn start(machine: &Machine, index: usize) -> Result<i32, Error> {
    let mut vcpu = machine.vcpu(index)?;
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new().spawn(move || {
        // The receiver waits, so that this cannot fail.
        let _ = sender.send(rustix::thread::gettid().as_raw_nonzero().get());
        let error = vcpu.run();
        eprintln!("tinyvm: vCPU {index}: {error}");
        process::exit(1);
    })?;
    receiver.recv().map_err(|_| Error::Thread)
}

fn tap(name: &str, vnet_hdr: bool) -> Result<tun::Device, Error> {
    let mut configuration = tun::Configuration::default();
    configuration
        .tun_name(name)
        .layer(tun::Layer::L2)
        .platform_config(|platform| {
            platform.vnet_hdr(vnet_hdr);
            // An existing tap is left as it is.
            platform.ensure_root_privileges(false);
        });
    tun::create(&configuration).map_err(|source| Error::Tap {
        name: name.to_owned(),
        source,
    })
}

fn report(line: serde_json::Value) -> Result<(), Error> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    Ok(output.flush()?)
}
