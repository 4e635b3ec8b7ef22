// SPDX-License-Identifier: GPL-2.0-only

//! Long answers, calls of the VM itself, and what lets it sleep besides answers.

use sleepy_policy::{
    flows::{MAX_HOLD, MIN_HOLD, MORE_HOLD},
    machine::{Cause, Settings, Woke},
    state::Event,
};
use sleepy_policy_tests::{TIMES, Vm, on};

const MS: u64 = 1_000_000;

/// As the tool's defaults, but for what lets it sleep.
fn settings(causes: &[Cause]) -> Settings {
    Settings {
        linger: 200_000,
        request_timeout: 5_000 * MS,
        max_sleep: 1_000 * MS,
        sleep_on: on(causes),
        ..TIMES
    }
}

fn vm(causes: &[Cause]) -> Vm {
    Vm::new(settings(causes), MS)
}

#[test]
fn it_is_awake_between_the_segments_of_an_answer() {
    let mut vm = vm(&[Cause::Response]);
    vm.request(7);
    vm.pass(10 * MS);
    for _ in 0..50 {
        vm.segment(7, true);
        vm.pass(MORE_HOLD - 1);
        assert!(!vm.state().sleepy());
    }
    vm.response(7);
    assert_eq!(vm.exec, [10 * MS], "measured once, to the first segment");
    vm.pass(4 * MORE_HOLD - 5);
    assert!(
        !vm.state().sleepy(),
        "it may be one that its server has pushed"
    );
    vm.pass(5 + vm.times.linger);
    assert!(vm.state().sleepy());
    assert_eq!(vm.slept, [Cause::Response]);
}

#[test]
fn a_fast_answer_is_over_soon() {
    let mut vm = vm(&[Cause::Response]);
    vm.request(7);
    for _ in 0..1000 {
        for _ in 0..10 {
            vm.segment(7, true);
            vm.pass(1000);
        }
        vm.response(7);
        vm.pass(MS);
        assert!(!vm.state().sleepy());
    }
    vm.pass(MIN_HOLD + vm.times.linger);
    assert!(vm.state().sleepy());
    assert_eq!(vm.slept, [Cause::Response]);
}

#[test]
fn after_a_long_answer_the_next_request_is_in_flight_as_any() {
    let mut vm = vm(&[Cause::Response]);
    vm.request(7);
    vm.segment(7, true);
    vm.request(7);
    vm.pass(2_000 * MS);
    assert!(!vm.state().sleepy());
    vm.response(7);
    vm.pass(MIN_HOLD + vm.times.linger);
    assert!(vm.state().sleepy());
}

#[test]
fn an_answer_without_an_end_is_over_when_it_pauses() {
    let mut vm = vm(&[Cause::Response]);
    vm.request(7);
    vm.segment(7, true);
    vm.pass(MORE_HOLD + vm.times.linger);
    assert!(vm.state().sleepy());
    assert_eq!(vm.slept, [Cause::Response], "and not lost");
}

#[test]
fn the_first_of_two_answers_does_not_end_the_flow() {
    let mut vm = vm(&[Cause::Response]);
    vm.request(7);
    vm.request(7);
    vm.pass(100 * MS);
    vm.response(7);
    vm.pass(150 * MS);
    assert_eq!(vm.state().in_flight(), 1);
    vm.response(7);
    assert_eq!(vm.state().in_flight(), 0);
}

#[test]
fn a_second_answer_is_not_waited_for_without_end() {
    let mut vm = vm(&[Cause::Response]);
    vm.request(7);
    vm.request(7);
    vm.pass(100 * MS);
    vm.response(7);
    vm.pass(200 * MS + vm.times.linger);
    assert!(vm.state().sleepy());
    let mut vm = self::vm(&[Cause::Response]);
    vm.request(7);
    vm.request(7);
    vm.pass(4_000 * MS);
    vm.response(7);
    vm.pass(MAX_HOLD + vm.times.linger);
    assert!(vm.state().sleepy());
}

