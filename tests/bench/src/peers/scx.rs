// SPDX-License-Identifier: GPL-2.0-only

//! A sched_ext scheduler: in charge of all CPUs for as long as its program runs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sleepy_host::Result;

use super::{POLL, end, last_words};

const SYSFS: &str = "/sys/kernel/sched_ext";
/// One that is not in charge by then will not be.
const START_TIME: Duration = Duration::from_secs(60);
/// The kernel takes its tasks back from one that has ended.
const STOP_TIME: Duration = Duration::from_secs(10);

/// A scheduler that is in charge.
pub struct Scx {
    name: String,
    child: Child,
    /// What the program says.
    said: PathBuf,
}

impl Scx {
    /// Starts a scheduler, and waits until it is in charge. Fails with the program's last words if it does not get to be.
    pub fn start(program: &Path) -> Result<Self> {
        if !Path::new(SYSFS).exists() {
            return Err("this kernel has no sched_ext (CONFIG_SCHED_CLASS_EXT)".into());
        }
        let state = state()?;
        if state != "disabled" {
            return Err(format!("another sched_ext scheduler is {state}: end it").into());
        }
        let name = program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let said = std::env::temp_dir().join(format!("{name}.log"));
        let log = File::create(&said)?;
        let child = Command::new(program)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        let mut scx = Self { name, child, said };
        let deadline = Instant::now() + START_TIME;
        while !is_in_charge()? {
            if let Some(status) = scx.child.try_wait()? {
                return Err(scx.error(&status.to_string()));
            }
            if Instant::now() > deadline {
                return Err(scx.error(&format!("not in charge after {START_TIME:?}")));
            }
            sleep(POLL);
        }
        Ok(scx)
    }

    /// Fails, with the program's last words, if the kernel has thrown it out.
    pub fn in_charge(&self) -> Result<()> {
        if is_in_charge()? {
            Ok(())
        } else {
            Err(self.error("not in charge any more"))
        }
    }

    /// Ends it, and waits until the kernel's own scheduler is in charge again.
    pub fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        end(&mut self.child, Signal::INT)?;
        let deadline = Instant::now() + STOP_TIME;
        loop {
            let state = state()?;
            if state == "disabled" {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(self.error(&format!(
                    "ended, but sched_ext is {state} after {STOP_TIME:?}"
                )));
            }
            sleep(POLL);
        }
    }

    fn error(&self, what: &str) -> Box<dyn std::error::Error + Send + Sync> {
        format!("{}: {what}: {}", self.name, last_words(&self.said)).into()
    }
}

impl Drop for Scx {
    fn drop(&mut self) {
        // Nobody is there to be told; the next one fails to start if this one is still there.
        let _ = self.end();
    }
}

fn is_in_charge() -> Result<bool> {
    Ok(state()? == "enabled")
}

fn state() -> Result<String> {
    let file = format!("{SYSFS}/state");
    let state = fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))?;
    Ok(state.trim().to_owned())
}
