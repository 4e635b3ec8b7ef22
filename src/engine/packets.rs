// SPDX-License-Identifier: GPL-2.0-only

//! Packets that rules match. In softirq or process context.

use super::{now, Engine};
use crate::{
    policy::{machine::Packet, state::Change},
    rust::{series::smp_mb, skb::Segment, timed::Timed},
    uapi,
};
use kernel::sync::atomic::{Full, Relaxed};

impl Engine {
    /// A packet asks the VM for something; it is the `whole` of it, unless more comes. On return its threads
    /// have their weight.
    pub(crate) fn request(this: &Timed<Self>, hash: u32, whole: bool) {
        let (now, config) = (now(), this.config());
        this.stats.requests.add(1);
        if !config.wakes(uapi::WAKE_REQUEST) {
            return;
        }
        let packet = this.machine.request(hash, whole, &config.settings, now);
        if let Some(change) = packet.change {
            this.requested(&change, now);
        }
        Self::finish(this, &packet, uapi::WAKE_REQUEST, now);
    }

    /// Measures the time to the first vCPU on a CPU.
    fn requested(&self, change: &Change, now: u64) {
        let on_cpu = change.before.on_cpu() > 0;
        if change.after.in_flight() > change.before.in_flight() {
            self.stats.last.requested(now, on_cpu);
        }
        // Before the weight changes, lest the notifier come first.
        if on_cpu {
            self.stats.trigger.record(0);
        } else {
            let _ = self.trigger.cmpxchg(0, now.max(1), Full);
        }
    }

    /// The VM answers; there may be more of the answer behind this packet.
    pub(crate) fn response(this: &Timed<Self>, hash: u32, segment: Segment) {
        this.stats.responses.add(1);
        if !this.is_new(hash, segment) {
            return;
        }
        let (now, settings) = (now(), this.config().settings);
        let packet = this
            .machine
            .response(hash, segment.more, &settings, now, |since| {
                this.stats.exec.record(now.saturating_sub(since));
                this.stats.last.responded(since, now);
            });
        Self::finish(this, &packet, uapi::WAKE_ANSWER, now);
    }

    /// The VM asks somebody else; there may be more of its request behind this packet. On return its threads have their
    /// weight.
    pub(crate) fn call(this: &Timed<Self>, hash: u32, segment: Segment) {
        this.stats.calls.add(1);
        if !this.is_new(hash, segment) {
            return;
        }
        let config = this.config();
        if config.wakes(uapi::WAKE_REQUEST) {
            let now = now();
            let packet = this.machine.call(hash, segment.more, &config.settings, now);
            Self::finish(this, &packet, uapi::WAKE_ANSWER, now);
        }
    }

    /// Whether the VM says something to somebody that takes several packets.
    pub(crate) fn asks(&self) -> bool {
        self.machine.asks()
    }

    /// Somebody has got a part of what the VM says. If there may be more of that, its threads have their weight on return.
    pub(crate) fn acknowledged(this: &Timed<Self>, hash: u32) {
        let config = this.config();
        if config.wakes(uapi::WAKE_REQUEST) {
            let now = now();
            let packet = this.machine.acknowledged(hash, &config.settings, now);
            Self::finish(this, &packet, uapi::WAKE_ANSWER, now);
        }
    }

    /// Somebody answers the VM. On return its threads have their weight.
    pub(crate) fn answer(this: &Timed<Self>, hash: u32) {
        let config = this.config();
        this.stats.answers.add(1);
        if config.wakes(uapi::WAKE_REQUEST) {
            let now = now();
            let packet = this.machine.answer(hash, &config.settings, now);
            Self::finish(this, &packet, uapi::WAKE_ANSWER, now);
        }
    }

    /// A packet closes its flow.
    pub(crate) fn closed(this: &Timed<Self>, hash: u32) {
        let (now, settings) = (now(), this.config().settings);
        this.machine.sent.forget(hash);
        let packet = this.machine.close(hash, &settings, now);
        this.stats
            .closed
            .add(packet.ended.requests + packet.ended.calls);
        Self::finish(this, &packet, uapi::WAKE_ANSWER, now);
    }

    /// Whether the VM has not sent this before; otherwise it says nothing, and is only counted.
    fn is_new(&self, hash: u32, segment: Segment) -> bool {
        segment
            .end
            .is_none_or(|end| self.machine.sent.advance(hash, end))
    }

    fn finish(this: &Timed<Self>, packet: &Packet, cause: usize, now: u64) {
        if packet.overflow {
            this.stats.overflows.add(1);
        }
        if let Some(change) = &packet.change {
            if change.woke() {
                this.stats.wakes[cause].add(1);
            }
            Self::follow(this, change, now);
        }
        Self::settle(this);
        if let Some(at) = packet.timer {
            this.set(at);
        }
    }

    /// Somebody else may be at it, having seen the state before this event: not before that is done.
    pub(super) fn settle(this: &Timed<Self>) {
        smp_mb(Full);
        if this.lowered.load(Relaxed) && !this.state().sleepy() {
            Self::apply(this, None);
        }
    }
}
