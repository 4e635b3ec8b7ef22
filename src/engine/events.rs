// SPDX-License-Identifier: GPL-2.0-only

//! What is no packet of a flow: interrupts, timers, hints, I/O.

use super::{now, Config, Engine};
use crate::{
    act::park::Knock,
    policy::state::Event,
    rust::{clock::now_anywhere, timed::Timed},
    uapi,
};
use kernel::sync::atomic::{Full, Relaxed, Release};

/// Nanoseconds in a second, for the rate of hints.
const SECOND: u64 = 1_000_000_000;

impl Engine {
    /// A packet of no flow wakes the VM, whose threads have their weight on return. In softirq or process
    /// context.
    pub(crate) fn wake(this: &Timed<Self>, cause: usize) {
        let now = now();
        if this.woken(cause, now) {
            Self::apply(this, Some(now));
            Self::start(this);
        } else {
            Self::settle(this);
        }
    }

    /// The same for any context: the weight comes with the next interrupt, which is about to be.
    pub(crate) fn wake_soon(this: &Timed<Self>, cause: usize) {
        let config = this.config();
        if matches!(cause, uapi::WAKE_INTERRUPT | uapi::WAKE_DOORBELL) {
            this.note_io(&config);
        }
        if !config.wakes(cause) {
            return;
        }
        let now = now_anywhere();
        if this.woken(cause, now) {
            this.poked.store(now, Release);
            this.poke();
        }
    }

    fn woken(&self, cause: usize, now: u64) -> bool {
        let change = self.machine.update(Event::Wake, now);
        self.stats.account(&change);
        let woke = change.woke();
        if woke {
            self.stats.wakes[cause].add(1);
        }
        woke
    }

    /// Something lets the VM sleep at once. In softirq or process context.
    pub(crate) fn doze(this: &Timed<Self>, cause: usize) {
        let now = now();
        let change = this.machine.doze(now);
        if change.fell_asleep() {
            this.stats.sleeps[cause].add(1);
            this.set(now.saturating_add(this.config().settings.max_sleep));
        }
        Self::follow(this, &change, now);
        Self::settle(this);
    }

    /// The same for any context: the threads lose their weight with the next interrupt, which is about to be.
    fn doze_soon(this: &Timed<Self>, cause: usize) {
        let change = this.machine.doze(now_anywhere());
        this.stats.account(&change);
        if change.fell_asleep() {
            this.stats.sleeps[cause].add(1);
            this.poke();
        }
    }

    /// A packet to the VM that no rule ignores; `asks` if it is one of a flow, and so has a say of its own. Whether that, or
    /// this, wakes the VM for it.
    pub(crate) fn packet(this: &Timed<Self>, asks: bool) -> bool {
        let config = this.config();
        this.note_io(&config);
        let told = asks && config.wakes(uapi::WAKE_REQUEST);
        let wakes = config.wakes(uapi::WAKE_PACKET);
        if wakes && !told {
            Self::wake(this, uapi::WAKE_PACKET);
        }
        told || wakes
    }

    /// Whether its threads are parked. For any context.
    pub(crate) fn parks(&self) -> bool {
        self.parking.on()
    }

    /// A packet is about to come to a guest that is parked, perhaps while it took packets: then no interrupt tells it. In softirq or
    /// process context.
    pub(crate) fn knock(&self, knock: Knock) {
        if self
            .parking
            .minds_knock(knock, now(), self.config().stir_run)
        {
            let act = self.act.lock();
            self.parking.knock(knock);
            act.unpark();
        }
    }

    /// A packet is about to come to the guest, and whether nobody waits for what it makes of that. For any context.
    pub(crate) fn hush(&self, hushed: bool) {
        self.parking.hush(hushed);
    }

    /// The guest has sent a packet while it is parked, or just before. In softirq or process context.
    pub(crate) fn heard(this: &Timed<Self>) {
        if this.parking.heard() {
            let run = this.config().stir_run;
            this.stir(run);
            this.set(now().saturating_add(run));
        }
    }

    /// The guest talks to a device, or a packet says what it means. For any context.
    pub(crate) fn io(&self) {
        self.note_io(&self.config());
    }

    fn note_io(&self, config: &Config) {
        if config.minds_io() {
            self.machine.io(now_anywhere());
        }
    }

    /// A timer of the guest has fired. For any context.
    pub(crate) fn guest_timer(this: &Timed<Self>) {
        let config = this.config();
        if !config.wakes(uapi::WAKE_TIMER) {
            return;
        }
        if config.settings.timer_slack == 0 || !this.state().sleepy() {
            Self::wake_soon(this, uapi::WAKE_TIMER);
        } else if this
            .machine
            .guest_timer(&config.settings, now_anywhere())
            .is_some()
        {
            this.poke();
        }
    }

    /// The guest gives a hint. For any context: its vCPU's thread has preemption off.
    pub(crate) fn hint(this: &Timed<Self>, hint: u64) {
        let config = this.config();
        let (cause, wake) = match u32::try_from(hint) {
            Ok(uapi::HINT_SLEEP) if config.sleeps(uapi::SLEEP_HINT) => (uapi::SLEEP_HINT, false),
            Ok(uapi::HINT_WAKE) if config.wakes(uapi::WAKE_HINT) => (uapi::WAKE_HINT, true),
            _ => return,
        };
        if !this.takes_hint(now_anywhere()) {
            this.stats.hints_refused.add(1);
        } else if wake {
            Self::wake_soon(this, cause);
        } else {
            Self::doze_soon(this, cause);
        }
    }

    /// Counts the hints of each second.
    fn takes_hint(&self, now: u64) -> bool {
        let second = (now / SECOND) << 32;
        let seen = self.hints.load(Relaxed);
        if seen & !u64::from(u32::MAX) != second {
            // Of two that begin the second, one may go uncounted.
            self.hints.store(second | 1, Relaxed);
            return true;
        }
        if seen & u64::from(u32::MAX) >= uapi::HINT_RATE {
            return false;
        }
        let _ = self.hints.cmpxchg(seen, seen + 1, Full);
        true
    }
}
