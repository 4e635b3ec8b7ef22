// SPDX-License-Identifier: GPL-2.0-only

//! What a VM's statistics are kept in.

use crate::{
    policy::{
        histogram::{bucket, BUCKETS},
        state::Change,
    },
    uapi,
};
use core::array;
use kernel::sync::atomic::{Atomic, Relaxed};

/// A number that any context may add to.
pub(crate) struct Counter(Atomic<u64>);

impl Counter {
    /// Zero.
    pub(crate) fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// Adds `n`.
    pub(crate) fn add(&self, n: u64) {
        self.0.add(n, Relaxed);
    }

    /// Its value now.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

fn counters<const N: usize>() -> [Counter; N] {
    array::from_fn(|_| Counter::new())
}

fn values<const N: usize>(counters: &[Counter; N]) -> [u64; N] {
    array::from_fn(|i| counters[i].get())
}

/// How often which time was taken; see [`uapi::Histogram`].
pub(crate) struct Histogram([Counter; BUCKETS]);

impl Histogram {
    /// Without times.
    pub(crate) fn new() -> Self {
        Self(counters())
    }

    /// Writes it out.
    pub(crate) fn fill(&self, out: &mut uapi::Histogram) {
        for (out, count) in out.buckets.iter_mut().zip(&self.0) {
            *out = count.get();
        }
    }

    /// Counts a time, in nanoseconds.
    pub(crate) fn record(&self, time: u64) {
        self.0[bucket(time)].add(1);
    }
}

/// Times of the last request; see [`uapi::Last`], whose fields these are.
pub(crate) struct Last {
    request: Atomic<u64>,
    ran: Atomic<u64>,
    response: Atomic<u64>,
}

impl Last {
    fn new() -> Self {
        Self {
            request: Atomic::new(0),
            ran: Atomic::new(0),
            response: Atomic::new(0),
        }
    }

    /// A request comes into flight at the time `now`; a vCPU may be on a CPU already.
    pub(crate) fn requested(&self, now: u64, on_cpu: bool) {
        self.request.store(now, Relaxed);
        self.ran.store(if on_cpu { now } else { 0 }, Relaxed);
        self.response.store(0, Relaxed);
    }

    /// A vCPU is the first to get a CPU after it.
    pub(crate) fn ran(&self, now: u64) {
        self.ran.store(now, Relaxed);
    }

    /// The first response to the request that came into flight at `since`.
    pub(crate) fn responded(&self, since: u64, now: u64) {
        if since == self.request.load(Relaxed) {
            self.response.store(now, Relaxed);
        }
    }

    fn fill(&self, out: &mut uapi::Last) {
        out.request = self.request.load(Relaxed);
        out.ran = self.ran.load(Relaxed);
        out.response = self.response.load(Relaxed);
    }
}

/// Counts from when the VM was added; see [`uapi::VmStats`], whose fields these are.
pub(crate) struct Stats {
    pub(crate) requests: Counter,
    pub(crate) responses: Counter,
    pub(crate) closed: Counter,
    pub(crate) timeouts: Counter,
    pub(crate) overflows: Counter,
    pub(crate) calls: Counter,
    pub(crate) answers: Counter,
    pub(crate) hints_refused: Counter,
    pub(crate) wakes: [Counter; uapi::WAKE_CAUSES],
    pub(crate) sleeps: [Counter; uapi::SLEEP_CAUSES],
    time: [Counter; uapi::PHASES],
    oncpu: [Counter; uapi::PHASES],
    pub(crate) trigger: Histogram,
    pub(crate) exec: Histogram,
    pub(crate) last: Last,
}

impl Stats {
    /// All zero.
    pub(crate) fn new() -> Self {
        Self {
            requests: Counter::new(),
            responses: Counter::new(),
            closed: Counter::new(),
            timeouts: Counter::new(),
            overflows: Counter::new(),
            calls: Counter::new(),
            answers: Counter::new(),
            hints_refused: Counter::new(),
            wakes: counters(),
            sleeps: counters(),
            time: counters(),
            oncpu: counters(),
            trigger: Histogram::new(),
            exec: Histogram::new(),
            last: Last::new(),
        }
    }

    /// Books the time that a change ends to the phase it ends.
    pub(crate) fn account(&self, change: &Change) {
        let phase = change.before.phase() as usize;
        self.time[phase].add(change.elapsed);
        let vcpus = change.before.on_cpu();
        if vcpus > 0 {
            self.oncpu[phase].add(change.elapsed * vcpus);
        }
    }

    /// On-CPU time of all vCPUs so far.
    pub(crate) fn oncpu(&self) -> u64 {
        self.oncpu.iter().map(Counter::get).sum()
    }

    /// Writes everything out. Not one snapshot: each number is right by itself.
    pub(crate) fn fill(&self, out: &mut uapi::VmStats) {
        out.requests = self.requests.get();
        out.responses = self.responses.get();
        out.closed = self.closed.get();
        out.timeouts = self.timeouts.get();
        out.overflows = self.overflows.get();
        out.calls = self.calls.get();
        out.answers = self.answers.get();
        out.hints_refused = self.hints_refused.get();
        out.wakes = [0; 16];
        out.wakes[..uapi::WAKE_CAUSES].copy_from_slice(&values(&self.wakes));
        out.sleeps = [0; 16];
        out.sleeps[..uapi::SLEEP_CAUSES].copy_from_slice(&values(&self.sleeps));
        out.time = values(&self.time);
        out.oncpu = values(&self.oncpu);
        self.trigger.fill(&mut out.trigger);
        self.exec.fill(&mut out.exec);
        self.last.fill(&mut out.last);
    }
}
