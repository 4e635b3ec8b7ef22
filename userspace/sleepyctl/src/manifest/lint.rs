// SPDX-License-Identifier: GPL-2.0-only

//! What is allowed in a VM, and perhaps not meant.

use sleepy_uapi as uapi;
use sleepy_uapi::{
    CLASS_PROGRAM, CLASS_REQUEST, CLASS_RESPONSE, CLASS_WAKE, FROM_VM, LEVER_OBSERVE, MAX_LINKS,
    TO_VM,
};

use super::entry::Common;
use super::report::{Report, Spot, Spotted};
use super::vm::Vm;
use crate::boost::{Budget, boost};
use crate::filter;
use crate::lever::Lever;
use crate::policy;
use crate::rule::Rule;

/// Looks a VM over; `own` is what its own table says.
pub fn lint(vm: &Vm, own: &Common, report: &mut Report) {
    let place = |key: &str| own.keys.get(key).copied().unwrap_or(vm.spot);
    numbers(vm, report);
    if vm.policy.sleep_on == 0 {
        report.warning(
            place("sleep_on"),
            "`sleep_on` is empty: the VM never sleeps",
        );
    }
    if vm.policy.wake_on == 0 {
        report.warning(
            place("wake_on"),
            "`wake_on` is empty: only rules of class wake and max_sleep wake the VM",
        );
    }
    times(vm, own, report);
    lever(vm, own, report);
    // What a rule that is wrong would have done is not known.
    if !vm.faulty {
        rules(vm, report);
    }
}

fn numbers(vm: &Vm, report: &mut Report) {
    if vm.links.len() > MAX_LINKS as usize {
        let message = format!("{} links are too many, at most {MAX_LINKS}", vm.links.len());
        report.error(vm.links[0].spot, message);
    }
    if let Err(why) = filter::check_number(vm.rules().len()) {
        report.error(vm.spot, why);
    }
    let packets = !vm.own_rules.is_empty() || wakes_on(vm, uapi::WAKE_PACKET);
    if packets && !vm.auto_link && vm.links.is_empty() {
        let message = "no packet will be seen: `auto_link` is false; name devices with `links`";
        report.error(vm.spot, message);
    }
}

fn wakes_on(vm: &Vm, event: usize) -> bool {
    vm.policy.wake_on >> event & 1 == 1
}

fn times(vm: &Vm, own: &Common, report: &mut Report) {
    let mut unused = |key: &str, set: &str, event: &str, used: bool| {
        if let Some(spot) = own.keys.get(key)
            && !used
        {
            let message = format!("`{key}` has no effect: `{set}` has no `{event}`");
            report.warning(*spot, message);
        }
    };
    let sleeps_on = |event: usize| vm.policy.sleep_on >> event & 1 == 1;
    unused("quiet", "sleep_on", "quiet", sleeps_on(uapi::SLEEP_QUIET));
    unused("spin", "sleep_on", "spin", sleeps_on(uapi::SLEEP_SPIN));
    unused(
        "timer_slack",
        "wake_on",
        "timer",
        wakes_on(vm, uapi::WAKE_TIMER),
    );
}

/// What the lever makes nothing of.
fn lever(vm: &Vm, own: &Common, report: &mut Report) {
    let place = |key: &str| {
        let spot = own.keys.get(key).copied();
        spot.filter(|_| !own.wrong.contains(key))
    };
    if let Err(why) = policy::check_stir(&vm.policy) {
        let spot = place("stir_run").or(place("park_max")).unwrap_or(vm.spot);
        report.error(spot, why);
    }
    if let Err(why) = policy::check_boost(&vm.policy) {
        let spot = place("boost_nice").or(place("lever")).unwrap_or(vm.spot);
        report.error(spot, why);
    }
    let Some(lever) = Lever::asked(&vm.policy) else {
        return;
    };
    for key in ["sleepy_nice", "sleepy_weight", "park_max", "stir_run"] {
        if let Some(spot) = place(key).filter(|_| !lever.uses(key)) {
            let users = Lever::REAL[1..].iter().filter(|lever| lever.uses(key));
            let users: Vec<&str> = users.map(|lever| lever.name()).collect();
            let message = format!(
                "`{key}` has no effect with the lever {}; it is for {}",
                lever.name(),
                users.join(", ")
            );
            report.warning(spot, message);
        }
    }
    let limited = vm
        .boost_budget
        .is_some_and(|budget| budget != Budget::UNLIMITED);
    if let Some(spot) = place("boost_budget")
        && limited
        && boost(&vm.policy).is_none()
    {
        report.warning(
            spot,
            "`boost_budget` has no effect: there is no `boost_nice`",
        );
    }
}

fn rules(vm: &Vm, report: &mut Report) {
    let first = |class: u32, direction: u32| -> Option<Spot> {
        let is_it = |rule: &&Spotted<Rule>| {
            rule.value.class == class && rule.value.direction & direction != 0
        };
        vm.own_rules.iter().find(is_it).map(|rule| rule.spot)
    };
    let any_program = first(CLASS_PROGRAM, TO_VM | FROM_VM).is_some();
    let asked = first(CLASS_REQUEST, TO_VM);
    let only_responses = vm.policy.sleep_on & !(1 << uapi::SLEEP_RESPONSE) == 0;
    if let Some(spot) = asked
        && first(CLASS_RESPONSE, FROM_VM).is_none()
        && only_responses
        && !any_program
    {
        report.warning(
            spot,
            "nothing shows the answers to these requests, so each keeps the VM awake until request_timeout; \
             add a rule of class response, or another event to `sleep_on`, such as idle",
        );
    }
    if let Some(spot) = first(CLASS_REQUEST, FROM_VM)
        && first(CLASS_RESPONSE, TO_VM).is_none()
        && !any_program
    {
        report.warning(
            spot,
            "nothing shows the answers to these calls; add a rule of class response with direction = \"to-vm\"",
        );
    }
    let woken_by_requests = wakes_on(vm, uapi::WAKE_REQUEST) || wakes_on(vm, uapi::WAKE_PACKET);
    if let Some(spot) = asked
        && !woken_by_requests
    {
        report.warning(
            spot,
            "requests do not wake the VM: `wake_on` has no `request`; add it, or leave the rule out",
        );
    }
    let other_events = vm.policy.wake_on & !(1 << uapi::WAKE_REQUEST) != 0;
    let can_wake = other_events
        || any_program
        || asked.is_some()
        || first(CLASS_WAKE, TO_VM).is_some()
        || first(CLASS_RESPONSE, TO_VM).is_some();
    if !can_wake && vm.policy.wake_on != 0 && vm.policy.lever != LEVER_OBSERVE {
        report.warning(
            vm.spot,
            "only max_sleep wakes this VM: no rule is of class request or wake; add one, or another event to `wake_on`",
        );
    }
}
