// SPDX-License-Identifier: GPL-2.0-only

use std::path::PathBuf;

use super::super::facts::Own;
use super::*;
use crate::cgroup::own::{Missing, Others};
use crate::cgroup::{Group, Limit};

/// One cgroup for each of four VMs.
fn facts() -> Facts {
    Facts {
        threads: vec![(7, 0), (8, 0)],
        are_vcpus: true,
        place: "/machine.slice/fc-7".to_string(),
        by_session: false,
        beside: Others::default(),
        elsewhere: 3,
        own: Ok(Own {
            group: Group {
                name: "/machine.slice/fc-7".to_string(),
                path: PathBuf::new(),
            },
            above: "/machine.slice".to_string(),
            rivals: 3,
            has_helpers: true,
            strangers: 0,
        }),
        halts_inside: Some(true),
        has_cookie: false,
        limits: Vec::new(),
        shared: "/machine.slice".to_string(),
        in_common: false,
    }
}

/// They share one with two others.
fn shared() -> Facts {
    let others = Others::new(2, ["VM b", "process 9 (qemu)"].into_iter());
    Facts {
        place: "/vms".to_string(),
        beside: others.clone(),
        elsewhere: 0,
        own: Err(Missing::Shared("/vms".to_string(), others)),
        shared: "/vms".to_string(),
        ..facts()
    }
}

/// The interrupt controller is its VMM's.
fn outside(facts: Facts) -> Facts {
    Facts {
        halts_inside: Some(false),
        ..facts
    }
}

fn with_rivals(rivals: usize) -> Facts {
    let mut facts = facts();
    facts.own.as_mut().unwrap().rivals = rivals;
    facts
}

fn alone() -> Facts {
    Facts {
        elsewhere: 0,
        ..with_rivals(0)
    }
}

fn judged(lever: Lever, facts: &Facts) -> (Works, String) {
    judge(lever, &Host::default(), facts)
}

#[test]
fn one_cgroup_for_each_vm() {
    let facts = facts();
    let (works, why) = judged(Lever::Nice, &facts);
    assert_eq!(
        format!("nice: {} {why}", works.text()),
        "nice: no effect between VMs: it is alone in its cgroup /machine.slice/fc-7"
    );
    assert_eq!(judged(Lever::Idle, &facts), (works, why));
    let (works, why) = judged(Lever::Cgroup, &facts);
    assert_eq!(works, Works::Yes);
    assert!(
        why.starts_with("/machine.slice/fc-7 counts in /machine.slice; its VMM's"),
        "{why}"
    );
    assert_eq!(judged(Lever::Park, &facts).0, Works::Yes);
}

#[test]
fn one_cgroup_for_all() {
    let (works, why) = judged(Lever::Nice, &shared());
    assert_eq!(works, Works::Yes);
    assert_eq!(why, "with VM b, process 9 (qemu), in its cgroup /vms");
    let (works, why) = judged(Lever::Cgroup, &shared());
    assert_eq!(works, Works::Impossible);
    assert!(
        why.contains("it shares /vms with VM b, process 9 (qemu);"),
        "{why}"
    );
    let some = Facts {
        elsewhere: 1,
        ..shared()
    };
    let (works, why) = judged(Lever::Nice, &some);
    assert_eq!(works, Works::Partly);
    assert!(
        why.ends_with("in its cgroup /vms; not with 1 more elsewhere"),
        "{why}"
    );
}

#[test]
fn what_is_common_to_vms_names_none_of_them() {
    let limits = |group: &str| {
        vec![Limit {
            group: group.to_string(),
            quota: 1_000_000,
            period: 2_000_000,
        }]
    };
    let of_own = Facts {
        limits: limits("/machine.slice/fc-7"),
        threads: vec![(7, 0), (8, 1)],
        ..facts()
    };
    let without = Facts {
        own: Err(Missing::Controller(
            "/machine.slice/fc-7".to_string(),
            "echo".to_string(),
        )),
        ..facts()
    };
    for (facts, own, common) in [
        (of_own, "fc-7", "/machine.slice/* counts in /machine.slice;"),
        (without, "fc-7", "its cgroup /machine.slice/* has no CPU"),
        (shared(), "VM b", "it shares /vms with 2 other VMs; start"),
    ] {
        let text = |facts: &Facts| {
            let verdicts = verdicts(&Host::default(), facts);
            let lines = verdicts.into_iter().map(|verdict| verdict.why);
            lines.chain(facts.notes()).collect::<Vec<_>>().join("\n")
        };
        assert!(text(&facts).contains(own), "{}", text(&facts));
        let text = text(&facts.common());
        assert!(!text.contains(own) && text.contains(common), "{text}");
        assert!(!text.contains("never touched: 8"), "{text}");
    }
}

