// SPDX-License-Identifier: GPL-2.0-only

//! Waiting in place of running.

mod account;
mod echo;

use crate::rust::sched::Policy;
use account::{Account, Bill};
use echo::Echo;
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
    /// Until when KVM's wake-ups are paid for: those of devices, those from a halt, those of the guest's own timer, and what was
    /// there before the thread waited.
    devices: Account,
    halts: Account,
    ticks: Account,
    pending: Account,
    /// How often the price of those has risen since a device had something for the guest; [`TOO_DEAR`] since it was awake.
    raised: Atomic<u32>,
    /// There is a packet for the guest; as a number, a [`Knock`].
    knocked: Atomic<u32>,
    /// The guest runs for one that is brief.
    brief: Atomic<bool>,
    /// When the guest runs for one again.
    echo: Echo,
    /// So many times may a device tell the guest of packets for which nobody waits.
    hushed: Atomic<u32>,
}

/// What a packet wants of the guest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Knock {
    /// There is none.
    No,
    /// To do something by the way, as to tell its address: it has done so when it sends something.
    Brief,
    /// Whatever it makes of it.
    Full,
}

impl Knock {
    fn from_word(word: u32) -> Self {
        match word {
            0 => Self::No,
            1 => Self::Brief,
            _ => Self::Full,
        }
    }
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
    /// It shall run again, in case that it has not seen what came before.
    Echo,
}

/// A device tells of several packets at once, or of each.
const MOST_HUSHED: u32 = 4;
/// For so long at least, in nanoseconds, the guest runs for what a device has for it, unless nobody waits for that.
const DEVICE_RUN: u64 = 10_000_000;
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
                pending: Account::new(),
                raised: Atomic::new(0),
                knocked: Atomic::new(Knock::No as u32),
                brief: Atomic::new(false),
                echo: Echo::new(),
                hushed: Atomic::new(0),
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
        self.knocked.store(Knock::No as u32, Relaxed);
        self.raised.store(TOO_DEAR, Relaxed);
        self.brief.store(false, Relaxed);
        self.echo.stop();
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
    pub(crate) fn knock(&self, knock: Knock) {
        let new = knock as u32;
        let mut old = self.knocked.load(Relaxed);
        while old < new {
            match self.knocked.cmpxchg(old, new, Full) {
                Ok(_) => break,
                Err(seen) => old = seen,
            }
        }
    }

    /// There is a packet for the guest, parked or not, and whether nobody waits for what it makes of that: a device is about to tell
    /// it.
    pub(crate) fn hush(&self, hushed: bool) {
        let old = self.hushed.load(Relaxed);
        let new = if hushed {
            (old + 1).min(MOST_HUSHED)
        } else {
            0
        };
        if new != old {
            self.hushed.store(new, Relaxed);
        }
    }

    /// A device tells the guest something: whether that is of such packets.
    fn is_hushed(&self) -> bool {
        let left = self.hushed.load(Relaxed);
        if left != 0 {
            // A packet that comes meanwhile has its own say.
            let _ = self.hushed.cmpxchg(left, left - 1, Relaxed);
        }
        left != 0
    }

    fn knocked(&self) -> Knock {
        Knock::from_word(self.knocked.load(Acquire))
    }

    /// Whether there is one that somebody waits for.
    pub(crate) fn is_knocked(&self) -> bool {
        self.knocked() != Knock::No
    }

    /// Whether a knock would have the guest run, and none like it has come yet.
    pub(crate) fn minds_knock(&self, knock: Knock, now: u64, stir_run: u64) -> bool {
        let bill = device_bill(device_run(stir_run), stir_run);
        self.devices.can_pay(now, bill) && self.knocked() < knock
    }

    /// The guest has sent a packet: it sees those that have come. Whether that is all that it was to do.
    pub(crate) fn heard(&self) -> bool {
        self.echo.hear();
        let done = self.brief.load(Relaxed) && self.brief.xchg(false, Relaxed);
        if done {
            self.echo.stop();
        }
        done
    }

    /// When the guest is to run for the same again, if it is.
    pub(crate) fn echo(&self) -> Option<u64> {
        self.echo.at()
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
        let knock = Knock::from_word(self.knocked.xchg(Knock::No as u32, Full));
        let knocked = knock != Knock::No;
        let told = kick == Kick::Device && !knocked && !self.is_hushed();
        let run = if told || knock == Knock::Full {
            self.raised.store(0, Relaxed);
            self.brief.store(false, Relaxed);
            let run = device_run(stir_run);
            self.echo.start(now, if told { stir_run } else { run });
            run
        } else if knocked {
            let run = device_run(stir_run);
            // If it runs again for something else, it does not stop when this is done.
            if self.echo.run().is_none_or(|again| again < run) {
                self.brief.store(true, Relaxed);
                self.echo.start(now, run);
            }
            run
        } else {
            self.echo.pass(now, park_max).unwrap_or(stir_run)
        };
        let device = || {
            let bill = device_bill(run, stir_run);
            self.devices.pay(now, bill).map(|()| run)
        };
        let tick = || self.ticks.pay(now, Bill::of(park_max)).map(|()| stir_run);
        let pending = || self.pend(now, park_max, stir_run).map(|()| stir_run);
        match kick {
            Kick::Timer if !knocked => tick(),
            Kick::Pending if !knocked => {
                tick().or_else(|free| pending().map_err(|later| later.min(free)))
            }
            _ => device(),
        }
    }

    /// The guest runs for what was there before its thread waited: the tick of its clock, most often. It may be what a device has
    /// for it, which came as its time was over; that comes once, and a tick again and again: so each is dearer than the one before,
    /// until it is taken for a tick. A guest that was awake for a moment only has a tick that waits, each time.
    fn pend(&self, now: u64, park_max: u64, stir_run: u64) -> Result<(), u64> {
        let raised = self.raised.load(Relaxed);
        let price = stir_run
            .checked_mul(PENDING_SHARE << (PENDING_RISE * raised))
            .filter(|&price| price < park_max)
            .ok_or(u64::MAX)?;
        self.pending.pay(now, Bill { price, credit: 0 })?;
        self.raised.store(raised + 1, Relaxed);
        Ok(())
    }

    /// KVM wakes a thread from a halt of its guest: whether it may run for `stir_run`. Who halts gives the CPU away itself.
    pub(crate) fn unhalted(&self, now: u64, stir_run: u64) -> bool {
        self.halts.pay(now, Bill::of(price(stir_run))).is_ok()
    }
}

