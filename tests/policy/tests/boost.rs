// SPDX-License-Identifier: GPL-2.0-only

//! The account of a VM's boosts.

use proptest::prelude::*;
use sleepy_policy::boost::{Boost, Limit};

const MS: u64 = 1_000_000;
const LIMIT: Limit = Limit {
    budget: 20 * MS,
    period: 100 * MS,
};

/// How long a VM that is always to be boosted is, if it is asked whenever it says, and `late` after that.
fn boosted(limit: &Limit, time: u64, late: u64) -> u64 {
    let (mut boost, mut now, mut sum) = (Boost::default(), 0, 0);
    while now < time {
        let (on, again) = boost.set(true, limit, now);
        let next = again.map_or(time, |again| again + late).min(time);
        if on {
            sum += next - now;
        }
        now = next;
    }
    sum
}

#[test]
fn without_a_limit_it_is_always_boosted() {
    let none = Limit::default();
    assert_eq!(Boost::default().set(true, &none, 5), (true, None));
    assert_eq!(Boost::default().set(false, &none, 5), (false, None));
}

#[test]
fn a_chatty_vm_gets_its_budget() {
    let sum = boosted(&LIMIT, 10_000 * MS, 0);
    assert!(sum.abs_diff(2000 * MS) < 30 * MS, "{sum}");
}

#[test]
fn what_a_late_timer_gives_is_repaid() {
    let sum = boosted(&LIMIT, 10_000 * MS, 7 * MS);
    assert!(sum.abs_diff(2000 * MS) < 50 * MS, "{sum}");
}

#[test]
fn debt_is_repaid_while_it_sleeps() {
    let mut boost = Boost::default();
    let (_, again) = boost.set(true, &LIMIT, 0);
    let spent = again.unwrap();
    assert!(!boost.set(true, &LIMIT, spent).0);
    boost.set(false, &LIMIT, spent);
    assert!(!boost.set(true, &LIMIT, spent + 10 * MS).0);
    assert!(boost.set(true, &LIMIT, spent + 51 * MS).0);
}

#[test]
fn no_budget_is_no_boost() {
    let none = Limit { budget: 0, ..LIMIT };
    assert_eq!(Boost::default().set(true, &none, 0), (false, None));
    let whole = Limit {
        budget: 100 * MS,
        ..LIMIT
    };
    assert_eq!(boosted(&whole, 1000 * MS, 0), 1000 * MS);
}

proptest! {
    /// Whatever it does and whenever it is asked, it has never had more than its budgets, one more, and what the timer was late.
    #[test]
    fn never_more_than_its_share(
        budget in MS..50 * MS,
        wants in prop::collection::vec((any::<bool>(), 1..30 * MS), 1..200),
    ) {
        let limit = Limit { budget, period: 50 * MS };
        let (mut boost, mut now, mut sum, mut late) = (Boost::default(), 0, 0, 0);
        for (wanted, time) in wants {
            let (on, again) = boost.set(wanted, &limit, now);
            if on {
                sum += time;
                late = late.max(again.map_or(0, |again| (now + time).saturating_sub(again)));
            }
            now += time;
            let share = now as u128 * u128::from(budget) / u128::from(50 * MS);
            prop_assert!(u128::from(sum) <= share + u128::from(budget + late) + 10_000 + now as u128 / 100_000);
        }
    }
}

/// Whatever a guest has happen, unit by unit of time: in no stretch of whole periods is it boosted for more than a budget for each,
/// and one to begin with.
#[test]
fn no_sequence_of_events_gains_more_than_the_budget() {
    const UNITS: u32 = 16;
    let limit = Limit {
        budget: 2 * MS,
        period: 5 * MS,
    };
    let mut sequences = 0u64;
    for wanted in 0u32..1 << UNITS {
        let (mut boost, mut boosted) = (Boost::default(), [0; UNITS as usize]);
        for unit in 0..UNITS {
            let (begin, end) = (u64::from(unit) * MS, u64::from(unit + 1) * MS);
            let wants = wanted >> unit & 1 == 1;
            let mut now = begin;
            while now < end {
                let (on, again) = boost.set(wants, &limit, now);
                let next = again.unwrap_or(u64::MAX).min(end);
                boosted[unit as usize] += if on { next - now } else { 0 };
                now = next;
            }
        }
        for begin in 0..UNITS as usize {
            for periods in 1.. {
                let Some(stretch) = boosted.get(begin..begin + 5 * periods) else {
                    break;
                };
                let most = limit.budget * (periods as u64 + 1);
                let sum: u64 = stretch.iter().sum();
                assert!(
                    sum <= most + MS / 100,
                    "{wanted:#b}: {sum} ns in {periods} periods"
                );
            }
        }
        sequences += 1;
    }
    println!("{sequences} sequences");
}