#[test]
fn an_answer_that_goes_on_wakes_and_holds() {
    let mut vm = vm(&[Cause::Response]);
    vm.request(7);
    vm.response(7);
    vm.pass(50 * MS);
    assert!(vm.state().sleepy(), "it seemed to be over");
    assert!(vm.response(7).change.is_some_and(|change| change.woke()));
    for _ in 0..10 {
        vm.pass(60 * MS);
        assert!(!vm.state().sleepy());
        vm.response(7);
    }
    vm.pass(240 * MS + vm.times.linger);
    assert!(vm.state().sleepy());
    vm.pass(100 * MS);
    assert!(
        vm.response(7).change.is_some_and(|change| change.woke()),
        "and again"
    );
}

#[test]
fn a_pause_is_learnt_from_its_first_moment() {
    let mut vm = vm(&[Cause::Response]);
    vm.request(7);
    vm.segment(7, true);
    vm.response(7);
    vm.pass(MIN_HOLD + 2 * MS);
    assert!(vm.state().sleepy(), "longer than it ever paused");
    assert!(vm.response(7).change.is_some_and(|change| change.woke()));
    for _ in 0..10 {
        vm.pass(4 * (MIN_HOLD + MS));
        assert!(!vm.state().sleepy());
        vm.response(7);
    }
}

#[test]
fn unasked_packets_hold_nothing() {
    let mut vm = vm(&[Cause::Response]);
    vm.pass(MS);
    for flow in [1, 1, 1, 2] {
        vm.response(flow);
        vm.pass(50 * MS);
        assert!(vm.state().sleepy());
    }
}

#[test]
fn it_sleeps_while_it_waits_for_its_only_request() {
    let mut vm = vm(&[Cause::Response]);
    vm.request(1);
    vm.pass(MS);
    vm.call(100);
    assert!(!vm.state().sleepy());
    vm.pass(vm.times.linger);
    assert!(vm.state().sleepy());
    assert_eq!(vm.slept, [Cause::Call]);
    assert!(vm.answer(100).change.is_some_and(|change| change.woke()));
    vm.pass(100 * MS);
    assert!(!vm.state().sleepy(), "the request is still to be answered");
    vm.response(1);
    vm.pass(vm.times.linger);
    assert!(vm.state().sleepy());
}

#[test]
fn a_call_that_is_not_all_said_is_not_in_flight() {
    let mut vm = vm(&[Cause::Response]);
    vm.request(1);
    for _ in 0..3 {
        vm.calling(100, true);
        assert_eq!(vm.state().calls(), 0);
        vm.pass(10 * vm.times.linger);
        assert!(!vm.state().sleepy(), "it still asks");
    }
    vm.calling(100, false);
    vm.pass(MORE_HOLD);
    assert!(!vm.state().sleepy(), "what it pushes may be a part");
    vm.pass(vm.times.linger);
    assert!(vm.state().sleepy());
    assert_eq!(vm.slept, [Cause::Call]);
    let change = vm.calling(100, true).change.unwrap();
    assert!(change.woke() && change.after.calls() == 0, "it asks again");
    vm.pass(10 * vm.times.linger);
    assert!(!vm.state().sleepy());
}

#[test]
fn a_call_of_several_segments_goes_on_when_a_part_of_it_has_come() {
    let mut vm = vm(&[Cause::Response]);
    vm.request(1);
    for more in [true, false] {
        vm.calling(100, more);
    }
    for _ in 0..3 {
        vm.pass(MORE_HOLD + vm.times.linger);
        assert!(vm.state().sleepy());
        assert!(vm.acknowledge(101).change.is_none(), "of another flow");
        let change = vm.acknowledge(100).change;
        assert!(change.is_some_and(|change| change.woke()));
        assert_eq!(vm.state().calls(), 1);
        vm.pass(MORE_HOLD);
        assert!(!vm.state().sleepy());
    }
    vm.pass(vm.times.linger);
    assert!(vm.answer(100).change.is_some_and(|change| change.woke()));
    assert!(vm.acknowledge(100).change.is_none(), "it is over");
    vm.call(100);
    assert!(vm.acknowledge(100).change.is_none(), "it is all there");
    vm.pass(vm.times.linger);
    assert!(vm.state().sleepy());
}

