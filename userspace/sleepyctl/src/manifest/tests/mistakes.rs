// SPDX-License-Identifier: GPL-2.0-only

//! Every mistake has its place and its remedy.

use super::super::load::of_texts;
use super::super::report::Finding;
use super::findings;

/// A file with one good VM, whose last lines are these: the first of them is line 5.
fn vm(lines: &str) -> String {
    format!("schema_version = 1\n[[vm]]\nname = \"a\"\npid = 1\n{lines}\n")
}

const GOOD_RULES: &str = "[[vm.rule]]\nclass = \"request\"\nfilter = \"udp\"\n[[vm.rule]]\nclass = \"response\"\nfilter = \"udp\"";

/// Each of the texts has the one finding that begins so.
fn each(cases: &[(&str, &str)], file: impl Fn(&str) -> String) {
    for (text, expected) in cases {
        let found = findings(&file(text));
        assert_eq!(found.len(), 1, "{text}\n{found:#?}");
        assert!(found[0].starts_with(expected), "{text}\n{}", found[0]);
    }
}

#[test]
fn values_of_keys() {
    let cases = [
        (
            "lingr = \"1ms\"",
            "f:5:1: error: there is no key `lingr`; did you mean `linger`?",
        ),
        (
            "colour = 1",
            "f:5:1: error: there is no key `colour`; there are: name, template,",
        ),
        (
            "linger = 5",
            "f:5:10: error: `linger`: this is a number, it must be a text: a time with its unit",
        ),
        (
            "linger = \"5\"",
            "f:5:10: error: `linger`: time unit needed",
        ),
        (
            "linger = \"5 parsecs\"",
            "f:5:10: error: `linger`: unknown time unit \"parsecs\"",
        ),
        (
            "max_sleep = \"1us\"",
            "f:5:13: error: `max_sleep`: at least 1ms",
        ),
        (
            "max_sleep = \"2h\"",
            "f:5:13: error: `max_sleep`: at most 1h",
        ),
        (
            "sleepy_nice = 20",
            "f:5:15: error: `sleepy_nice`: 20 is out of range; it must be a number from -20 to 19",
        ),
        (
            "sleepy_nice = \"1\"",
            "f:5:15: error: `sleepy_nice`: this is a text, it must be a number from -20 to 19",
        ),
        (
            "boost_nice = true",
            "f:5:14: error: `boost_nice`: this is true or false, it must be a number from -20 to 19, or false",
        ),
        (
            "lever = \"nicer\"",
            "f:5:9: error: `lever`: there is no lever `nicer`; did you mean `nice`?",
        ),
        (
            "auto_link = \"no\"",
            "f:5:13: error: `auto_link`: this is a text, it must be true or false",
        ),
        (
            "sleep_on = \"idle\"",
            "f:5:12: error: `sleep_on`: this is a text, it must be a list of events, such as [\"response\"]",
        ),
        (
            "sleep_on = [\"idle\", \"spinn\"]",
            "f:5:21: error: `sleep_on`: there is no event `spinn`; did you mean `spin`?",
        ),
        (
            "wake_on = [\"packet\", \"stir\"]",
            "f:5:22: error: `wake_on`: `stir` is always on",
        ),
        (
            "profile = \"htp\"",
            "f:5:11: error: `profile`: there is no profile `htp`; did you mean `http`?",
        ),
        ("vm_fd = -1", "f:5:9: error: `vm_fd`: -1 is out of range"),
        (
            "links = [\"much-too-long-a-name\"]",
            "f:5:10: error: `links`: `much-too-long-a-name` cannot be a device",
        ),
    ];
    each(&cases, |line| vm(&format!("{line}\n{GOOD_RULES}")));
}

