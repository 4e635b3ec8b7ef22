// SPDX-License-Identifier: GPL-2.0-only

//! Waiting in place of running.

use kernel::{
    prelude::*,
    sync::{
        atomic::{Acquire, Atomic, Full, Relaxed, Release},
        Arc,
    },
};

/// Whether a VM's vCPU threads shall be parked, and how long they may run in between. In the VM's engine; all of it is for
/// any context.
pub(crate) struct Parking {
    on: Atomic<bool>,
    /// Counts the rounds: the threads run once in each,
    round: Atomic<u64>,
    /// for so long; not at all in the first.
    run: Atomic<u64>,
    /// Until when KVM's wake-ups are paid for: those of devices, those from a halt, and those of the guest's own timer.
    devices: Account,
    halts: Account,
    ticks: Account,
    /// There is a packet for the guest.
    knocked: Atomic<bool>,
    /// When the guest runs once more for one; 0 for not at all.
    echo: Atomic<u64>,
}

/// For what KVM wakes a thread.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kick {
    /// Its guest's own timer.
    Timer,
    /// A device, or another vCPU.
    Device,
    /// One or the other was there before the thread waited.
    Pending,
}

/// For so long at least, in nanoseconds, the guest runs for what a device has for it.
const DEVICE_RUN: u64 = 10_000_000;
/// The hook sees a packet before the guest's device has it, and what carries it there may wait for a CPU, so that it comes
/// when the guest has run and is parked in the midst of taking packets: no interrupt tells it then. So the guest runs once
/// more after this time, in nanoseconds.
const ECHO: u64 = 100_000_000;
/// For devices, and after halts, it may run for one part in this many.
const SHARE: u64 = 16;

impl Parking {
    /// Not now.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Ok(Arc::new(
            Self {
                on: Atomic::new(false),
                round: Atomic::new(0),
                run: Atomic::new(0),
                devices: Account::new(),
                halts: Account::new(),
                ticks: Account::new(),
                knocked: Atomic::new(false),
                echo: Atomic::new(0),
            },
            GFP_KERNEL,
        )?)
    }

    /// Whether the threads shall be parked.
    pub(crate) fn on(&self) -> bool {
        self.on.load(Relaxed)
    }

    /// The number of the round, and how long a thread runs in it.
    pub(crate) fn round(&self) -> (u64, u64) {
        let round = self.round.load(Acquire);
        (round, self.run.load(Relaxed))
    }

    pub(super) fn begin(&self) {
        self.knocked.store(false, Relaxed);
        self.echo.store(0, Relaxed);
        self.stir(0);
        self.on.xchg(true, Full);
    }

    /// Those that are parked are to be woken after this.
    pub(super) fn end(&self) {
        self.on.xchg(false, Full);
    }

    /// A new round, in which each thread may run for `run` nanoseconds. Those that are parked are to be woken after this.
    pub(crate) fn stir(&self, run: u64) {
        self.run.store(run, Release);
        self.round.fetch_add(1, Full);
    }

    /// There is a packet for the guest. Those that are parked are to be woken after this.
    pub(crate) fn knock(&self) {
        self.knocked.store(true, Release);
    }

    /// Whether there is one.
    pub(crate) fn is_knocked(&self) -> bool {
        self.knocked.load(Acquire)
    }

    /// Whether a knock would have the guest run, and none has come yet.
    pub(crate) fn minds_knock(&self, now: u64, stir_run: u64) -> bool {
        let (_, price) = device_run(stir_run);
        self.devices.can_pay(now, price) && !self.is_knocked()
    }

    /// When the guest is to run once more for a packet, if it is.
    pub(crate) fn echo(&self) -> Option<u64> {
        Some(self.echo.load(Relaxed)).filter(|&at| at != 0)
    }

    /// KVM has something for a thread's guest at the time `now`: for how long it shall run, or until when that has to wait.
    /// A guest's clock ticks all the time: one for each `park_max`, and a few at once, are enough. What a device has for the
    /// guest is waited for by somebody else.
    pub(crate) fn kicked(
        &self,
        kick: Kick,
        now: u64,
        park_max: u64,
        stir_run: u64,
    ) -> Result<u64, u64> {
        let (run, price) = device_run(stir_run);
        let device = || self.devices.pay(now, price);
        let knocked = self.knocked.xchg(false, Full);
        if knocked {
            self.echo.store(now.saturating_add(ECHO), Relaxed);
        } else if self.echo().is_some_and(|at| at <= now) {
            self.echo.store(0, Relaxed);
        }
        match kick {
            Kick::Timer if !knocked => self.ticks.pay(now, park_max).map(|()| stir_run),
            Kick::Pending if !knocked => match self.ticks.pay(now, park_max) {
                Ok(()) => Ok(stir_run),
                Err(free) => device().map(|()| run).map_err(|later| later.min(free)),
            },
            _ => device().map(|()| run),
        }
    }

    /// KVM wakes a thread from a halt of its guest: whether it may run for `stir_run`. Who halts gives the CPU away itself.
    pub(crate) fn unhalted(&self, now: u64, stir_run: u64) -> bool {
        let price = stir_run.saturating_mul(SHARE);
        self.halts.pay(now, price).is_ok()
    }
}

/// For how long the guest runs for a device, and the price.
fn device_run(stir_run: u64) -> (u64, u64) {
    let run = stir_run.max(DEVICE_RUN);
    (run, run.saturating_mul(SHARE))
}

/// What wake-ups are paid from, in time: the time until when they are paid for.
struct Account(Atomic<u64>);

/// How many may come at once.
const BURST: u64 = 8;

impl Account {
    fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// When the next one can be paid for.
    fn due(paid: u64, price: u64) -> u64 {
        paid.saturating_sub(price.saturating_mul(BURST))
    }

    /// A debt made at another price may be beyond what there can be at this one.
    fn cap(paid: u64, now: u64, price: u64) -> u64 {
        let most = price.saturating_mul(BURST + 1);
        paid.min(now.saturating_add(most))
    }

    fn can_pay(&self, now: u64, price: u64) -> bool {
        now >= Self::due(Self::cap(self.0.load(Relaxed), now, price), price)
    }

    /// Pays for a wake-up, or says when that can be done.
    fn pay(&self, now: u64, price: u64) -> Result<(), u64> {
        let mut seen = self.0.load(Acquire);
        loop {
            let paid = Self::cap(seen, now, price);
            let due = Self::due(paid, price);
            if now < due {
                return Err(due);
            }
            let next = paid.max(now).saturating_add(price);
            match self.0.cmpxchg(seen, next, Full) {
                Ok(_) => return Ok(()),
                Err(newer) => seen = newer,
            }
        }
    }
}

/// One thread's place. Taken and left by the thread, looked at by those who wake it.
pub(crate) struct Seat {
    taken: Atomic<bool>,
}

impl Seat {
    /// An empty one.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Ok(Arc::new(
            Self {
                taken: Atomic::new(false),
            },
            GFP_KERNEL,
        )?)
    }

    /// Before the thread looks whether it is to wait.
    pub(crate) fn take(&self) {
        self.taken.xchg(true, Full);
    }

    /// It does not wait any more.
    pub(crate) fn leave(&self) {
        self.taken.xchg(false, Full);
    }

    /// Whether the thread waits, or is about to.
    pub(crate) fn is_taken(&self) -> bool {
        self.taken.load(Acquire)
    }
}