#[test]
fn a_sleepy_vm_that_calls_wakes() {
    let mut vm = vm(&[Cause::Response]);
    for more in [true, true, false, false, true] {
        vm.pass(MORE_HOLD + MS);
        assert!(vm.state().sleepy());
        let call = vm.calling(100, more);
        assert!(call.change.is_some_and(|change| change.woke()));
        assert_eq!(vm.state().calls(), u64::from(!more));
    }
    vm.pass(MORE_HOLD + MS);
    let (rest, call) = (Cause::Rest, Cause::Call);
    assert_eq!(vm.slept, [rest, rest, rest, call, call, rest]);
}

#[test]
fn of_two_requests_one_may_have_work() {
    let mut vm = vm(&[Cause::Response]);
    vm.request(1);
    vm.request(2);
    vm.call(100);
    vm.call(101);
    vm.pass(100 * MS);
    assert!(!vm.state().sleepy());
    vm.response(2);
    vm.pass(vm.times.linger);
    assert!(vm.state().sleepy());
    assert_eq!(vm.slept, [Cause::Call]);
}

#[test]
fn a_request_wakes_a_vm_that_waits() {
    let mut vm = vm(&[Cause::Response]);
    vm.request(1);
    vm.call(100);
    vm.pass(MS);
    assert!(vm.state().sleepy());
    assert!(vm.request(2).change.is_some_and(|change| change.woke()));
    vm.pass(MS);
    assert!(!vm.state().sleepy());
}

#[test]
fn the_rest_of_an_answer_wakes_again() {
    let mut vm = vm(&[Cause::Response]);
    vm.call(100);
    vm.answer(100);
    vm.pass(MS);
    assert!(vm.state().sleepy());
    assert!(vm.answer(100).change.is_some_and(|change| change.woke()));
}

#[test]
fn a_call_that_is_closed_or_lost_wakes() {
    let mut vm = vm(&[Cause::Response]);
    vm.call(100);
    vm.pass(MS);
    assert!(vm.close(100).change.is_some_and(|change| change.woke()));
    vm.call(101);
    vm.pass(MS);
    assert!(vm.state().sleepy());
    vm.times.max_sleep = 60_000 * MS;
    vm.timer = vm.now;
    vm.pass(vm.times.request_timeout);
    assert_eq!(vm.woke, [Woke::Answer]);
    assert_eq!(vm.state().calls(), 0);
}

#[test]
fn calls_beyond_the_table_keep_it_awake() {
    let mut vm = vm(&[Cause::Response]);
    vm.request(1);
    let flows = (0..20).map(|i| i * 64);
    let overflows = flows.filter(|&flow| vm.call(flow).overflow).count();
    assert_eq!(overflows, 12);
    assert_eq!(vm.state().calls(), 8);
}

#[test]
fn a_call_beyond_the_table_leaves_a_sleepy_vm_asleep_again() {
    let mut vm = vm(&[Cause::Response]);
    let mut flows = (0..9).map(|i| i * 64);
    for flow in flows.by_ref().take(8) {
        vm.call(flow);
    }
    vm.pass(MS);
    assert!(vm.state().sleepy());
    let call = flows.next().map(|flow| vm.call(flow)).unwrap();
    assert!(call.overflow && call.change.is_some_and(|change| change.woke()));
    vm.pass(MS);
    assert!(vm.state().sleepy());
}

#[test]
fn of_two_requests_on_one_flow_one_may_have_work() {
    let mut vm = vm(&[Cause::Response]);
    vm.request(1);
    vm.call(100);
    vm.pass(MS);
    assert!(vm.state().sleepy());
    vm.request(1);
    vm.pass(50 * MS);
    assert!(!vm.state().sleepy());
    vm.response(1);
    vm.pass(vm.times.linger + MAX_HOLD);
    assert!(vm.state().sleepy());
}

