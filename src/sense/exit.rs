// SPDX-License-Identifier: GPL-2.0-only

//! What KVM does for a guest: interrupts, timers, device I/O, hypercalls. Attached for the VMs that want it.

use super::vcpu::Vcpu;
use crate::{
    engine::Engine,
    rust::{
        cpus::Cpus,
        kvm::{KvmModule, VmId},
        kvm_events::{self, Guest, Interrupts, Raiser, Source},
        rcu_map::RcuMap,
        timed::Timed,
    },
    uapi,
};
use kernel::{
    prelude::*,
    sync::{rcu, Arc},
};

/// Hypercalls of Linux guests that interrupt another vCPU: `KVM_HC_KICK_CPU`, `KVM_HC_SEND_IPI`.
const HYPERCALL_IPIS: [u64; 2] = [5, 10];

impl Guest for Vcpu {
    fn hypercall(&self, number: u64, argument: u64) {
        if number == u64::from(uapi::HINT_HYPERCALL) {
            Engine::hint(&self.engine, argument);
        } else if HYPERCALL_IPIS.contains(&number) {
            self.ipi();
        }
    }

    fn ipi(&self) {
        Engine::wake_soon(&self.engine, uapi::WAKE_IPI);
    }

    fn io(&self) {
        self.engine.io();
    }

    fn timer(&self) {
        Engine::guest_timer(&self.engine);
    }
}

/// The VMs that want to see their interrupts.
struct Interrupted(Pin<KBox<RcuMap<Timed<Engine>>>>);

impl Interrupts for Interrupted {
    fn interrupt(&self, vm: VmId, raiser: Raiser) {
        let reader = rcu::read_lock();
        let Some(engine) = self.0.get(vm.address(), &reader) else {
            return;
        };
        match raiser {
            Raiser::Device => Engine::wake_soon(engine, uapi::WAKE_INTERRUPT),
            Raiser::Stranger => Engine::wake_soon(engine, uapi::WAKE_DOORBELL),
            Raiser::Timer => Engine::guest_timer(engine),
        }
    }
}

/// What KVM shows, of all VMs that want it.
pub(crate) struct Exits(Pin<KBox<kvm_events::Events<Vcpu, Interrupted>>>);

impl Exits {
    /// Nobody wants any.
    pub(crate) fn new(cpus: Arc<Cpus<Vcpu>>) -> Result<Arc<Self>> {
        let map = KBox::pin_init(RcuMap::new(), GFP_KERNEL)?;
        let events = kvm_events::Events::new(cpus, Interrupted(map));
        Ok(Arc::new(
            Self(KBox::pin_init(events, GFP_KERNEL)?),
            GFP_KERNEL,
        )?)
    }
}

/// Which sources show an event.
fn sources_of_wake(cause: usize) -> &'static [Source] {
    match cause {
        uapi::WAKE_INTERRUPT | uapi::WAKE_DOORBELL => &[Source::Interrupt],
        uapi::WAKE_TIMER => &[Source::Timer, Source::Interrupt],
        uapi::WAKE_IPI => &[Source::Ipi, Source::Hypercall],
        uapi::WAKE_HINT => &[Source::Hypercall],
        _ => &[],
    }
}

fn sources_of_sleep(cause: usize) -> &'static [Source] {
    match cause {
        uapi::SLEEP_SPIN | uapi::SLEEP_QUIET => &[Source::Io, Source::Interrupt],
        uapi::SLEEP_HINT => &[Source::Hypercall],
        _ => &[],
    }
}

fn each(bits: u32) -> impl Iterator<Item = usize> {
    (0..u32::BITS as usize).filter(move |bit| bits >> bit & 1 == 1)
}

/// Those of some events that this kernel can show, as bits: to sleep and to wake.
pub(crate) fn seen() -> (u32, u32) {
    let can = |sources: &[Source]| sources.iter().all(|source| kvm_events::supported(*source));
    let only = |events, sources: fn(usize) -> &'static [Source]| {
        each(events)
            .filter(|&cause| can(sources(cause)))
            .fold(0, |bits, cause| bits | 1 << cause)
    };
    (
        only(uapi::SLEEP_EVENTS, sources_of_sleep),
        only(uapi::WAKE_EVENTS, sources_of_wake),
    )
}

/// Bits of the sources that a policy wants.
pub(crate) fn wanted(policy: &uapi::Policy) -> u32 {
    let add = |bits, source: &Source| bits | 1 << *source as u32;
    let wakes = each(policy.wake_on).flat_map(sources_of_wake).fold(0, add);
    let sleeps = each(policy.sleep_on).flat_map(sources_of_sleep);
    sleeps.fold(wakes, add)
}

/// What one VM has of it.
pub(crate) struct Watch {
    exits: Arc<Exits>,
    engine: Arc<Timed<Engine>>,
    vm: VmId,
    sources: u32,
    /// As long as there are sources.
    module: Option<KvmModule>,
}

impl Watch {
    /// Nothing.
    pub(crate) fn new(exits: Arc<Exits>, engine: Arc<Timed<Engine>>, vm: VmId) -> Self {
        Self {
            exits,
            engine,
            vm,
            sources: 0,
            module: None,
        }
    }

    /// Has these sources from now on, besides those it has. After an error it is as before. Needs `module`,
    /// unless it has some.
    pub(crate) fn widen(&mut self, wanted: u32, module: Result<KvmModule>) -> Result {
        let before = self.sources;
        if wanted & !before == 0 {
            return Ok(());
        }
        if self.module.is_none() {
            self.module = Some(module?);
        }
        for source in Source::ALL {
            let bit = 1 << source as u32;
            if wanted & !self.sources & bit == 0 {
                continue;
            }
            if let Err(error) = self.attach(source) {
                self.narrow(before);
                return Err(error);
            }
            self.sources |= bit;
        }
        Ok(())
    }

    fn attach(&self, source: Source) -> Result {
        let events = &self.exits.0;
        if source == Source::Interrupt {
            let map = &events.interrupts().0;
            map.insert(self.vm.address(), self.engine.clone())?;
        }
        events.get(source).inspect_err(|_| self.forget(source))
    }

    fn forget(&self, source: Source) {
        if source == Source::Interrupt {
            self.exits.0.interrupts().0.remove(self.vm.address());
        }
    }

    /// Keeps no more than these sources.
    pub(crate) fn narrow(&mut self, wanted: u32) {
        for source in Source::ALL {
            let bit = 1 << source as u32;
            if self.sources & !wanted & bit != 0 {
                self.exits.0.put(source);
                self.forget(source);
            }
        }
        self.sources &= wanted;
        if self.sources == 0 {
            self.module = None;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.narrow(0);
    }
}
