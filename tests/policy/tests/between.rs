// SPDX-License-Identifier: GPL-2.0-only

//! One thing happens in the middle of another, before each of its steps in turn: the VM is as awake as if they had
//! come one after the other, in one order or the other, and the accounts agree.

use sleepy_policy::{
    Word,
    flows::MAX_HOLD,
    machine::{Machine, Threads},
    state::{Change, Event},
};
use sleepy_policy_tests::{StdWord, TIMES};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

/// Happens before a step.
type Interruption = Box<dyn FnOnce()>;

thread_local! {
    static STEPS: Cell<usize> = const { Cell::new(usize::MAX) };
    static INTERRUPTION: RefCell<Option<Interruption>> = const { RefCell::new(None) };
}

/// A word each of whose steps may be the one before which something else happens.
struct Steps(StdWord);

fn step() {
    let left = STEPS.get();
    STEPS.set(left.wrapping_sub(1));
    if left == 0 {
        let interruption = INTERRUPTION.take();
        interruption.expect("it happens once")();
    }
}

impl Word for Steps {
    fn new(value: u64) -> Self {
        Self(StdWord::new(value))
    }

    fn load(&self) -> u64 {
        step();
        self.0.load()
    }

    fn store(&self, value: u64) {
        step();
        self.0.store(value);
    }

    fn compare_exchange(&self, old: u64, new: u64) -> Result<(), u64> {
        step();
        self.0.compare_exchange(old, new)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Request(u32),
    Part(u32),
    Response(u32),
    Segment(u32),
    Call(u32),
    Answer(u32),
    Close(u32),
    Doze,
    Wake,
    Tick,
}

use Op::*;

/// In the same set of the table, so that they also meet there.
const F: u32 = 1;
const G: u32 = 9;
const CALLED: u32 = 17;
/// With more flows than the set has room for.
const FULL: u32 = 1025;
const OPS: [Op; 14] = [
    Request(F),
    Request(G),
    Part(F),
    Response(F),
    Response(G),
    Segment(F),
    Call(CALLED),
    Answer(CALLED),
    Close(F),
    Close(CALLED),
    Doze,
    Wake,
    Tick,
    Request(FULL + 9 * 8),
];

const THREADS: Threads = Threads { vcpus: 1, oncpu: 0 };

/// As long after its boot as hosts are.
const START: u64 = 1_000_000_000_000;

struct Vm {
    machine: Machine<Steps>,
    now: Cell<u64>,
    /// How often it fell asleep, and woke.
    slept: Cell<i64>,
    woke: Cell<i64>,
}

/// What counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    sleepy: bool,
    in_flight: u64,
}

impl Vm {
    fn new() -> Self {
        Self {
            machine: Machine::new(START),
            now: Cell::new(START),
            slept: Cell::new(0),
            woke: Cell::new(0),
        }
    }

    fn woken(&self, change: Option<Change>) {
        let woke = change.is_some_and(|change| change.woke());
        self.woke.set(self.woke.get() + i64::from(woke));
    }

    /// What the module does, and counts.
    fn does(&self, op: Op) {
        let (machine, settings, now) = (&self.machine, &TIMES, self.now.get());
        match op {
            Request(flow) => self.woken(machine.request(flow, true, settings, now).change),
            Part(flow) => self.woken(machine.request(flow, false, settings, now).change),
            Response(flow) | Segment(flow) => {
                let more = matches!(op, Segment(_));
                let packet = machine.response(flow, more, settings, now, |_| ());
                self.woken(packet.change);
            }
            Call(flow) => self.woken(machine.call(flow, false, settings, now).change),
            Answer(flow) => self.woken(machine.answer(flow, settings, now).change),
            Close(flow) => self.woken(machine.close(flow, settings, now).change),
            Wake => self.woken(Some(machine.update(Event::Wake, now))),
            Doze => {
                let slept = machine.doze(now).fell_asleep();
                self.slept.set(self.slept.get() + i64::from(slept));
            }
            Tick => {
                let tick = machine.tick(settings, &THREADS, now);
                self.woke
                    .set(self.woke.get() + i64::from(tick.woke.is_some()));
                self.slept
                    .set(self.slept.get() + i64::from(tick.slept.is_some()));
            }
        }
    }

    fn seen(&self) -> Seen {
        let state = self.machine.state();
        Seen {
            sleepy: state.sleepy(),
            in_flight: state.in_flight(),
        }
    }

    /// At once, and after the time in which a VM that may sleep does.
    fn outcome(&self) -> [Seen; 2] {
        let at_once = self.seen();
        self.now.set(self.now.get() + TIMES.linger);
        self.does(Tick);
        [at_once, self.seen()]
    }