#[test]
fn rules() {
    let cases = [
        (
            "class = \"wake\"\nfilter = \"tcp prt 80\"",
            "f:7:10: error: `filter`: can't parse filter expression: syntax error",
        ),
        (
            "class = \"wake\"\nfilter = \"tcp and udp\"",
            "f:7:10: error: `filter`: no packet on an Ethernet link can ever match",
        ),
        (
            "class = \"wake\"\nfilter = \" \"",
            "f:7:10: error: `filter`: an empty text",
        ),
        (
            "class = \"wakes\"\nfilter = \"tcp\"",
            "f:6:9: error: `class`: there is no class `wakes`; did you mean `wake`?",
        ),
        (
            "class = \"wake\"\nfiltr = \"tcp\"",
            "f:7:1: error: there is no key `filtr`; did you mean `filter`?",
        ),
        (
            "filter = \"tcp\"",
            "f:5:1: error: a rule with a filter needs a class: request, response, wake, sleep, ignore",
        ),
        (
            "class = \"wake\"",
            "f:5:1: error: a rule needs `filter`, a pcap-filter(7) expression, or `bpf`",
        ),
        (
            "class = \"wake\"\nbpf = \"/sys/fs/bpf/x\"",
            "f:6:9: error: the program of `bpf` says the class itself; leave `class` out",
        ),
        (
            "class = \"wake\"\nfilter = \"tcp\"\nbpf = \"/x\"",
            "f:8:7: error: a rule has `filter` or `bpf`, not both",
        ),
        (
            "bpf = \"x\"",
            "f:6:7: error: `bpf`: `x` must be the whole path of a pinned program",
        ),
        (
            "class = \"wake\"\nfilter = \"tcp\"\ndirection = \"to\"",
            "f:8:13: error: `direction`: there is no direction `to`; did you mean `to-vm`?",
        ),
    ];
    // Another rule of class wake, so that nothing else is to be said of the VM.
    let file = |rule: &str| {
        vm(&format!(
            "[[vm.rule]]\n{rule}\n[[vm.rule]]\nclass = \"wake\"\nfilter = \"udp\""
        ))
    };
    each(&cases, file);
}

#[test]
fn tables() {
    let cases = [
        (
            "[[vm]]\nname = \"a\"\npid = 1\nwake_on = [\"packet\"]",
            "f:1:1: error: `schema_version` is missing",
        ),
        (
            "schema_version = 2\n[[vm]]\nname = \"a\"\npid = 1\nwake_on = [\"packet\"]",
            "f:1:18: error: `schema_version`: 2 is not known to this sleepyctl",
        ),
        (
            "schema_version = 1",
            "f:1:1: warning: there is no [[vm]] in this file",
        ),
        (
            "schema_version = 1\nvms = 1\nvm = []",
            "f:2:1: error: there is no key `vms`; did you mean `vm`?",
        ),
        (
            "schema_version = 1\n[vm]\nname = \"a\"",
            "f:2:1: error: `vm`: this is a table, it must be a list of tables: write [[vm]], in two brackets",
        ),
        (
            "schema_version = 1\nvm = []\n[[defaults]]\n",
            "f:3:1: error: `defaults`: this is a list, it must be a table: write [defaults]",
        ),
        (
            "schema_version = 1\nvm = []\n[defaults]\nname = \"a\"",
            "f:4:1: error: there is no key `name`",
        ),
        (
            "schema_version = 1\nvm = []\n[template.t]\nlinger = \"1ms\"",
            "f:3:1: warning: no VM uses the template `t`",
        ),
        (
            "schema_version = 1\nvm = [\n",
            "f:2:7: error: this is no TOML: ",
        ),
        (
            "schema_version = 1\nvm = []\nx = = 2",
            "f:3:5: error: this is no TOML: ",
        ),
    ];
    each(&cases, str::to_string);
}

