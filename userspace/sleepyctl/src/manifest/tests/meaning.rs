// SPDX-License-Identifier: GPL-2.0-only

//! What no value shows by itself: a VM that was perhaps not meant so, and VMs that are in each other's way.

use super::super::load::of_texts;
use super::super::report::Finding;
use super::{GOOD_RULES, each, findings, vm};

#[test]
fn what_is_perhaps_not_meant() {
    let request = "[[vm.rule]]\nclass = \"request\"\nfilter = \"udp\"";
    let call = "[[vm.rule]]\nclass = \"request\"\nfilter = \"udp\"\ndirection = \"from-vm\"";
    let cases = [
        (
            request.to_string(),
            "f:5:1: warning: nothing shows the answers to these requests",
        ),
        (
            format!("wake_on = [\"packet\"]\n{call}"),
            "f:6:1: warning: nothing shows the answers to these calls",
        ),
        (
            format!("wake_on = [\"timer\"]\n{GOOD_RULES}"),
            "f:6:1: warning: requests do not wake the VM",
        ),
        (
            format!(
                "wake_on = []\nsleep_on = [\"idle\"]\n{}",
                request.replace("request", "wake")
            ),
            "f:5:11: warning: `wake_on` is empty",
        ),
        (
            format!("sleep_on = []\n{GOOD_RULES}"),
            "f:5:12: warning: `sleep_on` is empty: the VM never sleeps",
        ),
        (
            format!("quiet = \"5ms\"\n{GOOD_RULES}"),
            "f:5:9: warning: `quiet` has no effect: `sleep_on` has no `quiet`",
        ),
        (
            format!("spin = \"5ms\"\n{GOOD_RULES}"),
            "f:5:8: warning: `spin` has no effect",
        ),
        (
            format!("timer_slack = \"5ms\"\n{GOOD_RULES}"),
            "f:5:15: warning: `timer_slack` has no effect: `wake_on` has no `timer`",
        ),
        (
            format!("park_max = \"5s\"\n{GOOD_RULES}"),
            "f:5:12: warning: `park_max` has no effect with the lever nice; it is for park",
        ),
        (
            format!("lever = \"idle\"\nsleepy_nice = 5\n{GOOD_RULES}"),
            "f:6:15: warning: `sleepy_nice` has no effect with the lever idle; it is for nice",
        ),
        (
            format!("lever = \"park\"\nsleepy_weight = 5\n{GOOD_RULES}"),
            "f:6:17: warning: `sleepy_weight` has no effect with the lever park; it is for cgroup",
        ),
        (
            format!("boost_budget = \"1ms/10ms\"\n{GOOD_RULES}"),
            "f:5:16: warning: `boost_budget` has no effect: there is no `boost_nice`",
        ),
        (
            "linger = \"5ms\"".to_string(),
            "f:2:1: warning: only max_sleep wakes this VM",
        ),
    ];
    let cases: Vec<(&str, &str)> = cases
        .iter()
        .map(|(text, line)| (text.as_str(), *line))
        .collect();
    each(&cases, vm);
    for good in [
        format!("sleep_on = [\"response\", \"idle\"]\n{request}"),
        "lever = \"observe\"".to_string(),
        format!("lever = \"observe\"\nsleepy_weight = 5\npark_max = \"5s\"\n{GOOD_RULES}"),
        format!("lever = \"auto\"\nsleepy_weight = 5\npark_max = \"5s\"\n{GOOD_RULES}"),
        format!("lever = \"cgroup\"\nsleepy_weight = \"idle\"\n{GOOD_RULES}"),
        format!("boost_nice = -5\nboost_budget = \"1ms/10ms\"\n{GOOD_RULES}"),
        format!("boost_budget = false\n{GOOD_RULES}"),
        "[[vm.rule]]\nbpf = \"/sys/fs/bpf/x\"".to_string(),
        GOOD_RULES.to_string(),
    ] {
        assert_eq!(findings(&vm(&good)), [""; 0], "{good}");
    }
}