#[test]
fn group_that_is_not_seen_decides_nothing() {
    let facts = Facts {
        own: Err(Missing::Unmounted("/../vms".to_string())),
        ..facts()
    };
    let (works, why) = judged(Lever::Nice, &facts);
    assert_eq!(works, Works::Partly);
    assert!(
        why.contains("if there are any: its cgroup /../vms is not mounted here"),
        "{why}"
    );
    assert_eq!(futile(Lever::Nice, &Host::default(), &facts, "AUTO"), None);
}

#[test]
fn autogroup_counts_by_session() {
    let facts = Facts {
        place: "/".to_string(),
        by_session: true,
        own: Err(Missing::Root),
        ..facts()
    };
    let (works, why) = judged(Lever::Nice, &facts);
    assert_eq!(works, Works::NoEffect);
    assert!(
        why.contains("it is alone in its session; autogroup makes") && why.contains("`sysctl "),
        "{why}"
    );
}

#[test]
fn nested_slices_hide_a_weight() {
    let (works, why) = judged(Lever::Cgroup, &with_rivals(0));
    assert_eq!(works, Works::NoEffect);
    assert_eq!(
        why,
        "between VMs: /machine.slice/fc-7 counts in /machine.slice, where no other VM is"
    );
    let (works, why) = judged(Lever::Cgroup, &with_rivals(1));
    assert_eq!(works, Works::Partly);
    assert!(why.contains("where 1 of 3 other VMs are;"), "{why}");
}

#[test]
fn sched_ext_has_the_last_word_but_for_park() {
    let host = Host {
        sched_ext: Some("rusty".to_string()),
        sched_ext_all: true,
        ..Host::default()
    };
    let works = |lever| judge(lever, &host, &facts()).0;
    assert_eq!(works(Lever::Cgroup), Works::Partly);
    assert_eq!(works(Lever::Nice), Works::NoEffect);
    assert_eq!(works(Lever::Park), Works::Yes);
    assert_eq!(choose(&host, &facts()).lever, Lever::Park);
}

#[test]
fn sched_ext_may_have_some_threads_alone() {
    let host = Host {
        sched_ext: Some("rusty".to_string()),
        ..Host::default()
    };
    let its = Facts {
        threads: vec![(7, 7)],
        ..facts()
    };
    assert_eq!(judge(Lever::Cgroup, &host, &facts()).0, Works::Yes);
    assert_eq!(judge(Lever::Cgroup, &host, &its).0, Works::Partly);
}

#[test]
fn host_has_a_line_for_each_lever() {
    let works = |host: &Host| of_host(host).iter().map(|v| v.works).collect::<Vec<_>>();
    assert_eq!(works(&Host::default()), [Works::Yes; 5]);
    let ext = Host {
        sched_ext: Some("rusty".to_string()),
        sched_ext_all: true,
        no_cgroup: Some("not mounted".to_string()),
        ..Host::default()
    };
    let (yes, part) = (Works::Yes, Works::Partly);
    assert_eq!(works(&ext), [yes, part, part, Works::Impossible, yes]);
}

/// The levers that the documentation names for `auto`, line by line.
fn documented() -> Vec<Lever> {
    const PAGE: &str = include_str!("../../../../../Documentation/levers.md");
    let (_, section) = PAGE.split_once("\n## How auto chooses\n").unwrap();
    let rows = section.lines().skip_while(|line| !line.starts_with("|---"));
    let rows = rows.skip(1).take_while(|line| line.starts_with('|'));
    let lever = |row: &str| row.rsplit('`').nth(1).map(Lever::of_name);
    rows.map(|row| lever(row).unwrap().unwrap()).collect()
}

