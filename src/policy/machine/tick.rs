// SPDX-License-Identifier: GPL-2.0-only

//! What time does to a VM.

use super::{
    super::{
        state::{self, Change, Event},
        Word,
    },
    Cause, Machine, Settings, STIRRED,
};

/// How often a VM is looked at that is awake, in case it has become idle.
const LOOK: u64 = 4_000_000;

/// Once a flow was due, others that are within so long are seen to together: of many that are lost one after the other, each would be
/// a timer interrupt, on a CPU that may be somebody else's.
const TOGETHER: u64 = 1_000_000;

/// What has woken a VM is seen before KVM wakes the vCPU that has halted, and that may wait for its thread's locks and its CPU: for so
/// long a vCPU that has not run since is not taken for one that has nothing to do.
const REACH: u64 = 100_000_000;

/// Why the timer woke a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woke {
    /// `max_sleep` was over.
    Stir,
    /// A timer of the guest fired, and `timer_slack` was over.
    Timer,
    /// A call of its own was lost.
    Answer,
}

/// What the timer did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// How many requests were given up as lost.
    pub lost: u64,
    /// The effects on the state, one after the other.
    pub changes: [Option<Change>; 4],
    /// Why it fell asleep, if it did.
    pub slept: Option<Cause>,
    /// Why it woke up, if it did.
    pub woke: Option<Woke>,
    /// When the timer must fire next.
    pub next: u64,
}

/// What the timer's caller knows of the VM's threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threads {
    /// How many there are; 0 if not all of them have halted.
    pub vcpus: u64,
    /// On-CPU time of all of them so far.
    pub oncpu: u64,
}

impl<W: Word> Machine<W> {
    /// The timer fired, at any time: too early costs nothing but the call.
    pub fn tick(&self, settings: &Settings, threads: &Threads, now: u64) -> Tick {
        let expired = self.flows.expire(now, settings.request_timeout);
        let (lost, calls) = (expired.lost.requests, expired.lost.calls);
        let mut tick = Tick {
            lost,
            changes: [None; 4],
            slept: None,
            woke: None,
            next: now,
        };
        if let Some((hash, at)) = expired.last {
            self.answered(hash, at);
        }
        let done = lost + expired.answered;
        if done > 0 {
            let change = state::update(&self.state, Event::Done(done), now);
            if change.released() {
                let cause = if lost > 0 {
                    Cause::Timeout
                } else {
                    Cause::Response
                };
                self.last.store(now);
                self.cause.store(cause as u64);
            }
            tick.changes[0] = Some(change);
        }
        if calls > 0 {
            let change = state::update(&self.state, Event::Answered(calls), now);
            self.last.store(now);
            self.cause.store(Cause::Timeout as u64);
            tick.woke = change.woke().then_some(Woke::Answer);
            tick.changes[1] = Some(change);
        }
        let next = if self.state().sleepy() {
            self.tick_sleepy(settings, threads, now, &mut tick)
        } else {
            self.tick_awake(settings, threads, now, &mut tick)
        };
        let next = now.saturating_add(next);
        let together = if done + calls > 0 { TOGETHER } else { 0 };
        let due = expired.due.map(|due| due.max(now.saturating_add(together)));
        tick.next = due.unwrap_or(next).min(next).max(now + 1);
        tick
    }

    /// Returns in what time the next tick is due.
    fn tick_sleepy(
        &self,
        settings: &Settings,
        threads: &Threads,
        now: u64,
        tick: &mut Tick,
    ) -> u64 {
        let due = self.timer.load();
        let asleep = now.saturating_sub(self.slept.load());
        let over = due != 0 && now >= due;
        if over {
            self.timer.store(0);
        }
        // A timer that found `due` there still has ended its vCPU's halt before.
        let busy = self.idle.since(threads.vcpus).is_none();
        let (woke, cause) = if over && busy {
            (Woke::Timer, Cause::Rest as u64)
        } else if asleep >= settings.max_sleep {
            (Woke::Stir, STIRRED)
        } else {
            tick.changes[2] = Some(state::update(&self.state, Event::Touch, now));
            let left = settings.max_sleep - asleep;
            return if due > now { left.min(due - now) } else { left };
        };
        self.last.store(now);
        self.io.store(now);
        self.cause.store(cause);
        let change = state::update(&self.state, Event::Wake, now);
        tick.woke = change.woke().then_some(woke);
        tick.changes[2] = Some(change);
        settings.linger
    }

    fn tick_awake(&self, settings: &Settings, threads: &Threads, now: u64, tick: &mut Tick) -> u64 {
        let last = self.last.load();
        let (cause, next) = if self.state().may_sleep() && !self.unknown() {
            self.reason(settings, threads, last, now)
        } else {
            (None, settings.max_sleep)
        };
        let Some(cause) = cause else {
            tick.changes[2] = Some(state::update(&self.state, Event::Touch, now));
            return next;
        };
        self.slept.store(now);
        self.timer.store(0);
        let change = state::update(&self.state, Event::Sleep, now);
        tick.changes[2] = Some(change);
        if !change.fell_asleep() {
            // A request came in between, found the VM awake, and so left the timer alone.
            return settings.linger;
        }
        if self.last.load() != last {
            // So did something else that would have woken it. Unless a request has by now: then it did sleep.
            let change = state::update(&self.state, Event::Wake, now);
            tick.slept = (!change.woke()).then_some(cause);
            tick.changes[3] = Some(change);
            return settings.linger;
        }
        tick.slept = Some(cause);
        settings.max_sleep
    }

    /// Why a VM that may sleep shall, if so; otherwise in what time to look again.
    fn reason(
        &self,
        settings: &Settings,
        threads: &Threads,
        last: u64,
        now: u64,
    ) -> (Option<Cause>, u64) {
        let mut next = settings.max_sleep;
        let cause = self.cause.load();
        if settings.on(Cause::Response) || cause == STIRRED {
            let rested = last.saturating_add(settings.linger);
            if now >= rested {
                return (Some(Cause::from_word(cause)), 0);
            }
            next = next.min(rested - now);
        }
        if settings.on(Cause::Idle) {
            if let Some(since) = self.idle.since(threads.vcpus) {
                let idle = now.saturating_sub(since.max(last));
                let ran = since > self.roused.load();
                let wait = settings.linger.max(if ran { 0 } else { REACH });
                if idle >= wait {
                    return (Some(Cause::Idle), 0);
                }
                next = next.min(wait - idle);
            }
            next = next.min(LOOK);
        }
        let io = self.io.load();
        if settings.on(Cause::Quiet) {
            let quiet = now.saturating_sub(io);
            if quiet >= settings.quiet {
                return (Some(Cause::Quiet), 0);
            }
            next = next.min(settings.quiet - quiet);
        }
        if settings.on(Cause::Spin) {
            if io != self.io_seen.load() {
                self.io_seen.store(io);
                self.oncpu_seen.store(threads.oncpu);
            }
            let burnt = threads.oncpu.saturating_sub(self.oncpu_seen.load());
            if burnt >= settings.spin {
                return (Some(Cause::Spin), 0);
            }
            next = next.min((settings.spin - burnt).max(LOOK));
        }
        (None, next)
    }
}
