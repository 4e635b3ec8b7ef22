// SPDX-License-Identifier: GPL-2.0-only

//! One copy of what the microVMs' memory has in common.
//!
//! Guests that are alike are so on a host with KSM. Under the emulator it matters twice: it translates code by where that
//! lies in the host's memory, and has the translations of few guests at once.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use sleepy_host::Result;

const KSM: &str = "/sys/kernel/mm/ksm";
/// A page is merged in the second scan that finds it unchanged.
const SCANS: u64 = 3;
const LONGEST: Duration = Duration::from_secs(120);

/// Merges what is alike now. Does nothing on a kernel without KSM.
pub fn merge() -> Result<()> {
    let ksm = Path::new(KSM);
    if !ksm.exists() {
        return Ok(());
    }
    fs::write(ksm.join("pages_to_scan"), "20000")?;
    fs::write(ksm.join("sleep_millisecs"), "1")?;
    let scans =
        || -> Result<u64> { Ok(fs::read_to_string(ksm.join("full_scans"))?.trim().parse()?) };
    let (before, deadline) = (scans()?, Instant::now() + LONGEST);
    fs::write(ksm.join("run"), "1")?;
    while scans()? < before + SCANS && Instant::now() < deadline {
        sleep(Duration::from_millis(100));
    }
    fs::write(ksm.join("run"), "0")?;
    Ok(())
}
