// SPDX-License-Identifier: GPL-2.0-only

//! What a VM does, one case at a time.

use sleepy_policy::{
    flows::CAPACITY,
    histogram::{BUCKETS, bucket, lower},
    machine::{Cause, Settings},
    state::{Event, Phase, State},
};
use sleepy_policy_tests::{TIMES, Vm};

/// A start that is neither zero nor a multiple of the state's unit of time.
const START: u64 = 1_000_003;

#[test]
fn sleeps_a_linger_after_it_was_added() {
    let mut vm = Vm::new(TIMES, START);
    vm.pass(TIMES.linger - 1);
    assert!(!vm.state().sleepy());
    vm.pass(1);
    assert!(vm.state().sleepy());
    assert_eq!(vm.slept, [Cause::Rest]);
}

#[test]
fn a_request_wakes_and_its_answer_lets_sleep() {
    let mut vm = Vm::new(TIMES, START);
    vm.pass(TIMES.linger);
    let change = vm.request(7).change.expect("a new flow changes the state");
    assert!(change.woke());
    assert_eq!(vm.state().phase(), Phase::InFlight);
    vm.pass(TIMES.request_timeout / 2);
    assert!(!vm.state().sleepy());
    assert_eq!(vm.response(7).ended.requests, 1);
    vm.pass(TIMES.linger - 1);
    assert!(!vm.state().sleepy());
    vm.pass(1);
    assert!(vm.state().sleepy());
    assert_eq!(vm.slept, [Cause::Rest, Cause::Response]);
}

#[test]
fn segments_of_an_answer_start_linger_anew() {
    let mut vm = Vm::new(TIMES, START);
    vm.request(7);
    for _ in 0..10 {
        vm.response(7);
        vm.pass(TIMES.linger - 1);
        assert!(!vm.state().sleepy());
    }
    vm.pass(TIMES.linger);
    assert!(vm.state().sleepy());
}

#[test]
fn two_flows_keep_it_awake_until_both_are_answered() {
    let mut vm = Vm::new(TIMES, START);
    vm.request(1);
    vm.request(2);
    vm.response(1);
    vm.pass(TIMES.linger * 10);
    assert!(!vm.state().sleepy());
    assert_eq!(vm.state().in_flight(), 1);
    vm.close(2);
    vm.pass(TIMES.linger);
    assert!(vm.state().sleepy());
    assert_eq!(vm.slept, [Cause::Close]);
}

#[test]
fn segments_of_a_request_are_one_flow() {
    let mut vm = Vm::new(TIMES, START);
    for _ in 0..10 {
        vm.machine.request(7, false, &TIMES, vm.now);
    }
    vm.request(7);
    assert_eq!(vm.state().in_flight(), 1);
    assert_eq!(vm.response(7).ended.requests, 1);
    assert_eq!(vm.state().in_flight(), 0);
}

#[test]
fn a_lost_request_is_given_up_after_its_timeout() {
    let mut vm = Vm::new(TIMES, START);
    vm.pass(TIMES.linger);
    vm.request(7);
    vm.pass(TIMES.request_timeout - 1);
    assert_eq!(vm.state().in_flight(), 1);
    vm.pass(1);
    assert_eq!(vm.state().in_flight(), 0);
    vm.pass(TIMES.linger);
    assert!(vm.state().sleepy());
    assert_eq!(vm.slept.last(), Some(&Cause::Timeout));
}

#[test]
fn a_repeated_request_has_its_timeout_anew() {
    let mut vm = Vm::new(TIMES, START);
    vm.request(7);
    vm.pass(TIMES.request_timeout - 1);
    vm.request(7);
    vm.pass(TIMES.request_timeout - 1);
    assert_eq!(vm.state().in_flight(), 1);
}

#[test]
fn it_is_stirred_after_max_sleep_for_a_linger() {
    let mut vm = Vm::new(TIMES, START);
    vm.pass(TIMES.linger + TIMES.max_sleep - 1);
    assert!(vm.state().sleepy());
    vm.pass(1);
    assert!(!vm.state().sleepy());
    vm.pass(TIMES.linger);
    assert!(vm.state().sleepy());
}

#[test]
fn an_answer_without_a_request_does_nothing() {
    let mut vm = Vm::new(TIMES, START);
    vm.pass(TIMES.linger);
    assert_eq!(vm.response(7).change, None);
    assert!(vm.state().sleepy());
}

#[test]
fn held_it_never_sleeps() {
    let mut vm = Vm::new(TIMES, START);
    vm.pass(TIMES.linger);
    assert!(vm.update(Event::Hold).woke());
    vm.pass(TIMES.max_sleep * 10);
    vm.request(7);
    vm.response(7);
    vm.pass(TIMES.max_sleep * 10);
    assert!(!vm.state().sleepy());
}

