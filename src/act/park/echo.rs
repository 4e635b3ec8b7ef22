// SPDX-License-Identifier: GPL-2.0-only

//! Once more, in case that the guest has not seen it.

use kernel::sync::atomic::{Atomic, Full, Relaxed};

/// When a guest runs once more for a packet. The hook sees that before the guest's device has it, and what carries it there
/// may wait for a CPU, so that it comes when the guest has run and is parked in the midst of taking packets: no interrupt
/// tells it then. Or it had no real CPU while it ran, if our host is a guest itself; for the same reason, it runs once more for an
/// interrupt. So it runs again after a while; and again, after twice the time, as long as it has sent nothing since.
pub(super) struct Echo {
    /// When it runs; 0 for not at all.
    at: Atomic<u64>,
    /// For how long.
    run: Atomic<u64>,
    /// How long after the last time that is.
    gap: Atomic<u64>,
    /// How often it has run again.
    times: Atomic<u32>,
    /// It has sent something since that.
    heard: Atomic<bool>,
}

impl Echo {
    /// The first gap, in nanoseconds.
    const GAP: u64 = 100_000_000;
    /// So often at most, for what it does not answer.
    const TIMES: u32 = 8;

    pub(super) fn new() -> Self {
        Self {
            at: Atomic::new(0),
            run: Atomic::new(0),
            gap: Atomic::new(0),
            times: Atomic::new(0),
            heard: Atomic::new(false),
        }
    }

    pub(super) fn stop(&self) {
        self.at.store(0, Relaxed);
    }

    /// For how long it runs again, if it does.
    pub(super) fn run(&self) -> Option<u64> {
        self.at().map(|_| self.run.load(Relaxed))
    }

    /// It runs for something now, and so long again.
    pub(super) fn start(&self, now: u64, run: u64) {
        // An interrupt may be about a packet, for which it runs longer.
        self.run.store(run.max(self.run().unwrap_or(0)), Relaxed);
        self.heard.store(false, Relaxed);
        self.gap.store(Self::GAP, Relaxed);
        self.times.store(0, Relaxed);
        self.at.store(now.saturating_add(Self::GAP), Relaxed);
    }

    pub(super) fn hear(&self) {
        if !self.heard.load(Relaxed) {
            self.heard.store(true, Relaxed);
        }
    }

    /// The first of several comes in any case.
    pub(super) fn at(&self) -> Option<u64> {
        let (at, first) = (self.at.load(Relaxed), self.times.load(Relaxed) == 0);
        (at != 0 && (first || !self.heard.load(Relaxed))).then_some(at)
    }

    /// It runs now: for how long, if that is for the same once more; and so what comes next.
    pub(super) fn pass(&self, now: u64, park_max: u64) -> Option<u64> {
        let at = self.at().filter(|&at| at <= now)?;
        let waited = self.gap.load(Relaxed);
        let gap = waited.saturating_mul(2).min(park_max);
        let times = self.times.load(Relaxed) + 1;
        let over = self.heard.load(Relaxed) || times >= Self::TIMES;
        let next = if over { 0 } else { now.saturating_add(gap) };
        // Of several threads, one.
        if self.at.cmpxchg(at, next, Full).is_ok() {
            self.gap.store(gap, Relaxed);
            self.times.store(times, Relaxed);
        }
        // Where a run is too short to come to anything, a longer one is due for longer waiting.
        Some(self.run.load(Relaxed).max(waited / super::SHARE))
    }
}
