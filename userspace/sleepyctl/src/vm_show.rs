// SPDX-License-Identifier: GPL-2.0-only

//! `vm show`

use procfs::process::Process;
use serde::Serialize;
use sleepy_uapi::{VM_GROUP_FOREIGN, VM_GROUP_LEFT, VmGet, VmLink, VmRule};

use crate::cgroup::{Group, Hierarchy};
use crate::device::{Device, gone, rule_text, text, vm_name};
use crate::error::Result;
use crate::events::Set;
use crate::histogram::Summary;
use crate::host::{self, Limit};
use crate::lever::lever_text;
use crate::netns::{self, Netns};
use crate::output::{Output, hang};
use crate::policy::{self, PolicyJson};
use crate::rule::{Origin, class_name, direction_name};
use crate::time::short;
use crate::vcpus::{self, VcpuJson};
use crate::vm_list::state_name;

#[derive(Serialize)]
struct Body {
    vm: VmJson,
}

#[derive(Serialize)]
struct VmJson {
    id: u32,
    name: String,
    pid: u32,
    start_time: u64,
    state: String,
    in_flight: u32,
    calls: u32,
    rules: Vec<RuleJson>,
    lost_links: u32,
    policy: PolicyJson,
    cgroup: Option<GroupJson>,
    /// From what wakes it to the effect; nothing with `observe`.
    effect_ns: Summary,
    limits: Vec<Limit>,
    vcpus: Vec<VcpuJson>,
    links: Vec<LinkJson>,
}

/// The control group that the lever moves.
#[derive(Serialize)]
struct GroupJson {
    inode: u64,
    /// Its name; none if it is not to be found any more.
    name: Option<String>,
    path: Option<String>,
    /// An administrator has changed its weight meanwhile.
    foreign: bool,
    /// A vCPU thread is in another one.
    left: bool,
}

impl GroupJson {
    fn of(vm: &VmGet) -> Option<Self> {
        if vm.group == 0 {
            return None;
        }
        let group = Hierarchy::here()
            .ok()
            .and_then(|all| all.with_inode(vm.group));
        let parts = |group: Group| (group.name, group.path.display().to_string());
        let (name, path) = group.map(parts).unzip();
        Some(Self {
            inode: vm.group,
            name,
            path,
            foreign: vm.flags_out & VM_GROUP_FOREIGN != 0,
            left: vm.flags_out & VM_GROUP_LEFT != 0,
        })
    }

    /// Which it is, and where an administrator's change has won.
    fn lines(&self, vm: &str) -> Vec<String> {
        let mut lines = vec![match &self.path {
            Some(path) => path.clone(),
            None => format!("inode {}, which is removed or not mounted here", self.inode),
        }];
        if self.foreign {
            lines.push("its weight was set by hand: left alone".to_string());
        }
        if self.left {
            lines.push(format!(
                "a vCPU thread was moved to another one, which is left alone; to use that one: \
                 `sleepyctl vm set {vm} --lever cgroup`"
            ));
        }
        lines
    }
}

#[derive(Serialize)]
struct LinkJson {
    name: String,
    ifindex: u32,
    netns: u64,
    netns_name: Option<String>,
}

#[derive(Serialize)]
struct RuleJson {
    class: String,
    direction: &'static str,
    /// Who has written it; none if another program than sleepyctl.
    origin: Option<&'static str>,
    text: String,
    prog_id: Option<u32>,
}

impl From<&VmRule> for RuleJson {
    fn from(rule: &VmRule) -> Self {
        Self {
            class: class_name(rule.class),
            direction: direction_name(rule.direction),
            origin: Origin::of_tag(rule.tag).map(Origin::name),
            text: rule_text(rule),
            prog_id: (rule.prog_id != 0).then_some(rule.prog_id),
        }
    }
}

