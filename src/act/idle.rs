// SPDX-License-Identifier: GPL-2.0-only

//! The scheduling policy of one thread.

use super::park::Seat;
use crate::rust::sched::{self, Policy};
use kernel::task::Task;

/// What was done to a thread's scheduling policy. For process context.
pub(super) struct Idle {
    /// What it was before we made it `SCHED_IDLE`, if we have.
    baseline: Option<Policy>,
    /// Somebody else has changed what we had set: hands off.
    foreign: bool,
}

impl Idle {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self {
            baseline: None,
            foreign: false,
        }
    }

    /// Has the thread run when nobody else wants to, or as before.
    pub(super) fn set(&mut self, task: &Task, seat: &Seat, sleepy: bool) {
        let now = sched::policy(task);
        if self.foreign {
            return;
        }
        match self.baseline {
            Some(_) if now != Policy::IDLE => {
                self.baseline = None;
                self.foreign = true;
            }
            Some(baseline) if !sleepy => {
                if sched::set_policy(task, baseline).is_ok() {
                    self.baseline = None;
                }
            }
            None if sleepy && now.is_fair() && now != Policy::IDLE => {
                // Before: what the thread makes from now on may begin with ours.
                seat.lend(Some(now));
                if sched::set_policy(task, Policy::IDLE).is_ok() {
                    self.baseline = Some(now);
                }
            }
            _ => {}
        }
        seat.lend(self.baseline);
    }

    /// From now on another seat tells what was lent to the thread.
    pub(super) fn hand_over(&self, from: &Seat, to: &Seat) {
        to.lend(self.baseline);
        from.lend(None);
    }

    /// Whether somebody else has changed what we had set.
    pub(super) fn is_foreign(&self, task: &Task) -> bool {
        self.foreign || (self.baseline.is_some() && sched::policy(task) != Policy::IDLE)
    }

    /// Whether the thread is as we have set it.
    pub(super) fn is_set(&self, task: &Task) -> bool {
        self.baseline.is_some() && !self.is_foreign(task)
    }
}

/// `child`, which `parent` has made, has its policy; if that is ours, it is to have the parent's own.
/// `lent` is what that was when it was last looked at.
pub(crate) fn forked(parent: &Task, lent: Option<Policy>, child: &Task) {
    if sched::policy(child) != Policy::IDLE {
        return;
    }
    // It may have been given back, or changed, meanwhile. A policy that is not fair is not ours to give.
    let now = sched::policy(parent);
    let now = Some(now).filter(|now| now.is_fair() && *now != Policy::IDLE);
    if let Some(own) = now.or(lent) {
        let _ = sched::set_policy(child, own);
    }
}
