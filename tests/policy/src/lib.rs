// SPDX-License-Identifier: GPL-2.0-only

//! What the tests of the policy share: the atomic word, and a VM with its timer, driven by hand.

use sleepy_policy::{
    Word,
    machine::{Cause, End, Machine, Request, Tick, Times},
    state::{Change, Event, State},
};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// The word, as the standard library has it.
pub struct StdWord(AtomicU64);

impl Word for StdWord {
    fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    fn load(&self) -> u64 {
        self.0.load(SeqCst)
    }

    fn store(&self, value: u64) {
        self.0.store(value, SeqCst);
    }

    fn compare_exchange(&self, old: u64, new: u64) -> Result<(), u64> {
        self.0
            .compare_exchange(old, new, SeqCst, SeqCst)
            .map(|_| ())
    }
}

/// The times that most tests use: round ones, in nanoseconds.
pub const TIMES: Times = Times {
    linger: 1_000,
    request_timeout: 1_000_000,
    max_sleep: 100_000,
};

/// A VM whose clock and timer the test moves, in the way the module does.
pub struct Vm {
    /// The machine under test.
    pub machine: Machine<StdWord>,
    /// Its times.
    pub times: Times,
    /// The clock.
    pub now: u64,
    /// What the timer is set to.
    pub timer: u64,
    /// What fell asleep, and why.
    pub slept: Vec<Cause>,
    /// Booked nanoseconds.
    pub booked: u64,
}

impl Vm {
    /// An awake VM at time `now`, whose timer is set as the module sets it.
    pub fn new(times: Times, now: u64) -> Self {
        Self {
            machine: Machine::new(now),
            times,
            now,
            timer: now + times.linger,
            slept: Vec::new(),
            booked: 0,
        }
    }

    /// Its state.
    pub fn state(&self) -> State {
        self.machine.state()
    }

    fn book(&mut self, change: &Change) {
        self.booked += change.elapsed;
    }

    /// A request of a flow.
    pub fn request(&mut self, hash: u32) -> Request {
        let request = self.machine.request(hash, &self.times, self.now);
        if let Some(change) = request.change {
            self.book(&change);
        }
        self.timer = request.timer.unwrap_or(self.timer);
        request
    }

    /// The end of a flow.
    pub fn end(&mut self, hash: u32, cause: Cause) -> End {
        let end = self.machine.end(hash, cause, &self.times, self.now, |_| ());
        if let Some(change) = end.change {
            self.book(&change);
        }
        self.timer = end.timer.unwrap_or(self.timer);
        end
    }

    /// Another event.
    pub fn update(&mut self, event: Event) -> Change {
        let change = self.machine.update(event, self.now);
        self.book(&change);
        change
    }

    /// The timer fires now.
    pub fn tick(&mut self) -> Tick {
        let tick = self.machine.tick(&self.times, self.now);
        if let Some(expiry) = tick.expiry {
            self.book(&expiry);
        }
        self.book(&tick.change);
        if tick.change.fell_asleep() {
            self.slept.push(tick.cause);
        }
        self.timer = tick.next;
        tick
    }

    /// Lets time pass; the timer fires when it is due.
    pub fn pass(&mut self, time: u64) {
        let end = self.now + time;
        while self.timer <= end {
            self.now = self.now.max(self.timer);
            self.tick();
        }
        self.now = end;
    }
}