#[test]
fn numbers() {
    let rules = "[[vm.rule]]\nclass = \"wake\"\nfilter = \"udp\"\n".repeat(60);
    let devices: Vec<String> = (0..17).map(|n| format!("\"tap{n}\"")).collect();
    let links = format!("wake_on = [\"packet\"]\nlinks = [{}]", devices.join(", "));
    let cases = [
        (
            rules.as_str(),
            "f:2:1: error: 65 rules (with those for TCP and noise) are too many, at most 64",
        ),
        (&links, "f:6:10: error: 17 links are too many, at most 16"),
    ];
    each(&cases, vm);
}

#[test]
fn claims_in_several_files() {
    let vm = |name: &str, rest: &str| {
        let text = format!(
            "schema_version = 1\n[[vm]]\nname = \"{name}\"\nwake_on = [\"packet\"]\n{rest}\n"
        );
        (format!("{name}.toml"), text)
    };
    let same_name = ("z.toml".to_string(), vm("a", "pid = 7").1);
    let cases = [
        (
            vm("a", "pid = 1"),
            same_name,
            "z.toml:3:8: error: the name `a` is taken already, at a.toml:3",
        ),
        (
            vm("a", "pid = 1"),
            vm("b", "pid = 1"),
            "b.toml:5:7: error: pid 1 is claimed by `a` already, at a.toml:5",
        ),
        (
            vm("a", "unit = \"x\""),
            vm("b", "unit = \"x.service\""),
            "b.toml:5:8: error: unit x.service is claimed",
        ),
        (
            vm("a", "pid = 1\nlinks = [\"n/t\"]"),
            vm("b", "pid = 2\nlinks = [\"u\", \"n/t\"]"),
            "b.toml:6:15: error: link n/t is claimed by `a` already, at a.toml:6",
        ),
        (
            vm("a", "pid = 1\nlinks = [\"n/t\"]"),
            vm("b", "link = \"n/t\""),
            "b.toml:5:8: error: link n/t is claimed by `a` already",
        ),
        (
            vm("a", "link = \"t\""),
            vm("b", "link = \"t\""),
            "b.toml:5:8: error: link t is claimed by `a` already",
        ),
    ];
    for (first, second, expected) in cases {
        let found = of_texts(&[first, second]).unwrap().report.findings();
        let found: Vec<String> = found.iter().map(Finding::to_string).collect();
        assert_eq!(found.len(), 1, "{expected}\n{found:#?}");
        assert!(found[0].starts_with(expected), "{}", found[0]);
    }
    // Two virtual machines of one process; devices that each VMM has in a namespace of its own.
    for two in [
        [vm("a", "pid = 1\nvm_fd = 5"), vm("b", "pid = 1\nvm_fd = 6")],
        ["a", "b"].map(|name| vm(name, &format!("unit = \"{name}\"\nlinks = [\"t\"]"))),
    ] {
        assert_eq!(of_texts(&two).unwrap().report.findings(), []);
    }
}

#[test]
fn all_at_once_and_by_place() {
    let found = findings(
        "schema_version = 1\nfoo = 1\n[[vm]]\nname = \"a\"\nlinger = 5\npid = \"x\"\n\
         [[vm.rule]]\nclass = \"requst\"\nfilter = \"tcp and udp\"\n\
         [[vm]]\nname = \"a\"\npid = 3\nports = [1]\nspin = \"5ms\"\n",
    );
    let places: Vec<&str> = found
        .iter()
        .map(|line| line.split(": ").next().unwrap())
        .collect();
    let expected = [
        "f:2:1", "f:5:10", "f:6:7", "f:8:9", "f:9:10", "f:11:8", "f:13:9", "f:14:8",
    ];
    assert_eq!(places, expected, "{found:#?}");
}
