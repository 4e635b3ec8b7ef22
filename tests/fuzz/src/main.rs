// SPDX-License-Identifier: GPL-2.0-only

//! Makes calls and packets that nobody would make, from a seed, and prints what it did as JSON; for
//! `tests/vm/test_fuzz.py`, which makes the VMs. See `Documentation/fuzz.md`.

mod calls;
mod frame;
mod make;
mod packets;
mod sys;

use std::fs;
use std::os::fd::{OwnedFd, RawFd};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant};

use clap::{Args, Parser};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use sleepy_host::Result;

const DEVICE: &str = "/dev/sleepy";

/// How much.
#[derive(Args)]
struct Amount {
    /// Where chance begins
    #[arg(long)]
    seed: u64,
    /// At most so many
    #[arg(long, default_value_t = u64::MAX)]
    count: u64,
    /// At most for so long
    #[arg(long, default_value_t = u64::MAX)]
    seconds: u64,
}

impl Amount {
    fn is_over(&self, done: u64, began: Instant) -> bool {
        done >= self.count || began.elapsed() >= Duration::from_secs(self.seconds)
    }
}

/// A descriptor of another process.
#[derive(Clone, Copy)]
struct Fd(i32, RawFd);

impl FromStr for Fd {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let numbers = text
            .split_once(':')
            .map(|(pid, fd)| (pid.parse(), fd.parse()));
        match numbers {
            Some((Ok(pid), Ok(fd))) => Ok(Self(pid, fd)),
            _ => Err("give PID:DESCRIPTOR"),
        }
    }
}

impl Fd {
    /// A copy of it.
    fn take(&self) -> Result<OwnedFd> {
        let pid = Pid::from_raw(self.0).ok_or("no process has the number 0")?;
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(pidfd_getfd(process, self.1, PidfdGetfdFlags::empty())?)
    }
}

/// Into the kernel's log, where it is found even if the kernel dies of what comes next.
fn say(what: &str) {
    let _ = fs::write("/dev/kmsg", format!("fuzz: {what}\n"));
}

/// Each number once.
fn sorted(mut numbers: Vec<u64>) -> Vec<u64> {
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

#[derive(Parser)]
#[command(about = "Fuzzes the module")]
enum Command {
    /// By ioctls
    Calls(calls::Options),
    /// By packets
    Packets(packets::Options),
}

fn run() -> Result<String> {
    Ok(match Command::parse() {
        Command::Calls(options) => serde_json::to_string(&calls::run(options)?)?,
        Command::Packets(options) => serde_json::to_string(&packets::run(options)?)?,
    })
}

fn main() -> ExitCode {
    match run() {
        Ok(report) => println!("{report}"),
        Err(error) => {
            eprintln!("sleepy-fuzz: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
