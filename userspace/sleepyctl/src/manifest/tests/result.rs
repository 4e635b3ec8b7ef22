// SPDX-License-Identifier: GPL-2.0-only

//! What a good manifest comes to.

use sleepy_uapi as uapi;
use sleepy_uapi::{CLASS_IGNORE, CLASS_REQUEST, CLASS_RESPONSE, FROM_VM, LEVER_OBSERVE, TO_VM};

use super::super::load::of_texts;
use super::super::profile::Profile;
use super::super::selector::Selector;
use super::super::vm::Vm;
use super::{findings, load};
use crate::boost::boost;
use crate::filter::Handle;
use crate::policy;
use crate::rule::{BOTH, Match, Origin, Rule};

fn vms(text: &str) -> Vec<Vm> {
    let manifests = load(text);
    assert!(
        manifests.report.findings().is_empty(),
        "{:#?}",
        manifests.report.findings()
    );
    manifests.vms
}

#[test]
fn nearest_one_to_say_something_counts() {
    let vms = vms("schema_version = 1
         [defaults]
         profile = \"grpc\"
         linger = \"1us\"
         max_sleep = \"2s\"
         boost_nice = -5
         noise = false
         [template.t]
         linger = \"2us\"
         boost_nice = false
         ports = [1]
         [template.t2]
         ports = [2]
         [[vm]]
         name = \"a\"
         pid = 1
         template = \"t\"
         linger = \"3us\"
         tcp_defaults = false
         [[vm]]
         name = \"b\"
         pid = 2
         template = \"t\"
         profile = \"udp\"
         [[vm]]
         name = \"c\"
         pid = 3
         template = \"t2\"");
    let policies = vms
        .iter()
        .map(|vm| (vm.policy.linger, vm.policy.max_sleep, boost(&vm.policy)));
    let expected = [
        (3_000, 2_000_000_000, None),
        (2_000, 2_000_000_000, None),
        (1_000, 2_000_000_000, Some(-5)),
    ];
    assert!(policies.eq(expected));
    assert_eq!(vms[1].own_rules[0].value.text, "udp 1");
    assert_eq!(vms[2].own_rules[0].value.text, "grpc 2");
    assert!(!vms[0].tcp_defaults && vms[1].tcp_defaults && !vms[0].noise);
    assert!(
        vms[0]
            .rules()
            .iter()
            .all(|rule| rule.origin == Origin::Profile)
    );
}

#[test]
fn nothing_said_is_as_vm_add() {
    let vms = vms("schema_version = 1\n[[vm]]\nname = \"a\"\npid = 1\nlever = \"observe\"");
    let expected = uapi::Policy {
        lever: LEVER_OBSERVE,
        ..policy::default()
    };
    assert_eq!(vms[0].policy, expected);
    assert!(vms[0].auto_link && vms[0].tcp_defaults && vms[0].noise && !vms[0].each);
}

#[test]
fn rules_are_in_their_order_and_the_profiles_come_last() {
    let vms = vms("schema_version = 1
         [[vm]]
         name = \"a\"
         unit = \"web\"
         profile = \"http\"
         ports = [80, 443]
         [[vm.rule]]
         class = \"ignore\"
         filter = \"icmp\"
         [[vm.rule]]
         class = \"request\"
         direction = \"from-vm\"
         filter = \"udp\"
         [[vm.rule]]
         class = \"response\"
         direction = \"to-vm\"
         filter = \"udp\"
         [[vm.rule]]
         bpf = \"/sys/fs/bpf/x\"");
    let rules: Vec<Rule> = vms[0]
        .own_rules
        .iter()
        .map(|rule| rule.value.clone())
        .collect();
    let expected = [
        Rule::filter(CLASS_IGNORE, BOTH, "icmp"),
        Rule::filter(CLASS_REQUEST, FROM_VM, "udp"),
        Rule::filter(CLASS_RESPONSE, TO_VM, "udp"),
        Rule::program(BOTH, "/sys/fs/bpf/x"),
    ];
    assert_eq!(rules[..4], expected);
    assert_eq!(rules[4..], Profile::Http.rules(&[80, 443]));
    assert_eq!(
        vms[0].selector.value,
        Selector::Unit("web.service".to_string())
    );
}

#[test]
fn two_hundred_and_fifty_vms_take_eight_lines() {
    let text = "schema_version = 1\n\n[[vm]]\nname = \"fn-{}\"\ncmdline = \"--id fn-*\"\neach = true\nprofile = \"http\"\nports = [8080]\n";
    let vms = vms(text);
    assert!(text.lines().count() <= 10 && vms[0].each);
    assert_eq!(
        vms[0].selector.value,
        Selector::Cmdline("--id fn-*".to_string())
    );
}

#[test]
fn selectors_are_in_their_usual_form() {
    let selector = |line: &str| {
        let text = format!("schema_version = 1\n[[vm]]\nname = \"a\"\nlever = \"observe\"\n{line}");
        vms(&text).remove(0).selector.value.to_string()
    };
    for (line, expected) in [
        ("unit = \"a.scope\"", "unit a.scope"),
        (
            "cgroup = \"/sys/fs/cgroup/m.slice/x/\"",
            "cgroup /m.slice/x",
        ),
        ("link = \"blue/tap0\"", "link blue/tap0"),
        ("pidfile = \"/run/a.pid\"", "pidfile /run/a.pid"),
    ] {
        assert_eq!(selector(line), expected);
    }
}

