// SPDX-License-Identifier: GPL-2.0-only

//! Waits for packets, and for time to go by.

use std::io;
use std::time::Instant;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;

use crate::Result;
use crate::vm::Vm;

/// Beside those of the VMs, which are their places.
const SIGNALS: Token = Token(usize::MAX);

/// Controls the VMs until a signal comes, and returns the reaction times of all of them in ns. `ready` is called when every
/// packet from now on is seen. A VM that is lost meanwhile is reported, and the others are not.
pub fn watch(vms: Vec<Vm>, ready: impl FnOnce()) -> Result<Vec<u64>> {
    let mut vms: Vec<_> = vms.into_iter().map(Some).collect();
    let mut poll = Poll::new()?;
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    poll.registry()
        .register(&mut signals, SIGNALS, Interest::READABLE)?;
    for (place, vm) in vms.iter().flatten().enumerate() {
        poll.registry()
            .register(&mut SourceFd(&vm.fd()), Token(place), Interest::READABLE)?;
    }
    ready();

    let mut events = Events::with_capacity(vms.len() + 1);
    let mut reactions = Vec::new();
    let mut end = false;
    while !end {
        let deadline = vms.iter().flatten().filter_map(Vm::deadline).min();
        let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        match poll.poll(&mut events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &events {
            match event.token() {
                SIGNALS => end = signals.pending().next().is_some(),
                Token(place) => unless_lost(&mut vms[place], |vm| vm.packets(&mut reactions)),
            }
        }
        let now = Instant::now();
        for vm in &mut vms {
            unless_lost(vm, |vm| vm.time(now));
        }
    }
    for vm in &mut vms {
        unless_lost(vm, |vm| vm.set_nice(0));
    }
    Ok(reactions)
}

/// Does something for a VM that is there; one for which it fails is not any more.
fn unless_lost(place: &mut Option<Vm>, what: impl FnOnce(&mut Vm) -> Result<()>) {
    if let Some(vm) = place
        && let Err(error) = what(vm)
    {
        eprintln!("sleepy-controller: {error}: it is left alone from now on");
        // Its other threads may still be there.
        let _ = vm.set_nice(0);
        *place = None;
    }
}
