// SPDX-License-Identifier: GPL-2.0-only

use clap::ValueEnum;
use sleepy_uapi::{CLASS_IGNORE, CLASS_REQUEST, CLASS_WAKE, FROM_VM, TO_VM};

use super::round_trip::{link, round_trip, vm};
use super::*;
use crate::boost::{Boost, parse_budget};
use crate::policy::Settings;
use crate::rule::{self, BOTH, complete};

#[test]
fn what_is_exported_reads_the_same() {
    let own = vec![
        rule::Rule::filter(CLASS_IGNORE, BOTH, "tcp port 80 and host 10.0.0.9"),
        rule::Rule::filter(CLASS_REQUEST, FROM_VM, "udp[4:2] > 8"),
        rule::Rule::filter(CLASS_WAKE, TO_VM, "icmp"),
        rule::Rule::program(TO_VM, "/sys/fs/bpf/x"),
    ];
    let settings = Settings {
        boost_nice: Some(Boost::To(-5)),
        sleep_on: Some(0),
        wake_on: Some(sleepy_uapi::WAKE_EVENTS),
        linger: Some(1_234_567),
        ..Settings::default()
    };
    round_trip(&vm(&settings), &complete(own.clone(), true, true));
    round_trip(&vm(&settings), &complete(own, false, false));
    let profile = Profile::Grpc;
    let with_ports = complete(profile.rules(&[80, 8080]), true, true);
    round_trip(&vm(&profile.settings()), &with_ports);
    round_trip(&vm(&Settings::default()), &with_ports);
}

#[test]
fn every_lever_reads_the_same() {
    for lever in Lever::value_variants() {
        let plain = Settings {
            lever: Some(*lever),
            ..Settings::default()
        };
        let tuned = Settings {
            sleepy_nice: Some(7),
            sleepy_weight: Some(20),
            park_max: Some(2_000_000_000),
            stir_run: Some(50_000),
            ..plain.clone()
        };
        let boosted = Settings {
            boost_nice: Some(Boost::To(-5)),
            boost_budget: Some(parse_budget("20ms/100ms").unwrap()),
            ..tuned.clone()
        };
        round_trip(&vm(&plain), &[]);
        round_trip(&vm(&tuned), &[]);
        if *lever != Lever::Idle {
            round_trip(&vm(&boosted), &[]);
        }
    }
    let chosen = VmGet {
        policy: Policy {
            lever: sleepy_uapi::LEVER_NICE,
            ..vm(&Settings::default()).policy
        },
        ..vm(&Settings {
            lever: Some(Lever::Auto),
            ..Settings::default()
        })
    };
    assert_eq!(exported_lever(&chosen), "nice");
    let auto = Policy {
        flags: sleepy_uapi::POLICY_AUTO,
        ..chosen.policy
    };
    assert_eq!(
        exported_lever(&VmGet {
            policy: auto,
            ..chosen
        }),
        "auto"
    );
}

fn exported_lever(vm: &VmGet) -> String {
    export(vm, &[], &[], &Namespaces::here(), &mut Vec::new()).lever
}

#[test]
fn what_cannot_be_written_is_said() {
    let mut foreign = rule::Rule::filter(CLASS_WAKE, TO_VM, "icmp").in_kernel();
    foreign.tag = 77;
    let mut other_profile = Profile::Http.rules(&[80])[0].in_kernel();
    other_profile.text[0] = b'x';
    let elsewhere = VmLink { netns: 1, ..link() };
    let outside = VmGet {
        pid: 0,
        ..vm(&Settings::default())
    };
    let mut notes = Vec::new();
    let exported = export(
        &outside,
        &[elsewhere],
        &[foreign, other_profile],
        &Namespaces::here(),
        &mut notes,
    );
    assert!(exported.links.is_empty() && exported.rule.is_empty());
    assert_eq!((exported.pid, exported.profile), (None, None));
    assert_eq!(notes.len(), 4, "{notes:?}");
}

#[test]
fn vms_of_one_process_are_named() {
    let export = |name: u8, pid| {
        let mut vm = vm(&Settings::default());
        (vm.name[0], vm.pid) = (name, pid);
        export(&vm, &[], &[], &Namespaces::here(), &mut Vec::new())
    };
    let vms = [(b'a', 42), (b'b', 0), (b'c', 42), (b'd', 0), (b'e', 7)];
    let vms = vms.map(|(name, pid)| export(name, pid));
    let note = "a and c are both of process 42; add vm_fd";
    assert_eq!(of_one_process(&vms), [note]);
}
