// SPDX-License-Identifier: GPL-2.0-only

//! The controller that does sleepy's work from userspace (tests/controller).

use std::fmt::Write;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sleepy_host::{Result, vm};

use super::{POLL, end, last_words};

/// One that does not capture on all taps by then will not.
const START_TIME: Duration = Duration::from_secs(30);

/// A controller that is at work.
pub struct Controller {
    child: Child,
    /// What the program says.
    said: PathBuf,
    /// Where it writes its reaction times.
    log: PathBuf,
}

impl Controller {
    /// Starts it for VMs, each by its name, its tap and the threads of its vCPUs, and waits until it captures on all taps. It
    /// writes to `log` when it ends. It has a real-time priority, as sleepy's worker, so that no other program on its CPU
    /// holds it up.
    pub fn start(program: &Path, vms: &[(String, String, Vec<i32>)], log: &Path) -> Result<Self> {
        let list = log.with_extension("vms");
        fs::write(&list, lines(vms)?)?;
        let said = log.with_extension("log");
        let file = File::create(&said)?;
        let child = Command::new("chrt")
            .args(["--fifo", "1"])
            .arg(program)
            .arg("--vms")
            .arg(&list)
            .arg("--log")
            .arg(log)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .map_err(|error| format!("chrt: {error}"))?;
        let mut controller = Self {
            child,
            said,
            log: log.to_owned(),
        };
        let deadline = Instant::now() + START_TIME;
        while !fs::read_to_string(&controller.said)?
            .lines()
            .any(|line| line == "READY")
        {
            if let Some(status) = controller.child.try_wait()? {
                return Err(controller.error(&status.to_string()));
            }
            if Instant::now() > deadline {
                return Err(controller.error(&format!("not ready after {START_TIME:?}")));
            }
            sleep(POLL);
        }
        Ok(controller)
    }

    /// Ends it, with all threads back at nice 0, and returns its reaction times in ns. Fails if it has lost a VM.
    pub fn stop(mut self) -> Result<Vec<u64>> {
        let ended = self.child.try_wait()?;
        end(&mut self.child, Signal::TERM)?;
        let said = fs::read_to_string(&self.said)?;
        let status = self.child.wait()?;
        if ended.is_some() || !status.success() || said.trim() != "READY" {
            return Err(self.error(&status.to_string()));
        }
        Ok(serde_json::from_slice(&fs::read(&self.log)?)
            .map_err(|error| format!("{}: {error}", self.log.display()))?)
    }

    fn error(&self, what: &str) -> Box<dyn std::error::Error + Send + Sync> {
        format!("the controller: {what}: {}", last_words(&self.said)).into()
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        // After a stop there is nothing to do; else it is one that failed already.
        let _ = end(&mut self.child, Signal::TERM);
    }
}

/// The VMs as the program reads them.
fn lines(vms: &[(String, String, Vec<i32>)]) -> Result<String> {
    let mut text = String::new();
    for (name, tap, vcpus) in vms {
        let vcpus: Vec<_> = vcpus.iter().map(i32::to_string).collect();
        writeln!(text, "{name}={tap}:{}:{}", vm::PORT, vcpus.join(","))?;
    }
    Ok(text)
}