#[test]
fn auto_is_what_its_documentation_says() {
    let threads = |threads: &[(i32, u32)]| Facts {
        threads: threads.to_vec(),
        ..facts()
    };
    let unknown = Facts {
        halts_inside: None,
        ..facts()
    };
    let of_process = Facts {
        are_vcpus: false,
        ..threads(&[(7, 0), (8, 0), (9, 1)])
    };
    let no_groups = Facts {
        own: Err(Missing::Hierarchy("not mounted".to_string())),
        ..facts()
    };
    let lines = documented();
    assert_eq!(lines.len(), 4);
    for (line, what, facts) in [
        (0, "a real-time thread", threads(&[(7, 0), (8, 1)])),
        (0, "a round-robin thread", threads(&[(7, 2)])),
        (0, "a deadline thread", threads(&[(7, 6), (8, 0)])),
        (0, "one of its process", of_process),
        (0, "the same, halts outside", outside(threads(&[(7, 1)]))),
        (1, "other policies", threads(&[(7, 3), (8, 5)])),
        (1, "KVM halts", facts()),
        (1, "KVM halts, shared", shared()),
        (1, "nothing says who halts", unknown),
        (2, "all others beside it", outside(facts())),
        (2, "some others beside it", outside(with_rivals(1))),
        (2, "no other VM yet", outside(alone())),
        (3, "others, none beside it", outside(with_rivals(0))),
        (3, "no group of its own", outside(shared())),
        (3, "no groups", outside(no_groups)),
    ] {
        let chosen = choose(&Host::default(), &facts).lever;
        assert_eq!(chosen, lines[line], "{what}");
    }
}

#[test]
fn auto_has_its_reason() {
    let why = |facts: &Facts| choose(&Host::default(), facts).to_string();
    let nested = why(&outside(with_rivals(0)));
    assert!(
        nested.starts_with("lever auto: nice: its VMM has the interrupt controller"),
        "{nested}"
    );
    assert!(
        nested.contains("would end a park; no effect between VMs"),
        "{nested}"
    );
    let unknown = Facts {
        halts_inside: None,
        ..facts()
    };
    assert!(why(&unknown).contains("if KVM itself halts vCPUs"));
    let (works, _) = judged(Lever::Park, &outside(facts()));
    assert_eq!(works, Works::Partly, "a signal ends a park");
}

#[test]
fn lever_that_does_nothing_has_a_remedy() {
    let told = |lever, facts: &Facts| {
        let futile = futile(lever, &Host::default(), facts, "AUTO");
        futile.map(|futile| futile.text)
    };
    let ends = |lever, facts: &Facts, end: &str| {
        let text = told(lever, facts).unwrap_or_default();
        assert!(text.ends_with(end), "{text}");
    };
    let takes_park = "alone in its cgroup /machine.slice/fc-7; `AUTO` takes park";
    ends(Lever::Nice, &facts(), takes_park);
    ends(Lever::Idle, &facts(), takes_park);
    ends(Lever::Nice, &outside(facts()), "; `AUTO` takes cgroup");
    ends(
        Lever::Cgroup,
        &with_rivals(0),
        "no other VM is; `AUTO` takes park",
    );
    // Here auto would do no better.
    let nowhere = "; `sleepyctl probe` says what works";
    ends(Lever::Nice, &outside(with_rivals(0)), nowhere);
    let real_time = Facts {
        threads: vec![(7, 1)],
        ..alone()
    };
    ends(Lever::Park, &real_time, nowhere);
    assert_eq!(told(Lever::Observe, &real_time), None);
    assert_eq!(told(Lever::Nice, &shared()), None);
    assert_eq!(told(Lever::Cgroup, &facts()), None);
    assert_eq!(told(Lever::Nice, &alone()), None, "others may come");
    assert_eq!(told(Lever::Cgroup, &shared()), None, "that is refused");
}

#[test]
fn real_time_threads_are_not_touched() {
    let facts = Facts {
        threads: vec![(7, 1), (8, 6)],
        ..facts()
    };
    for verdict in verdicts(&Host::default(), &facts) {
        let expected = if verdict.lever == "observe" {
            Works::Yes
        } else {
            Works::NoEffect
        };
        assert_eq!(verdict.works, expected, "{}", verdict.lever);
    }
    let some = Facts {
        threads: vec![(7, 1), (8, 0)],
        ..facts
    };
    assert!(!some.is_untouchable());
    assert!(some.notes()[0].ends_with("never touched: 7"));
}
