// SPDX-License-Identifier: GPL-2.0-only

//! Every mistake has its place and its remedy.

use super::{GOOD_RULES, each, vm};

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
            "lever = \"parks\"",
            "f:5:9: error: `lever`: there is no lever `parks`; did you mean `park`?",
        ),
        (
            "sleepy_weight = 0",
            "f:5:17: error: `sleepy_weight`: 0 is out of range; it must be a number from 1 to 10000",
        ),
        (
            "sleepy_weight = \"none\"",
            "f:5:17: error: `sleepy_weight`: a number from 1 to 10000, or idle",
        ),
        (
            "sleepy_weight = false",
            "f:5:17: error: `sleepy_weight`: this is true or false, it must be a number from 1 to 10000, or \"idle\"",
        ),
        (
            "lever = \"park\"\nstir_run = \"10us\"",
            "f:6:12: error: `stir_run`: at least 50us",
        ),
        (
            "lever = \"idle\"\nboost_nice = -5",
            "f:6:14: error: the lever idle has no boost; leave",
        ),
        (
            "lever = \"park\"\npark_max = \"1ms\"\nstir_run = \"2ms\"",
            "f:7:12: error: stir_run 2ms is longer than park_max 1ms",
        ),
        (
            "boost_nice = -5\nboost_budget = \"20ms\"",
            "f:6:16: error: `boost_budget`: there is no / in it; write BUDGET/PERIOD",
        ),
        (
            "boost_nice = -5\nboost_budget = 20",
            "f:6:16: error: `boost_budget`: this is a number, it must be a text: BUDGET/PERIOD",
        ),
        (
            "boost_nice = -5\nboost_budget = \"2s/1s\"",
            "f:6:16: error: `boost_budget`: the budget 2s is longer than its period 1s",
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
            "name = \"a\"\nlink = \"blue*/tap0\"",
            "f:6:8: error: `link`: `blue*/tap0`: a * stands for text in DEV only",
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
    let ports: Vec<String> = (40_000..40_200).map(|port| port.to_string()).collect();
    let many = format!("profile = \"http\"\nports = [{}]", ports.join(", "));
    let error = "f:6:9: error: `ports`: 200 ports are too many for a profile";
    each(&[(&many, error)], vm);
}