/// Runs it.
pub fn run(output: Output, name: &str) -> Result<()> {
    let device = Device::open()?;
    let vms = device.named(&[name.to_string()])?;
    let vm = &vms[0];
    let gone = || gone(vm);
    let vcpus = device.vcpus(vm)?.ok_or_else(gone)?;
    let rules = device.rules(vm)?.ok_or_else(gone)?;
    let links = device.links(vm)?.ok_or_else(gone)?;
    let stats = device.stats(vm)?.ok_or_else(gone)?;
    let names = netns::names();
    let link = |link: &VmLink| LinkJson {
        name: text(&link.name),
        ifindex: link.ifindex,
        netns: link.netns,
        netns_name: names.get(&link.netns).cloned(),
    };
    let own = Netns::own().map(|netns| netns.inode()).ok();
    let body = Body {
        vm: VmJson {
            id: vm.id,
            name: vm_name(vm),
            pid: vm.pid,
            start_time: vm.start_time,
            state: state_name(vm.state),
            in_flight: vm.in_flight,
            calls: vm.calls,
            rules: rules.iter().map(RuleJson::from).collect(),
            lost_links: vm.lost_links,
            policy: PolicyJson::from(&vm.policy),
            cgroup: GroupJson::of(vm),
            effect_ns: Summary::from(&stats.effect),
            limits: host::limits(),
            vcpus: vcpus.iter().map(VcpuJson::from).collect(),
            links: links.iter().map(link).collect(),
        },
    };
    output.print(&body, || human(vm, &body.vm, own))
}

fn human(vm: &VmGet, json: &VmJson, own_netns: Option<u64>) -> String {
    let in_flight = match json.in_flight {
        0 => "nothing in flight".to_string(),
        1 => "1 flow in flight".to_string(),
        more => format!("{more} flows in flight"),
    };
    let calls = match json.calls {
        0 => String::new(),
        1 => ", waits for 1 answer".to_string(),
        more => format!(", waits for {more} answers"),
    };
    let comm = i32::try_from(json.pid)
        .ok()
        .and_then(|pid| Process::new(pid).ok()?.stat().ok());
    let comm = comm
        .map(|stat| format!(" ({})", stat.comm))
        .unwrap_or_default();
    let mut out = format!(
        "{} (id {}): {}, {in_flight}{calls}\n\n",
        json.name, json.id, json.state
    );
    let mut put = |name: &str, text: &str, break_after: &str| {
        out += &hang(&format!("  {name:<9}"), text, break_after);
    };
    put("process", &format!("{}{comm}", json.pid), " ");
    put("lever", &lever_text(&vm.policy), " ");
    let cgroup = json.cgroup.iter().flat_map(|group| group.lines(&json.name));
    for (i, line) in cgroup.enumerate() {
        put(if i == 0 { "cgroup" } else { "" }, &line, " ");
    }
    if let Some(text) = effect_text(&json.effect_ns) {
        put("effect", &text, " ");
    }
    put("times", &policy::times_text(&vm.policy), " ");
    put(
        "sleep on",
        &policy::events_text(&vm.policy, Set::SleepOn),
        " ",
    );
    put(
        "wake on",
        &policy::events_text(&vm.policy, Set::WakeOn),
        " ",
    );
    for (i, line) in rule_lines(&json.rules).iter().enumerate() {
        // A filter stays in one line, to be copied.
        put(if i == 0 { "rules" } else { "" }, line, "\n");
    }
    for (i, link) in json.links.iter().enumerate() {
        let text = link_text(link, own_netns);
        put(if i == 0 { "links" } else { "" }, &text, " ");
    }
    if json.links.is_empty() && json.lost_links == 0 {
        put("links", "none", " ");
    }
    if json.lost_links > 0 {
        let lost = json.lost_links;
        let text = format!("{lost} lost: the VM is kept awake; remove and add it again");
        put("", &text, " ");
    }
    for note in json.limits.iter().filter_map(|l| l.note(vm.policy.wake_on)) {
        put("", &note, " ");
    }
    out.push('\n');
    out.push_str(&vcpus::table(&json.vcpus));
    out
}

/// How long the lever took to give weight back, if it has.
fn effect_text(effect: &Summary) -> Option<String> {
    let time = |time: Option<u64>| time.map_or_else(|| "-".to_string(), short);
    (effect.count > 0).then(|| {
        format!(
            "p50 {}, p99 {}, max {} after a wake-up ({} of them)",
            time(effect.p50),
            time(effect.p99),
            time(effect.max),
            effect.count
        )
    })
}

