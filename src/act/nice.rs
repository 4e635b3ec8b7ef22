// SPDX-License-Identifier: GPL-2.0-only

//! The nice value of one thread.

use super::ThreadState;
use crate::{rust::sched, turns::Turns};
use core::ops::Range;
use kernel::task::Task;

/// What was done to a thread's nice value.
pub(super) struct Nice {
    /// What it was when we last found it untouched by us.
    baseline: i32,
    /// What we have set it to, unless that is the baseline.
    set: Option<i32>,
    /// From the most that we have boosted it to, to below the baseline that it had then: what it has in there is ours, whoever
    /// has set it. One who may only make it less can be late, and come when the boost is over.
    boosted: Range<i32>,
    /// Somebody else has changed what we had set: hands off.
    foreign: bool,
}

impl Nice {
    /// Nothing yet.
    pub(super) fn new(task: &Task) -> Self {
        Self {
            baseline: sched::nice(task),
            set: None,
            boosted: 0..0,
            foreign: false,
        }
    }

    /// Sets it to what `target` makes of the baseline.
    pub(super) fn set(&mut self, task: &Task, turns: &Turns, target: impl FnOnce(i32) -> i32) {
        let mut now = sched::nice(task);
        if self.set != Some(now) && self.own(now) != now {
            sched::set_nice(task, self.baseline);
            now = self.baseline;
        }
        // The nice value of a real-time thread is only kept for later: what we have set goes, and that is all.
        let is_fair = sched::policy(task).is_fair();
        if self.foreign || (!is_fair && self.set.is_none()) {
            return;
        }
        match self.set {
            Some(set) if set != now => {
                self.set = None;
                self.foreign = true;
                return;
            }
            Some(_) => {}
            // An administrator may well change it while we have not: that is the new baseline.
            None => self.baseline = now,
        }
        let target = target(self.baseline);
        if target != now {
            sched::set_nice(task, target);
            if target < now {
                turns.hurry(task);
            }
        }
        self.set = (target != self.baseline).then_some(target);
        if target < self.baseline {
            let most = if self.boosted.is_empty() {
                target
            } else {
                target.min(self.boosted.start)
            };
            self.boosted = most..self.baseline;
        }
    }

    /// What the thread would have without us, if it has `now`.
    pub(super) fn own(&self, now: i32) -> i32 {
        let boosted = self.boosted.contains(&now) && now < self.baseline;
        if self.set == Some(now) || boosted {
            self.baseline
        } else {
            now
        }
    }

    /// How it is now.
    pub(super) fn state(&self, task: &Task) -> ThreadState {
        let nice = sched::nice(task);
        let foreign = self.foreign || self.set.is_some_and(|set| set != nice);
        ThreadState {
            nice,
            baseline: self.own(nice),
            moved: self.set.is_some() && !foreign,
            foreign,
        }
    }
}
