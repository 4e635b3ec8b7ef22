// SPDX-License-Identifier: GPL-2.0-only

//! Two CPUs at once, in every order of their steps that the memory model allows, with a few preemptions: the state and the
//! table agree, one of them is told of each change, and nothing that is in flight is asleep or forgotten.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use loom::{
    model::Builder,
    sync::{
        Arc,
        atomic::{
            AtomicU64,
            Ordering::{AcqRel, Acquire, Release},
        },
    },
    thread,
};
use sleepy_policy::{
    Word,
    flows::MAX_HOLD,
    machine::{Machine, Settings, Threads},
    state::Event,
};
use sleepy_policy_tests::TIMES;

/// The word, ordered as the module's is, or less.
struct Loom(AtomicU64);

impl Word for Loom {
    fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    fn load(&self) -> u64 {
        self.0.load(Acquire)
    }

    fn store(&self, value: u64) {
        self.0.store(value, Release);
    }

    fn compare_exchange(&self, old: u64, new: u64) -> Result<(), u64> {
        self.0
            .compare_exchange(old, new, AcqRel, Acquire)
            .map(|_| ())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Request(u32),
    Response(u32),
    Segment(u32),
    Call,
    Answer,
    Close(u32),
    Wake,
    Doze,
    Tick,
}

use Op::*;

const F: u32 = 1;
const G: u32 = 9;
const CALLED: u32 = 17;
const START: u64 = 1_000_000_000_000;
const THREADS: Threads = Threads { vcpus: 1, oncpu: 0 };

/// How often it fell asleep in one step or several, less how often it woke.
fn does(machine: &Machine<Loom>, op: Op, settings: &Settings, now: u64) -> i64 {
    let change = match op {
        Request(flow) => machine.request(flow, true, settings, now).change,
        Response(flow) => machine.response(flow, false, settings, now, |_| ()).change,
        Segment(flow) => machine.response(flow, true, settings, now, |_| ()).change,
        Call => machine.call(CALLED, false, settings, now).change,
        Answer => machine.answer(CALLED, settings, now).change,
        Close(flow) => machine.close(flow, settings, now).change,
        Wake => Some(machine.update(Event::Wake, now)),
        Doze => Some(machine.doze(now)),
        Tick => {
            let tick = machine.tick(settings, &THREADS, now);
            return i64::from(tick.slept.is_some()) - i64::from(tick.woke.is_some());
        }
    };
    change.map_or(0, |change| {
        i64::from(change.fell_asleep()) - i64::from(change.woke())
    })
}

/// One after the other before, then two at once.
fn at_once(before: &[Op], ops: [Op; 2]) -> usize {
    let runs = std::sync::Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    let before = before.to_vec();
    let mut builder = Builder::new();
    builder.preemption_bound = Some(4);
    builder.max_branches = 100_000;
    builder.check(move || {
        counted.fetch_add(1, Relaxed);
        let machine = Arc::new(Machine::<Loom>::new(START));
        let mut sleeps: i64 = before
            .iter()
            .map(|op| does(&machine, *op, &TIMES, START))
            .sum();
        let now = START + TIMES.linger;
        let other = {
            let machine = machine.clone();
            thread::spawn(move || does(&machine, ops[1], &TIMES, now))
        };
        sleeps += does(&machine, ops[0], &TIMES, now);
        sleeps += other.join().expect("the other CPU is done");

        let state = machine.state();
        let asks = |op: &Op| matches!(op, Request(_));
        let ends = |op: &Op| matches!(op, Response(_) | Segment(_) | Close(_));
        let what = format!("{before:?}, then {ops:?} at once");
        assert_eq!(
            sleeps,
            i64::from(state.sleepy()),
            "{what}: sleeps that nobody was told of"
        );
        assert!(!state.sleepy() || state.may_sleep(), "{what}: asleep");
        if ops.iter().any(asks) && !ops.iter().any(ends) {
            assert!(state.in_flight() > 0, "{what}: forgotten");
            assert!(!state.sleepy() || state.calls() > 0, "{what}: asleep");
        }
        let mut later = now;
        for _ in 0..3 {
            later += 2 * MAX_HOLD;
            sleeps += does(&machine, Tick, &TIMES, later);
        }
        let state = machine.state();
        assert_eq!((state.in_flight(), state.calls()), (0, 0), "{what}: left");
        assert_eq!(
            sleeps,
            i64::from(state.sleepy()),
            "{what}: sleeps that nobody was told of"
        );
    });
    runs.load(Relaxed)
}

#[test]
fn two_cpus_at_once() {
    let befores: [&[Op]; 5] = [
        &[],
        &[Doze],
        &[Request(F)],
        &[Request(F), Call],
        &[Request(F), Request(G)],
    ];
    let pairs = [
        [Request(F), Tick],
        [Request(F), Request(F)],
        [Request(F), Request(G)],
        [Request(F), Response(F)],
        [Request(F), Segment(F)],
        [Request(F), Close(F)],
        [Request(F), Doze],
        [Request(F), Wake],
        [Request(F), Call],
        [Wake, Wake],
        [Wake, Doze],
        [Wake, Tick],
        [Response(F), Tick],
        [Call, Tick],
        [Call, Answer],
        [Call, Doze],
        [Answer, Tick],
        [Answer, Response(F)],
    ];
    let mut runs = 0;
    for before in befores {
        for pair in pairs {
            runs += at_once(before, pair);
        }
    }
    println!("{runs} runs");
    assert!(runs > 10_000, "{runs} runs");
}
