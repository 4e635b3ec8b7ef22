// SPDX-License-Identifier: GPL-2.0-only

//! The stages by name, and what one costs.

use std::error::Error;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use rustix::time::{ClockId, clock_gettime};
use sleepy_function::picture::Filter;

use crate::tcc::Step;

/// Where tcc's files are: in the guest, in memory.
const TEMPORARY: &str = "/tmp";

/// A stage of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// One of the image chain.
    Picture(Filter),
    /// One of the compile chain.
    Program(Step),
}

/// What a stage made.
pub struct Made {
    /// The result.
    pub bytes: Vec<u8>,
    /// The CPU time of the work, the thread's and the child's. It includes time that the host has stolen, unless the kernel
    /// accounts for that (`CONFIG_PARAVIRT_TIME_ACCOUNTING`).
    pub cpu: Duration,
}

impl FromStr for Stage {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Ok(match name {
            "blur" => Self::Picture(Filter::Blur),
            "edge" => Self::Picture(Filter::Edge),
            "resize" => Self::Picture(Filter::Resize),
            "gamma" => Self::Picture(Filter::Gamma),
            "sepia" => Self::Picture(Filter::Sepia),
            "preprocess" => Self::Program(Step::Preprocess),
            "compile" => Self::Program(Step::Compile),
            "link" => Self::Program(Step::Link),
            _ => return Err(format!("no stage '{name}'")),
        })
    }
}

impl Stage {
    /// Does its work. Fails if the input is not what it should be.
    pub fn run(self, input: &[u8]) -> Result<Made, Box<dyn Error + Send + Sync>> {
        let begin = cpu_time()?;
        let bytes = match self {
            Self::Picture(filter) => filter.apply(input)?,
            Self::Program(step) => step.take(Path::new(TEMPORARY), input)?,
        };
        let cpu = cpu_time()?.saturating_sub(begin);
        Ok(Made { bytes, cpu })
    }
}

/// Of this thread and of all children that were waited for.
fn cpu_time() -> nix::Result<Duration> {
    let children = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    Ok(thread_time() + duration(children.user_time()) + duration(children.system_time()))
}

/// The CPU time of the calling thread.
pub fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // Neither is ever negative.
    Duration::new(
        time.tv_sec.unsigned_abs(),
        time.tv_nsec.unsigned_abs() as u32,
    )
}

fn duration(time: TimeVal) -> Duration {
    Duration::new(
        time.tv_sec().unsigned_abs(),
        time.tv_usec().unsigned_abs() as u32 * 1000,
    )
}