/// The user's rules, a line each, and how many came with sleepyctl.
fn rule_lines(rules: &[RuleJson]) -> Vec<String> {
    let came_with = |origin: Origin| {
        let is_of = |rule: &&RuleJson| rule.origin == Some(origin.name());
        rules.iter().filter(is_of).count()
    };
    let (tcp, noise) = (came_with(Origin::Tcp), came_with(Origin::Noise));
    let own = rules.iter().filter(|rule| {
        let built_in = [Origin::Tcp.name(), Origin::Noise.name()];
        rule.origin.is_none_or(|origin| !built_in.contains(&origin))
    });
    let line = |rule: &RuleJson| {
        let program = rule.prog_id.map(|id| format!(" (program {id})"));
        format!(
            "{:<8} {:<7}  {}{}",
            rule.class,
            rule.direction,
            rule.text,
            program.unwrap_or_default()
        )
    };
    let mut lines: Vec<String> = own.map(line).collect();
    let counts = [(tcp, "for TCP"), (noise, "for noise")];
    let built_in: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    match (lines.is_empty(), built_in.is_empty()) {
        (true, true) => lines.push("none".to_string()),
        (false, false) => lines.push(format!("and {}", built_in.join(", "))),
        (true, false) => lines.push(built_in.join(", ")),
        (false, true) => {}
    }
    lines
}

fn link_text(link: &LinkJson, own_netns: Option<u64>) -> String {
    let netns = match &link.netns_name {
        _ if own_netns == Some(link.netns) => String::new(),
        Some(name) => format!(" in namespace {name}"),
        None => format!(" in namespace net:[{}]", link.netns),
    };
    format!("{}{netns} (index {})", link.name, link.ifindex)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sleepy_uapi::{POLICY_BOOST, Vcpu};

    fn rule(origin: Origin, text: &str) -> RuleJson {
        RuleJson {
            class: "request".to_string(),
            direction: "to-vm",
            origin: Some(origin.name()),
            text: text.to_string(),
            prog_id: None,
        }
    }

    #[test]
    fn view_fits_80_columns() {
        let mut effect = sleepy_uapi::Histogram::default();
        effect.buckets[40] = 5;
        let policy = sleepy_uapi::Policy {
            boost_nice: -20,
            boost_budget: 20_000_000,
            boost_period: 100_000_000,
            flags: POLICY_BOOST,
            lever: sleepy_uapi::LEVER_PARK,
            ..policy::default()
        };
        let vm = VmGet {
            policy,
            ..VmGet::default()
        };
        let json = VmJson {
            id: 7,
            name: "function-a".to_string(),
            pid: 1,
            start_time: 0,
            state: "sleepy".to_string(),
            in_flight: 0,
            calls: 1,
            rules: vec![
                rule(Origin::Tcp, ""),
                rule(Origin::User, "tcp dst port 80"),
                rule(Origin::Noise, ""),
            ],
            lost_links: 1,
            policy: PolicyJson::from(&policy),
            limits: Vec::new(),
            vcpus: vec![VcpuJson::from(&Vcpu::default())],
            cgroup: Some(GroupJson {
                inode: 7,
                name: Some("/m/a".to_string()),
                path: Some("/sys/fs/cgroup/m/a".into()),
                foreign: true,
                left: true,
            }),
            effect_ns: Summary::from(&effect),
            links: vec![
                LinkJson {
                    name: "tap0".to_string(),
                    ifindex: 5,
                    netns: 1,
                    netns_name: None,
                },
                LinkJson {
                    name: "tap1".to_string(),
                    ifindex: 6,
                    netns: 2,
                    netns_name: Some("blue".to_string()),
                },
            ],
        };
        let text = human(&vm, &json, Some(1));
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        assert!(text.contains("links    tap0 (index 5)\n"), "{text}");
        assert!(
            text.contains("         tap1 in namespace blue (index 6)\n"),
            "{text}"
        );
        assert!(text.contains("1 lost"), "{text}");
        assert!(text.contains("  cgroup   /sys/fs/cgroup/m/a\n"), "{text}");
        assert!(
            text.contains("         its weight was set by hand: left alone\n"),
            "{text}"
        );
        assert!(text.contains("  effect   p50 "), "{text}");
        assert!(text.contains("waits for 1 answer"), "{text}");
        assert!(
            text.contains("  rules    request  to-vm    tcp dst port 80\n           and 1 for TCP, 1 for noise\n"),
            "{text}"
        );
    }
}
