// SPDX-License-Identifier: GPL-2.0-only

//! The weight of a VM's control group.

use crate::rust::cgroup::{Group as Files, Weight};
use kernel::{prelude::*, sync::Arc};

/// How often a change is tried that fails, as where there is no memory for the moment.
const ATTEMPTS: u32 = 16;

/// What was done to a group's weight.
#[derive(Clone, Copy)]
struct Moved {
    /// What it had before.
    baseline: Weight,
    /// What we have set.
    set: Weight,
    /// That has failed, perhaps half-way.
    torn: bool,
}

/// A group, and what was done to its weight. For process context.
pub(crate) struct Group {
    files: Files,
    /// For whoever only looks, and may be a thread of low priority.
    shown: Arc<Files>,
    moved: Option<Moved>,
    /// Somebody else has changed what we had set: hands off.
    foreign: bool,
}

/// How a group was a moment ago.
pub(super) struct Seen {
    pub(super) files: Arc<Files>,
    moved: Option<Moved>,
    foreign: bool,
}

impl Seen {
    /// Whether somebody else has changed what we had set.
    pub(super) fn is_foreign(&self) -> bool {
        let changed = |moved: Moved| self.files.get().is_ok_and(|now| moved.is_foreign(now));
        self.foreign || self.moved.is_some_and(changed)
    }
}

impl Group {
    /// Nothing is done to it yet.
    pub(crate) fn new(files: Files) -> Result<Self> {
        Ok(Self {
            shown: Arc::new(files.reopen()?, GFP_KERNEL)?,
            files,
            moved: None,
            foreign: false,
        })
    }

    /// Makes sure that its weight can be changed. Only while nobody of ours does.
    pub(crate) fn touch(&self) -> Result {
        self.files.touch()
    }

    /// Whether it is the same group.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.files.is(&other.files)
    }

    /// How it is now.
    pub(super) fn seen(&self) -> Seen {
        Seen {
            files: self.shown.clone(),
            moved: self.moved,
            foreign: self.foreign,
        }
    }

    /// Takes weight away, to `sleepy` (0: it is idle), or gives it back.
    pub(super) fn set(&mut self, sleepy: Option<u32>) {
        for _ in 0..ATTEMPTS {
            match self.try_set(sleepy) {
                Ok(()) => return,
                // It was removed: there is nothing to restore.
                Err(error) if error == ENODEV => return,
                Err(_) => {}
            }
        }
        pr_warn!("the weight of a control group cannot be changed\n");
    }

    fn try_set(&mut self, sleepy: Option<u32>) -> Result {
        if self.foreign {
            return Ok(());
        }
        let now = self.files.get()?;
        if self.moved.is_some_and(|moved| moved.is_foreign(now)) {
            self.moved = None;
            self.foreign = true;
            return Ok(());
        }
        let baseline = match (self.moved, sleepy) {
            (Some(moved), Some(_)) if !moved.torn => return Ok(()),
            (Some(moved), _) => moved.baseline,
            (None, Some(_)) if !now.idle => now,
            _ => return Ok(()),
        };
        let set = sleepy.map_or(baseline, |weight| self.lowered(baseline, weight.into()));
        let moved = Moved {
            baseline,
            set,
            torn: true,
        };
        self.moved = Some(moved);
        self.files.set(set)?;
        self.moved = sleepy.map(|_| Moved {
            torn: false,
            ..moved
        });
        Ok(())
    }

    fn lowered(&self, baseline: Weight, weight: u64) -> Weight {
        let least = self.files.least().min(baseline.weight);
        Weight {
            weight: weight.clamp(least, baseline.weight),
            idle: weight == 0,
        }
    }
}

impl Moved {
    /// Whether somebody else has changed it to what it is `now`. A group that is idle has no weight of its own.
    fn is_foreign(&self, now: Weight) -> bool {
        let same = self.set.idle == now.idle && (now.idle || self.set.weight == now.weight);
        !self.torn && !same
    }
}