/// For how long the guest runs for what a device has for it.
fn device_run(stir_run: u64) -> u64 {
    stir_run.max(DEVICE_RUN)
}

/// What it costs to run for so long.
fn price(run: u64) -> u64 {
    run.saturating_mul(SHARE)
}

/// What it costs to run for so long for a device; whatever that is, it is paid from one account.
fn device_bill(run: u64, stir_run: u64) -> Bill {
    Bill {
        price: price(run),
        ..Bill::of(price(device_run(stir_run)))
    }
}

/// For what waits before a park, it may run for one part in this many, the first time,
const PENDING_SHARE: u64 = 64;
/// and then for as little as this power of two makes of that.
const PENDING_RISE: u32 = 2;
/// So often, it is dearer than any tick.
const TOO_DEAR: u32 = 16;

/// One thread's place: what the thread and those who move it know of each other.
pub(crate) struct Seat {
    /// By the thread, which waits.
    taken: Atomic<bool>,
    /// Its own scheduling policy, while it has ours; otherwise [`NONE`].
    lent: Atomic<u32>,
    /// It has its notifier.
    watched: Atomic<bool>,
}

/// No policy.
const NONE: u32 = u32::MAX;

impl Seat {
    /// An empty one.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Ok(Arc::new(
            Self {
                taken: Atomic::new(false),
                lent: Atomic::new(NONE),
                watched: Atomic::new(false),
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

    /// It has its notifier from now on, or has not any more.
    pub(crate) fn watch(&self, watched: bool) {
        self.watched.store(watched, Release);
    }

    /// Whether it has its notifier.
    pub(crate) fn is_watched(&self) -> bool {
        self.watched.load(Acquire)
    }

    /// The thread has our scheduling policy in place of its own, or has that.
    pub(super) fn lend(&self, own: Option<Policy>) {
        self.lent.store(own.map_or(NONE, Policy::number), Release);
    }

    /// Its own policy, while it has ours.
    pub(crate) fn lent(&self) -> Option<Policy> {
        let lent = self.lent.load(Acquire);
        (lent != NONE).then(|| Policy::from_number(lent))
    }
}
