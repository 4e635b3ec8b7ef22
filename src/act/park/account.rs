// SPDX-License-Identifier: GPL-2.0-only

//! For how much of the time wake-ups may let a guest run.

use kernel::sync::atomic::{Acquire, Atomic, Full, Relaxed};

/// How many wake-ups may come at once.
const BURST: u64 = 8;

/// What a wake-up costs, in time.
#[derive(Clone, Copy)]
pub(super) struct Bill {
    pub(super) price: u64,
    /// How much may be owed before.
    pub(super) credit: u64,
}

impl Bill {
    pub(super) fn of(price: u64) -> Self {
        Self {
            price,
            credit: price.saturating_mul(BURST),
        }
    }
}

/// What wake-ups are paid from, in time: the time until when they are paid for.
pub(super) struct Account(Atomic<u64>);

impl Account {
    pub(super) fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// When this can be paid. What was owed on other terms may be more than there can be on these.
    fn due(paid: u64, now: u64, bill: Bill) -> u64 {
        let most = bill.credit.saturating_add(bill.price);
        paid.min(now.saturating_add(most))
            .saturating_sub(bill.credit)
    }

    pub(super) fn can_pay(&self, now: u64, bill: Bill) -> bool {
        now >= Self::due(self.0.load(Relaxed), now, bill)
    }

    /// Pays for a wake-up, or says when that can be done.
    pub(super) fn pay(&self, now: u64, bill: Bill) -> Result<(), u64> {
        let mut paid = self.0.load(Acquire);
        loop {
            let due = Self::due(paid, now, bill);
            if now < due {
                return Err(due);
            }
            let next = paid.max(now).saturating_add(bill.price);
            match self.0.cmpxchg(paid, next, Full) {
                Ok(_) => return Ok(()),
                Err(newer) => paid = newer,
            }
        }
    }
}