#[test]
fn an_answer_that_goes_on_with_a_full_table_ends_with_its_time() {
    let mut vm = vm(&[Cause::Response]);
    vm.request(8 * 64);
    vm.response(8 * 64);
    for i in 0..8 {
        vm.request(i * 64);
    }
    vm.pass(100 * MS);
    assert!(vm.segment(8 * 64, true).change.is_some());
    assert_eq!(vm.state().in_flight(), 9);
    for i in 0..7 {
        vm.response(i * 64);
    }
    vm.pass(vm.times.request_timeout - 100 * MS - 1);
    assert_eq!(vm.state().in_flight(), 2);
    vm.response(7 * 64);
    vm.pass(vm.times.request_timeout + vm.times.linger);
    assert!(vm.state().sleepy());
    assert_eq!(vm.state().in_flight(), 0);
}

#[test]
fn only_what_is_subscribed_lets_it_sleep() {
    let mut vm = vm(&[]);
    vm.request(1);
    vm.response(1);
    vm.machine.idle.halt(vm.now);
    vm.pass(10_000 * MS);
    assert!(!vm.state().sleepy());
    assert!(vm.doze().fell_asleep(), "asked to, it does");
}

#[test]
fn it_sleeps_when_every_vcpu_has_halted() {
    let mut vm = vm(&[Cause::Idle]);
    vm.threads.vcpus = 2;
    vm.machine.idle.halt(vm.now);
    vm.pass(100 * MS);
    assert!(!vm.state().sleepy(), "one runs");
    vm.machine.idle.halt(vm.now);
    vm.pass(5 * MS);
    assert!(vm.state().sleepy());
    assert_eq!(vm.slept, [Cause::Idle]);
}

#[test]
fn a_vcpu_that_is_about_to_run_is_not_idle() {
    let mut vm = vm(&[Cause::Idle]);
    vm.machine.idle.halt(vm.now);
    vm.pass(5 * MS);
    assert!(vm.state().sleepy());
    vm.wake();
    vm.pass(50 * MS);
    assert!(!vm.state().sleepy(), "its thread waits for its CPU");
    vm.machine.idle.run(vm.now);
    vm.machine.idle.halt(vm.now);
    vm.pass(5 * MS);
    assert!(vm.state().sleepy());
    vm.wake();
    vm.pass(100 * MS);
    assert!(vm.state().sleepy(), "none of its vCPUs had to run");
}

#[test]
fn a_request_in_flight_is_not_idle() {
    let mut vm = vm(&[Cause::Idle]);
    vm.request(1);
    vm.machine.idle.halt(vm.now);
    vm.pass(100 * MS);
    assert!(!vm.state().sleepy());
    vm.response(1);
    vm.pass(5 * MS);
    assert_eq!(vm.slept, [Cause::Idle]);
}

#[test]
fn it_sleeps_when_nothing_comes_or_goes() {
    let mut vm = vm(&[Cause::Quiet]);
    for _ in 0..10 {
        vm.pass(vm.times.quiet - 1);
        assert!(!vm.state().sleepy());
        vm.machine.io(vm.now);
    }
    vm.pass(vm.times.quiet);
    assert_eq!(vm.slept, [Cause::Quiet]);
}

#[test]
fn it_sleeps_when_it_burns_cpu_time_without_io() {
    let mut vm = vm(&[Cause::Spin]);
    for _ in 0..20 {
        vm.pass(5 * MS);
        vm.threads.oncpu += 5 * MS;
        vm.machine.io(vm.now);
    }
    assert!(!vm.state().sleepy());
    vm.pass(1_000 * MS);
    assert!(!vm.state().sleepy(), "it did not run");
    for _ in 0..6 {
        vm.threads.oncpu += 5 * MS;
        vm.pass(5 * MS);
    }
    assert_eq!(vm.slept, [Cause::Spin]);
    vm.wake();
    vm.pass(vm.times.linger * 2);
    assert!(!vm.state().sleepy(), "after a wake-up it begins anew");
}

#[test]
fn what_wakes_an_awake_vm_is_no_io() {
    for cause in [Cause::Spin, Cause::Quiet] {
        let mut vm = vm(&[cause]);
        for _ in 0..20 {
            vm.wake();
            vm.threads.oncpu += 4 * MS;
            vm.pass(4 * MS);
        }
        assert_eq!(vm.slept.first(), Some(&cause));
    }
}

