// SPDX-License-Identifier: GPL-2.0-only

//! What the init of a microVM does before it serves: mounts, settings, the network.

mod net;

use std::error::Error;

use rustix::mount::{MountFlags, mount};

/// Mounts the kernel's file systems and configures the network as the kernel's command line says. Does nothing in a
/// process that is not init: elsewhere than in a guest, all that is somebody else's.
///
/// Fails if a mount does, if a setting cannot be understood, or if the kernel refuses an address or a route.
pub fn init() -> Result<(), Box<dyn Error>> {
    if std::process::id() != 1 {
        return Ok(());
    }
    for (kind, target) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        mount(kind, target, kind, MountFlags::empty(), None)?;
    }
    net::configure(&net::Config::from_environment()?)
}

/// A parameter of the kernel's command line, which gives init the unknown ones as environment.
pub fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