    /// What is wrong when all is over: something is still in flight, or a sleep but the one that it is in had no wake-up.
    fn wrong(&self) -> Option<String> {
        for _ in 0..3 {
            self.now.set(self.now.get() + 2 * MAX_HOLD);
            self.does(Tick);
        }
        let state = self.machine.state();
        let (requests, calls) = (state.in_flight(), state.calls());
        let (slept, woke) = (self.slept.get(), self.woke.get());
        if requests > 0 || calls > 0 {
            Some(format!("{requests} requests and {calls} calls left"))
        } else if slept != woke + i64::from(state.sleepy()) {
            Some(format!(
                "slept {slept} times, woke {woke}, now {}",
                if state.sleepy() { "sleepy" } else { "awake" }
            ))
        } else {
            None
        }
    }
}

/// How the VM came to be as it is: what happened, with a time in which it may have fallen asleep for each `None`.
fn before() -> Vec<Vec<Option<Op>>> {
    let [request, other, call] = [Request(F), Request(G), Call(CALLED)].map(Some);
    // More than the set has room for: two are in the overflow slot. Then all but these, and the call, are answered.
    let others: Vec<u32> = (0..9).map(|flow| FULL + flow * 8).collect();
    let requests = others.iter().map(|flow| Some(Request(*flow)));
    let full: Vec<_> = [call].into_iter().chain(requests).collect();
    let answers = others.iter().map(|flow| Some(Response(*flow)));
    let overflow = full.iter().copied().chain(answers).collect();
    vec![
        vec![],
        vec![None],
        vec![request],
        vec![None, request],
        vec![request, request],
        vec![request, other],
        vec![request, call],
        vec![request, call, None],
        vec![request, request, call],
        vec![request, other, call],
        vec![call],
        vec![call, None],
        vec![request, Some(Segment(F))],
        vec![request, Some(Response(F))],
        full,
        overflow,
    ]
}

fn vm(before: &[Option<Op>]) -> Rc<Vm> {
    let vm = Rc::new(Vm::new());
    for op in before {
        match op {
            Some(op) => vm.does(*op),
            None => {
                vm.now.set(vm.now.get() + TIMES.linger);
                vm.does(Tick);
            }
        }
    }
    vm
}

/// The VM after `outer`, before the step `at` of which `inner` happened; None if it has no such step.
fn between(before: &[Option<Op>], outer: Op, inner: Op, at: usize, pause: u64) -> Option<Rc<Vm>> {
    let vm = vm(before);
    vm.now.set(vm.now.get() + pause);
    let interrupted = vm.clone();
    INTERRUPTION.set(Some(Box::new(move || interrupted.does(inner))));
    STEPS.set(at);
    vm.does(outer);
    let left = INTERRUPTION.take();
    STEPS.set(usize::MAX);
    left.is_none().then_some(vm)
}

fn in_turn(before: &[Option<Op>], ops: [Op; 2], pause: u64) -> [Seen; 2] {
    let vm = vm(before);
    vm.now.set(vm.now.get() + pause);
    for op in ops {
        vm.does(op);
    }
    vm.outcome()
}

#[test]
fn in_the_middle_is_before_or_after() {
    let (mut runs, mut found) = (0, Vec::new());
    for before in &before() {
        for outer in OPS {
            for inner in OPS {
                if (outer, inner) == (Tick, Tick) {
                    continue; // by one at a time
                }
                for pause in [0, TIMES.linger, TIMES.max_sleep, TIMES.request_timeout] {
                    let orders = [
                        in_turn(before, [outer, inner], pause),
                        in_turn(before, [inner, outer], pause),
                    ];
                    for at in 0.. {
                        let Some(vm) = between(before, outer, inner, at, pause) else {
                            break;
                        };
                        runs += 1;
                        let what = format!(
                            "{before:?}, +{pause}: {inner:?} before step {at} of {outer:?}"
                        );
                        let outcome = vm.outcome();
                        for (index, seen) in outcome.iter().enumerate() {
                            let least = orders.iter().map(|order| order[index].in_flight).min();
                            let may_sleep = orders.iter().any(|order| order[index].sleepy);
                            if seen.sleepy && !may_sleep {
                                found.push(format!("{what}: sleepy"));
                            }
                            if Some(seen.in_flight) < least {
                                found.push(format!("{what}: {} in flight", seen.in_flight));
                            }
                        }
                        found.extend(vm.wrong().map(|wrong| format!("{what}: {wrong}")));
                    }
                }
            }
        }
    }
    println!("{runs} runs");
    assert!(runs > 200_000, "{runs} runs");
    assert!(
        found.is_empty(),
        "{} found:\n{}",
        found.len(),
        found[..found.len().min(40)].join("\n")
    );
}
