// SPDX-License-Identifier: GPL-2.0-only

//! sleepy: a VM that waits for a request gives its CPU away; the request packet gives it back before the
//! guest sees the packet.
//!
//! An event enters in [`sense`], [`policy`] turns (state, event, now) into (state, decision), [`act`]
//! carries the decision out; [`engine`] is where the three meet, once per VM.

#![deny(unsafe_code)]

use kernel::{
    miscdevice::{MiscDeviceOptions, MiscDeviceRegistration},
    prelude::*,
    sync::Arc,
};

mod act;
mod device;
mod engine;
// These two are public crates of the workspace in userspace/ as well.
#[allow(dead_code, unreachable_pub, unused_imports)]
mod policy;
mod registry;
#[allow(unsafe_code)]
#[path = "../rust/mod.rs"]
mod rust;
mod sense;
mod stats;
mod turns;
#[allow(dead_code, unreachable_pub)]
mod uapi;
mod vm;

use device::Device;
use registry::{Registry, REGISTRY};
use rust::{
    forks::Forks, global::Published, module_ref, netdev::UnregisterNotifier, periodic::Periodic,
    worker::Worker,
};
use sense::{exit::Exits, vcpu::Vcpu};
use turns::Turns;

module! {
    type: Sleepy,
    name: "sleepy",
    authors: ["The sleepy developers"],
    description: "Keeps the CPU for the KVM virtual machines that have a request to serve",
    license: "GPL v2",
}

/// Waits, when dropped, until no code of the module runs any more.
struct Drain;

impl Drop for Drain {
    fn drop(&mut self) {
        module_ref::drain();
    }
}

/// The module. Unloading it drops the fields in this order; each VM holds a reference to the module, so
/// that none is left by then.
#[pin_data]
struct Sleepy {
    #[pin]
    _device: MiscDeviceRegistration<Device>,
    _published: Published<Periodic<Registry>>,
    #[pin]
    _notifier: UnregisterNotifier<Periodic<Registry>>,
    _forks: Forks<Vcpu>,
    _drain: Drain,
}

impl kernel::InPlaceModule for Sleepy {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            let turns = Turns::new()?;
            let forks = Forks::new(turns.cpus.clone())?;
            let exits = Exits::new(turns.cpus.clone())?;
            let worker = Worker::new(c"sleepy")?;
            let registry = Registry::new(turns, exits, worker);
            let registry = Arc::pin_init(Periodic::new(registry), GFP_KERNEL)?;
            Ok(try_pin_init!(Self {
                _drain: Drain,
                _forks: forks,
                _notifier <- UnregisterNotifier::new(registry.clone()),
                _published: REGISTRY.publish(registry)?,
                _device <- MiscDeviceRegistration::register(MiscDeviceOptions { name: c"sleepy" }),
            }? Error))
        })
    }
}
