// SPDX-License-Identifier: GPL-2.0-only

//! What holds whatever happens, in whatever order, and on several CPUs at once.

use proptest::prelude::*;
use sleepy_policy::{
    flows::MAX_HOLD,
    machine::{Machine, Settings, Threads},
    state::Event,
};
use sleepy_policy_tests::{StdWord, TIMES, Vm};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
};

#[derive(Clone, Debug)]
enum Op {
    Request(u32),
    Response(u32),
    Segment(u32),
    Call(u32, bool),
    Answer(u32),
    Close(u32),
    Doze,
    RunIn,
    RunOut,
    Hold,
    Wake,
    Pass(u64),
    EarlyTick,
}

fn op() -> impl Strategy<Value = Op> {
    // Eight flows in different sets: the table is never full, so that the model below is exact.
    let flow = 0u32..8;
    prop_oneof![
        4 => flow.clone().prop_map(Op::Request),
        3 => flow.clone().prop_map(Op::Response),
        1 => flow.clone().prop_map(Op::Segment),
        1 => (flow.clone(), any::<bool>()).prop_map(|(flow, more)| Op::Call(flow, more)),
        1 => flow.clone().prop_map(Op::Answer),
        1 => flow.prop_map(Op::Close),
        1 => Just(Op::Doze),
        1 => Just(Op::RunIn),
        1 => Just(Op::RunOut),
        1 => Just(Op::Wake),
        1 => Just(Op::EarlyTick),
        4 => (0u64..3_000).prop_map(Op::Pass),
        1 => (0u64..2_000_000).prop_map(Op::Pass),
    ]
}

fn unanswered() -> impl Strategy<Value = Op> {
    op().prop_filter("no answer", |op| {
        !matches!(op, Op::Response(_) | Op::Segment(_))
    })
}

fn times() -> impl Strategy<Value = Settings> {
    (0u64..10_000, 1_000u64..2_000_000, 1_000u64..2_000_000).prop_map(
        |(linger, request_timeout, max_sleep)| Settings {
            linger,
            request_timeout,
            max_sleep,
            ..TIMES
        },
    )
}