#[test]
fn stirred_it_goes_back_to_sleep_whatever_lets_it_sleep() {
    let mut vm = vm(&[Cause::Hint]);
    vm.doze();
    vm.pass(vm.times.max_sleep);
    assert_eq!(vm.woke, [Woke::Stir]);
    vm.pass(vm.times.linger);
    assert!(vm.state().sleepy());
    assert_eq!(vm.slept, [Cause::Rest]);
}

#[test]
fn woken_while_stirred_it_stays_awake() {
    let mut vm = vm(&[Cause::Hint]);
    vm.doze();
    vm.pass(vm.times.max_sleep);
    vm.update(Event::Wake);
    vm.pass(1_000 * MS);
    assert!(!vm.state().sleepy());
}

#[test]
fn what_the_vm_sends_asleep_does_not_put_off_the_stir() {
    let mut vm = vm(&[Cause::Response]);
    vm.pass(vm.times.linger);
    for _ in 0..9 {
        vm.pass(100 * MS);
        vm.response(3);
    }
    vm.pass(100 * MS);
    assert_eq!(vm.woke, [Woke::Stir]);
}

#[test]
fn told_to_sleep_while_asleep_it_is_stirred_as_it_would_have_been() {
    let mut vm = vm(&[]);
    vm.times.timer_slack = 500 * MS;
    vm.doze();
    for _ in 0..9 {
        vm.pass(100 * MS);
        assert!(!vm.doze().fell_asleep());
    }
    vm.pass(100 * MS);
    assert_eq!(vm.woke, [Woke::Stir]);
    vm.doze();
    vm.timer = vm.machine.guest_timer(&vm.times, vm.now).unwrap();
    vm.pass(100 * MS);
    vm.doze();
    vm.pass(400 * MS);
    assert_eq!(vm.woke, [Woke::Stir, Woke::Timer]);
}

#[test]
fn a_timer_waits_for_its_slack() {
    let mut vm = vm(&[Cause::Idle]);
    vm.times.timer_slack = 10 * MS;
    vm.machine.idle.halt(vm.now);
    vm.pass(5 * MS);
    assert!(vm.state().sleepy());
    vm.machine.idle.run(vm.now);
    vm.timer = vm.machine.guest_timer(&vm.times, vm.now).unwrap();
    assert_eq!(vm.machine.guest_timer(&vm.times, vm.now), None);
    vm.pass(10 * MS - 1);
    assert!(vm.state().sleepy());
    vm.pass(1);
    assert_eq!(vm.woke, [Woke::Timer]);
}

#[test]
fn a_timer_whose_work_is_done_in_its_slack_wakes_nobody() {
    let mut vm = vm(&[Cause::Idle]);
    vm.times.timer_slack = 10 * MS;
    vm.machine.idle.halt(vm.now);
    vm.pass(5 * MS);
    vm.machine.idle.run(vm.now);
    vm.timer = vm.machine.guest_timer(&vm.times, vm.now).unwrap();
    vm.pass(MS);
    vm.machine.idle.halt(vm.now);
    vm.pass(100 * MS);
    assert!(vm.state().sleepy());
    assert!(vm.woke.is_empty());
}

#[test]
fn which_of_several_requests_waits_is_not_known() {
    // Two on one flow; two in the overflow slot, of a set that holds eight.
    for flows in [vec![1; 2], (0..10).map(|flow| flow * 8).collect()] {
        let mut vm = Vm::new(TIMES, 1_000_000);
        for flow in &flows {
            vm.request(*flow);
        }
        if flows.len() > 2 {
            for flow in &flows {
                vm.response(*flow);
            }
        }
        vm.call(2);
        assert_eq!((vm.state().in_flight(), vm.state().calls()), (1, 1));
        vm.doze();
        assert!(!vm.state().sleepy(), "{flows:?}: by a hint");
        vm.pass(2 * TIMES.linger);
        assert!(!vm.state().sleepy(), "{flows:?}: by time");
    }
}