#[test]
fn a_linger_of_zero_sleeps_with_the_answer() {
    let mut vm = Vm::new(Settings { linger: 0, ..TIMES }, START);
    vm.request(7);
    vm.response(7);
    vm.pass(0);
    assert!(vm.state().sleepy());
}

#[test]
fn a_full_table_counts_as_in_flight_until_the_timeout() {
    let mut vm = Vm::new(TIMES, START);
    // All in one set: the table tells no more of them apart than a set has ways.
    let flows: Vec<u32> = (0..20).map(|i| i * 64).collect();
    let overflows = flows
        .iter()
        .filter(|&&flow| vm.request(flow).overflow)
        .count();
    assert_eq!(overflows, 12);
    assert_eq!(vm.state().in_flight(), 9);
    for &flow in &flows {
        vm.response(flow);
    }
    assert_eq!(vm.state().in_flight(), 1);
    vm.pass(TIMES.request_timeout + TIMES.linger);
    assert!(vm.state().sleepy());
}

#[test]
fn many_that_are_lost_are_not_as_many_timers() {
    let times = Settings {
        max_sleep: 1_000_000_000,
        ..TIMES
    };
    let mut vm = Vm::new(times, START);
    for flow in 0..50 {
        vm.request(flow);
        vm.now += 10_000;
    }
    let (mut ticks, end) = (0, vm.now + TIMES.request_timeout + 1_000_000);
    while vm.timer <= end {
        vm.now = vm.now.max(vm.timer);
        vm.tick();
        ticks += 1;
    }
    assert_eq!(vm.state().in_flight(), 0);
    assert!(ticks < 8, "{ticks} timers");
}

#[test]
fn it_tells_as_many_flows_apart_as_it_says() {
    let mut vm = Vm::new(TIMES, START);
    for flow in 0..CAPACITY as u32 {
        assert!(!vm.request(flow).overflow);
    }
    assert_eq!(vm.state().in_flight(), CAPACITY as u64);
}

#[test]
fn vcpus_are_counted_by_phase() {
    let mut vm = Vm::new(TIMES, START);
    vm.update(Event::RunIn);
    vm.update(Event::RunIn);
    vm.now += 3200;
    let change = vm.update(Event::RunOut);
    assert_eq!(change.before.on_cpu(), 2);
    assert_eq!(change.after.on_cpu(), 1);
    assert!(change.elapsed.abs_diff(3200) < 256);
    vm.update(Event::RunOut);
    vm.update(Event::RunOut);
    assert_eq!(vm.state().on_cpu(), 0);
}

#[test]
fn a_clock_that_goes_back_stands_still() {
    let state = State::new(1_000_000);
    let (state, elapsed) = state.apply(Event::Touch, 999_000);
    assert_eq!(elapsed, 0);
    let (_, elapsed) = state.apply(Event::Touch, 1_003_200);
    assert!(elapsed.abs_diff(3_200) < 256);
}

#[test]
fn buckets_are_without_gap_and_as_the_abi_says() {
    assert_eq!(BUCKETS, sleepy_uapi::BUCKETS);
    for index in 0..BUCKETS - 1 {
        let (low, next) = (lower(index), lower(index + 1));
        assert!(low < next);
        assert_eq!(bucket(low), index);
        assert_eq!(bucket(next - 1), index);
    }
    assert_eq!(bucket(u64::MAX), BUCKETS - 1);
}

#[test]
fn causes_and_phases_are_as_the_abi_says() {
    for (cause, number) in [
        (Cause::Response, sleepy_uapi::SLEEP_RESPONSE),
        (Cause::Close, sleepy_uapi::SLEEP_CLOSE),
        (Cause::Timeout, sleepy_uapi::SLEEP_TIMEOUT),
        (Cause::Rest, sleepy_uapi::SLEEP_REST),
        (Cause::Idle, sleepy_uapi::SLEEP_IDLE),
        (Cause::Spin, sleepy_uapi::SLEEP_SPIN),
        (Cause::Quiet, sleepy_uapi::SLEEP_QUIET),
        (Cause::Hint, sleepy_uapi::SLEEP_HINT),
        (Cause::Rule, sleepy_uapi::SLEEP_RULE),
        (Cause::Call, sleepy_uapi::SLEEP_CALL),
    ] {
        assert_eq!(cause as usize, number);
    }
    assert_eq!(Phase::InFlight as usize, sleepy_uapi::PHASE_IN_FLIGHT);
    assert_eq!(Phase::Idle as usize, sleepy_uapi::PHASE_IDLE);
    assert_eq!(Phase::Sleepy as usize, sleepy_uapi::PHASE_SLEEPY);
}
