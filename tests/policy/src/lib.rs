// SPDX-License-Identifier: GPL-2.0-only

//! What the tests of the policy share: the atomic word, and a VM with its timer, driven by hand.

use sleepy_policy::{
    Word,
    machine::{Cause, Machine, Packet, Settings, Threads, Tick, Woke},
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

/// What most tests use: round times, in nanoseconds, and sleep after the last response.
pub const TIMES: Settings = Settings {
    linger: 1_000,
    request_timeout: 1_000_000,
    max_sleep: 100_000,
    quiet: 50_000_000,
    spin: 20_000_000,
    timer_slack: 0,
    sleep_on: on(&[Cause::Response]),
};

/// Bits for [`Settings::sleep_on`].
pub const fn on(causes: &[Cause]) -> u32 {
    let (mut bits, mut index) = (0, 0);
    while index < causes.len() {
        bits |= 1 << causes[index] as u32;
        index += 1;
    }
    bits
}

/// A VM whose clock and timer the test moves, in the way the module does.
pub struct Vm {
    /// The machine under test.
    pub machine: Machine<StdWord>,
    /// Its times.
    pub times: Settings,
    /// The clock.
    pub now: u64,
    /// What the timer is set to.
    pub timer: u64,
    /// Its vCPUs, and the time they were on a CPU.
    pub threads: Threads,
    /// Why it fell asleep.
    pub slept: Vec<Cause>,
    /// Why the timer woke it.
    pub woke: Vec<Woke>,
    /// Times of answers.
    pub exec: Vec<u64>,
    /// Booked nanoseconds.
    pub booked: u64,
}

impl Vm {
    /// An awake VM at time `now`, whose timer is set as the module sets it.
    pub fn new(times: Settings, now: u64) -> Self {
        Self {
            machine: Machine::new(now),
            times,
            now,
            timer: now + times.linger,
            threads: Threads { vcpus: 1, oncpu: 0 },
            slept: Vec::new(),
            woke: Vec::new(),
            exec: Vec::new(),
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

    fn seen(&mut self, packet: Packet) -> Packet {
        if let Some(change) = packet.change {
            self.book(&change);
        }
        self.timer = packet.timer.unwrap_or(u64::MAX).min(self.timer);
        packet
    }

    /// A request of a flow.
    pub fn request(&mut self, hash: u32) -> Packet {
        let packet = self.machine.request(hash, true, &self.times, self.now);
        self.seen(packet)
    }

    /// The answer to a flow, whole.
    pub fn response(&mut self, hash: u32) -> Packet {
        self.segment(hash, false)
    }

    /// A segment of an answer, with more behind it or not.
    pub fn segment(&mut self, hash: u32, more: bool) -> Packet {
        let (now, exec) = (self.now, &mut self.exec);
        let packet = self
            .machine
            .response(hash, more, &self.times, now, |since| exec.push(now - since));
        self.seen(packet)
    }

    /// A request of the VM itself, whole.
    pub fn call(&mut self, hash: u32) -> Packet {
        self.calling(hash, false)
    }

    /// A segment of one, with more behind it or not.
    pub fn calling(&mut self, hash: u32, more: bool) -> Packet {
        let packet = self.machine.call(hash, more, &self.times, self.now);
        self.seen(packet)
    }

    /// Somebody has got a part of one.
    pub fn acknowledge(&mut self, hash: u32) -> Packet {
        let packet = self.machine.acknowledged(hash, &self.times, self.now);
        self.seen(packet)
    }

    /// The answer to that.
    pub fn answer(&mut self, hash: u32) -> Packet {
        let packet = self.machine.answer(hash, &self.times, self.now);
        self.seen(packet)
    }

    /// The end of a flow.
    pub fn close(&mut self, hash: u32) -> Packet {
        let packet = self.machine.close(hash, &self.times, self.now);
        self.seen(packet)
    }

    /// It lets itself be put to sleep.
    pub fn doze(&mut self) -> Change {
        let change = self.machine.doze(self.now);
        self.book(&change);
        if change.fell_asleep() {
            self.timer = self.timer.min(self.now + self.times.max_sleep);
        }
        change
    }

    /// Something else wakes it.
    pub fn wake(&mut self) -> Change {
        let change = self.update(Event::Wake);
        if change.woke() {
            self.timer = self.timer.min(self.now + self.times.linger);
        }
        change
    }

    /// Another event.
    pub fn update(&mut self, event: Event) -> Change {
        let change = self.machine.update(event, self.now);
        self.book(&change);
        change
    }

    /// The timer fires now.
    pub fn tick(&mut self) -> Tick {
        let tick = self.machine.tick(&self.times, &self.threads, self.now);
        for change in tick.changes.iter().flatten() {
            self.book(change);
        }
        self.slept.extend(tick.slept);
        self.woke.extend(tick.woke);
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