fn apply(vm: &mut Vm, op: &Op) {
    match *op {
        Op::Request(flow) => {
            vm.request(flow);
        }
        Op::Response(flow) => {
            vm.response(flow);
        }
        Op::Segment(flow) => {
            vm.segment(flow, true);
        }
        Op::Call(flow, more) => {
            vm.calling(flow, more);
        }
        Op::Answer(flow) => {
            vm.answer(flow);
        }
        Op::Close(flow) => {
            vm.close(flow);
        }
        Op::Doze => {
            vm.doze();
        }
        Op::RunIn => {
            vm.update(Event::RunIn);
        }
        Op::RunOut => {
            vm.update(Event::RunOut);
        }
        Op::Hold => {
            vm.update(Event::Hold);
        }
        Op::Wake => {
            vm.update(Event::Wake);
        }
        Op::Pass(time) => vm.pass(time),
        Op::EarlyTick => {
            vm.tick();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Never sleepy with a request in flight; a request or a call leaves it awake; every nanosecond is booked once.
    #[test]
    fn awake_while_in_flight(times in times(), ops in prop::collection::vec(op(), 1..200)) {
        let start = 12_345;
        let mut vm = Vm::new(times, start);
        for op in &ops {
            apply(&mut vm, op);
            let state = vm.state();
            prop_assert!(!state.sleepy() || state.may_sleep());
            prop_assert!(!(state.sleepy() && state.in_flight() > 0 && state.calls() == 0));
            if let Op::Request(_) = op {
                prop_assert!(!state.sleepy() && state.in_flight() > 0);
            }
            if let Op::Call(..) = op {
                prop_assert!(!state.sleepy());
            }
        }
        vm.update(Event::Touch);
        let passed = vm.now - start;
        prop_assert!(vm.booked.abs_diff(passed) < 512, "booked {} of {passed}", vm.booked);
    }

    /// The state counts the flows that a plain set says are in flight, as long as none times out. Answers are
    /// left out: what ends with one is not known with the packet.
    #[test]
    fn counts_flows_as_a_set_does(ops in prop::collection::vec(unanswered(), 1..100)) {
        let times = Settings { request_timeout: u64::MAX / 4, ..TIMES };
        let mut vm = Vm::new(times, 0);
        let mut model = BTreeSet::new();
        for op in &ops {
            apply(&mut vm, op);
            match op {
                Op::Request(flow) => { model.insert(*flow); }
                Op::Close(flow) => { model.remove(flow); }
                _ => {}
            }
            prop_assert_eq!(vm.state().in_flight(), model.len() as u64);
        }
    }

    /// Left alone, it sleeps after its timeouts and is stirred after every `max_sleep`: no deadline is lost.
    #[test]
    fn left_alone_it_sleeps_and_is_stirred(times in times(), ops in prop::collection::vec(op(), 0..100)) {
        let mut vm = Vm::new(times, 0);
        for op in &ops {
            apply(&mut vm, op);
        }
        vm.pass(times.request_timeout.max(MAX_HOLD) + times.linger);
        let sleeps = vm.slept.len();
        vm.pass(10 * (times.max_sleep + times.linger));
        prop_assert_eq!(vm.state().in_flight(), 0);
        let stirs = vm.slept.len() - sleeps;
        prop_assert!((9..=11).contains(&stirs), "{stirs} stirs");
    }

    /// A VM that is held does not sleep, whatever comes.
    #[test]
    fn held_it_stays_awake(ops in prop::collection::vec(op(), 0..100)) {
        let mut vm = Vm::new(TIMES, 0);
        apply(&mut vm, &Op::Hold);
        for op in &ops {
            apply(&mut vm, op);
            prop_assert!(!vm.state().sleepy());
        }
    }
}

/// Requests, answers, the timer and vCPUs at once: the count stays that of the table, and no request ends up
/// in a sleepy VM.
#[test]
fn several_cpus_at_once() {
    let times = Settings {
        linger: 0,
        request_timeout: u64::MAX / 4,
        max_sleep: u64::MAX / 4,
        ..TIMES
    };
    let threads = Threads { vcpus: 1, oncpu: 0 };
    let machine = Arc::new(Machine::<StdWord>::new(0));
    let clock = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let timer = {
        let (machine, clock, stop) = (machine.clone(), clock.clone(), stop.clone());
        thread::spawn(move || {
            while !stop.load(SeqCst) {
                machine.tick(&times, &threads, clock.fetch_add(32, SeqCst));
            }
        })
    };
    let cpus: Vec<_> = (0..4u32)
        .map(|cpu| {
            let (machine, clock) = (machine.clone(), clock.clone());
            thread::spawn(move || {
                for round in 0..50_000u32 {
                    // Own flows: nobody else ends them, so that they must be found in flight.
                    let flow = cpu + 4 * (round % 3);
                    let now = clock.fetch_add(32, SeqCst);
                    machine.request(flow, true, &times, now);
                    let state = machine.state();
                    assert!(state.in_flight() > 0 && !state.sleepy());
                    machine.update(Event::RunIn, now);
                    assert!(machine.state().on_cpu() > 0);
                    machine.update(Event::RunOut, now);
                    let end = machine.response(flow, false, &times, now, |_| ());
                    assert_eq!(end.ended.requests, 1);
                }
            })
        })
        .collect();
    for cpu in cpus {
        cpu.join().expect("a CPU found what must not be");
    }
    stop.store(true, SeqCst);
    timer.join().expect("the timer found what must not be");
    assert_eq!(machine.state().in_flight(), 0);
    assert_eq!(machine.state().on_cpu(), 0);
    machine.tick(&times, &threads, clock.fetch_add(32, SeqCst));
    assert!(machine.state().sleepy());
}