#[test]
fn handles() {
    let vm = |lines: &str| {
        format!("schema_version = 1\n[defaults]\nwake_on = [\"packet\"]\n[[vm]]\n{lines}\n")
    };
    let cases = [
        ("pid = 1", "f:4:1: error: a [[vm]] needs a `name`"),
        (
            "name = \"a\"",
            "f:4:1: error: which process is it? Give one of cmdline, pid,",
        ),
        (
            "name = \"a b\"\npid = 1",
            "f:5:8: error: `name`: a name has 1 to 31 printable ASCII characters",
        ),
        (
            "name = \"a\"\npid = 0",
            "f:6:7: error: `pid`: 0 is out of range",
        ),
        (
            "name = \"a\"\npid = 1\nunit = \"x\"",
            "f:7:8: error: a [[vm]] has one selector; leave out ",
        ),
        (
            "name = \"a\"\npidfile = \"x\"",
            "f:6:11: error: `pidfile`: `x` must be a whole path",
        ),
        (
            "name = \"a\"\ncgroup = \"x\"",
            "f:6:10: error: `cgroup`: `x` must be a whole path",
        ),
        (
            "name = \"a\"\nunit = \"a/b\"",
            "f:6:8: error: `unit`: `a/b` is no unit",
        ),
        (
            "name = \"a\"\nlink = \"blue/\"",
            "f:6:8: error: `link`: `blue/` cannot be a device",
        ),
        (
            "name = \"a-{}\"\ncmdline = \"x-*\"",
            "f:5:8: error: {} in a name is for `each = true`",
        ),
        (
            "name = \"a\"\ncmdline = \"x-*\"\neach = true",
            "f:5:8: error: with `each`, the name must have {}",
        ),
        (
            "name = \"a-{}\"\ncmdline = \"x\"\neach = true",
            "f:6:11: error: with `each`, the selector must be cmdline, unit, cgroup or link, with one *",
        ),
        (
            "name = \"a-{}\"\npid = 1\neach = true",
            "f:6:7: error: with `each`, the selector must be",
        ),
        (
            "name = \"a-{}\"\nunit = \"x-*\"\neach = true\nlinks = [\"tap0\"]",
            "f:8:10: error: with `each`, every VM would claim these links",
        ),
        (
            "name = \"a\"\npid = 1\ntemplate = \"t\"",
            "f:7:12: error: there is no template; write [template.t]",
        ),
        (
            "name = \"a\"\npid = 1\nauto_link = false",
            "f:4:1: error: no packet will be seen: `auto_link` is false",
        ),
    ];
    each(&cases, vm);
    let rule = [(
        "name = \"a\"\npid = 1\nrule = 5",
        "f:7:8: error: `rule`: this is a number, it must be tables: write [[vm.rule]]",
    )];
    each(&rule, vm);
}

#[test]
fn profiles() {
    let cases = [
        (
            "profile = \"http\"",
            "f:5:11: error: the profile http needs `ports`",
        ),
        (
            "profile = \"http\"\nports = []",
            "f:6:9: error: `ports` is empty",
        ),
        (
            "profile = \"http\"\nports = [80, 70000]",
            "f:6:14: error: `ports`: 70000 is out of range",
        ),
        (
            "profile = \"http\"\nports = 80",
            "f:6:9: error: `ports`: this is a number, it must be a list of ports",
        ),
        (
            "profile = \"opaque\"\nports = [80]",
            "f:6:9: error: the profile opaque makes no rules of `ports`",
        ),
        (
            "wake_on = [\"packet\"]\nports = [80]",
            "f:6:9: error: `ports` makes rules for the profiles http, grpc and udp",
        ),
    ];
    each(&cases, vm);
}

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
            vm("a", "pid = 1\nlinks = [\"t\"]"),
            vm("b", "pid = 2\nlinks = [\"u\", \"t\"]"),
            "b.toml:6:15: error: link t is claimed by `a` already, at a.toml:6",
        ),
        (
            vm("a", "pid = 1\nlinks = [\"t\"]"),
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
    let two = [vm("a", "pid = 1\nvm_fd = 5"), vm("b", "pid = 1\nvm_fd = 6")];
    assert!(of_texts(&two).unwrap().report.findings().is_empty());
}

#[test]
fn all_at_once_and_by_place() {
    let found = findings(
        "schema_version = 1\nfoo = 1\n[[vm]]\nname = \"a\"\nlinger = 5\npid = \"x\"\n\
         [[vm.rule]]\nclass = \"requst\"\nfilter = \"tcp and udp\"\n[[vm]]\nname = \"a\"\npid = 3\nwake_on = [\"packet\"]\n",
    );
    let places: Vec<&str> = found
        .iter()
        .map(|line| line.split(": ").next().unwrap())
        .collect();
    let expected = ["f:2:1", "f:5:10", "f:6:7", "f:8:9", "f:9:10", "f:11:8"];
    assert_eq!(places, expected, "{found:#?}");
}