#[test]
fn profiles_say_what_they_are_for() {
    let handle = Handle::dead().unwrap();
    for name in Profile::names() {
        let profile = Profile::of_name(name).unwrap();
        let rules = profile.rules(&[80, 8080, 50051]);
        assert_eq!(rules.is_empty(), !profile.takes_ports(), "{name}");
        for rule in rules {
            let Match::Filter(expr) = &rule.matches else {
                panic!("{rule:?}")
            };
            let program = handle
                .check(expr)
                .unwrap_or_else(|why| panic!("{name}: {why}\n{expr}"));
            assert!(program.get_instructions().len() < 600, "{name}: {expr}");
            assert_eq!(
                Profile::of_text(&rule.text),
                Some((profile, vec![80, 8080, 50051]))
            );
        }
        let ports = if profile.takes_ports() {
            "ports = [80]"
        } else {
            ""
        };
        // Nothing but a hint or a rule wakes a batch VM.
        let text = format!(
            "schema_version = 1\n[[vm]]\nname = \"a\"\npid = 1\nprofile = \"{name}\"\n{ports}\n"
        );
        assert_eq!(findings(&text), [""; 0], "{name}");
    }
    let policy = Profile::Passthrough.settings().apply(policy::default());
    assert_eq!(
        policy.wake_on,
        1 << uapi::WAKE_INTERRUPT | 1 << uapi::WAKE_DOORBELL
    );
}

/// An Ethernet frame with a TCP segment from port 50051 with this payload.
fn segment(ipv6: bool, options: usize, payload: &[u8]) -> Vec<u8> {
    let mut tcp = vec![0; 20 + options];
    tcp[..2].copy_from_slice(&50051u16.to_be_bytes());
    tcp[12] = ((20 + options) as u8 / 4) << 4;
    tcp.extend(payload);
    let mut frame = vec![2; 12];
    if ipv6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend((tcp.len() as u16).to_be_bytes());
        frame.extend([6, 64]);
        frame.extend([0; 32]);
    } else {
        frame.extend([0x08, 0x00, 0x45, 0]);
        frame.extend((tcp.len() as u16 + 20).to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, 6, 0, 0]);
        frame.extend([10; 8]);
    }
    frame.extend(tcp);
    frame
}

#[test]
fn grpc_ignores_control_frames_alone() {
    let handle = Handle::dead().unwrap();
    let rules = Profile::Grpc.rules(&[50051]);
    let Match::Filter(control) = &rules[0].matches else {
        panic!()
    };
    let control = handle.check(control).unwrap();
    let frame = |kind: u8, length: u8| {
        [
            vec![0, 0, length, kind, 0, 0, 0, 0, 1],
            vec![7; length.into()],
        ]
        .concat()
    };
    let (data, headers, settings, ping, window) = (
        frame(0, 30),
        frame(1, 20),
        frame(4, 18),
        frame(6, 8),
        frame(8, 4),
    );
    for (what, payload, ignored) in [
        ("SETTINGS", settings.clone(), true),
        ("SETTINGS, acknowledged", frame(4, 0), true),
        ("PING", ping.clone(), true),
        (
            "WINDOW_UPDATE and PING",
            [window.clone(), ping].concat(),
            true,
        ),
        ("GOAWAY", frame(7, 8), true),
        ("RST_STREAM", frame(3, 4), true),
        ("HEADERS", headers.clone(), false),
        ("DATA", data.clone(), false),
        (
            "SETTINGS, then HEADERS",
            [settings.clone(), headers.clone()].concat(),
            false,
        ),
        (
            "two control frames, then HEADERS",
            [settings, window.clone(), headers].concat(),
            false,
        ),
        ("WINDOW_UPDATE, then DATA", [window, data].concat(), false),
        ("PUSH_PROMISE", frame(5, 8), false),
        (
            "the preface",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            false,
        ),
        ("a long frame's middle", vec![6; 1448], false),
        ("nothing", Vec::new(), false),
    ] {
        for (ipv6, options) in [(false, 0), (false, 12), (true, 0), (true, 12)] {
            let bytes = segment(ipv6, options, &payload);
            let tagged = [&bytes[..12], &[0x81, 0, 0, 5], &bytes[12..]].concat();
            let what = format!("{what}, IPv6: {ipv6}, options: {options}");
            assert_eq!(control.filter(&bytes), ignored, "{what}");
            assert_eq!(control.filter(&tagged), ignored, "{what}, tagged");
        }
    }
}

#[test]
fn defaults_and_templates_are_of_one_file() {
    let first = "schema_version = 1\nvm = []\n[defaults]\nlinger = \"9ms\"";
    let second = "schema_version = 1\n[[vm]]\nname = \"a\"\npid = 1\nlever = \"observe\"";
    let texts = [first, second].map(|text| ("f".to_string(), text.to_string()));
    let vms = of_texts(&texts).unwrap().vms;
    assert_eq!(vms[0].policy.linger, policy::default().linger);
}
