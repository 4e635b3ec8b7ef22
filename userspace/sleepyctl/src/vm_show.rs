// SPDX-License-Identifier: GPL-2.0-only

//! `vm show`

use procfs::process::Process;
use serde::Serialize;
use sleepy_uapi::{
    VCPU_ATTACHED, VCPU_FOREIGN, VCPU_MOVED, VCPU_ON_CPU, Vcpu, VmGet, VmLink, VmRule,
};

use crate::device::{Device, gone, rule_text, text, vm_name};
use crate::error::Result;
use crate::events::Set;
use crate::host::{self, Limit};
use crate::netns::{self, Netns};
use crate::output::Align::{Left, Right};
use crate::output::{Output, Table};
use crate::policy::{self, PolicyJson};
use crate::rule::{Origin, class_name, direction_name};
use crate::time::short;
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
    limits: Vec<Limit>,
    vcpus: Vec<VcpuJson>,
    links: Vec<LinkJson>,
}

#[derive(Serialize)]
struct VcpuJson {
    index: u32,
    tid: u32,
    nice: i32,
    baseline: i32,
    attached: bool,
    on_cpu: bool,
    foreign: bool,
    moved: bool,
    oncpu_ns: u64,
    preempted: u64,
    halted: u64,
    blocked: u64,
    yielded: u64,
}

impl From<&Vcpu> for VcpuJson {
    fn from(vcpu: &Vcpu) -> Self {
        let has = |flag| vcpu.flags & flag != 0;
        Self {
            index: vcpu.index,
            tid: vcpu.tid,
            nice: vcpu.nice,
            baseline: vcpu.baseline,
            attached: has(VCPU_ATTACHED),
            on_cpu: has(VCPU_ON_CPU),
            foreign: has(VCPU_FOREIGN),
            moved: has(VCPU_MOVED),
            oncpu_ns: vcpu.oncpu,
            preempted: vcpu.preempted,
            halted: vcpu.halted,
            blocked: vcpu.blocked,
            yielded: vcpu.yielded,
        }
    }
}

impl VcpuJson {
    /// What is worth saying of it.
    fn remark(&self) -> &'static str {
        match (self.attached, self.foreign, self.on_cpu) {
            (false, ..) => "not seen running yet",
            (_, true, _) => "nice set by hand: left alone",
            (_, _, true) => "running",
            _ => "",
        }
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
    let mut field = |name: &str, value: &str| out.push_str(&format!("  {name:<9}{value}\n"));
    field("process", &format!("{}{comm}", json.pid));
    field("lever", &policy::lever_text(&vm.policy));
    field("times", &policy::times_text(&vm.policy));
    field("sleep on", &policy::events_text(&vm.policy, Set::SleepOn));
    field("wake on", &policy::events_text(&vm.policy, Set::WakeOn));
    for (i, line) in rule_lines(&json.rules).iter().enumerate() {
        field(if i == 0 { "rules" } else { "" }, line);
    }
    for (i, link) in json.links.iter().enumerate() {
        field(
            if i == 0 { "links" } else { "" },
            &link_text(link, own_netns),
        );
    }
    if json.links.is_empty() && json.lost_links == 0 {
        field("links", "none");
    }
    if json.lost_links > 0 {
        field(
            "",
            &format!(
                "{} lost: the VM is kept awake; remove and add it again",
                json.lost_links
            ),
        );
    }
    for note in json.limits.iter().filter_map(|l| l.note(vm.policy.wake_on)) {
        field("", &note);
    }
    out.push('\n');
    out.push_str(&vcpu_table(&json.vcpus));
    out
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

fn vcpu_table(vcpus: &[VcpuJson]) -> String {
    if vcpus.is_empty() {
        return "  no vCPUs yet\n".to_string();
    }
    let mut table = Table::new(&[
        ("VCPU", Right),
        ("THREAD", Right),
        ("NICE", Right),
        ("BASELINE", Right),
        ("ON CPU", Right),
        ("PREEMPTED", Right),
        ("HALTED", Right),
        ("BLOCKED", Right),
        ("", Left),
    ]);
    for vcpu in vcpus {
        table.row(vec![
            vcpu.index.to_string(),
            vcpu.tid.to_string(),
            vcpu.nice.to_string(),
            vcpu.baseline.to_string(),
            short(vcpu.oncpu_ns),
            vcpu.preempted.to_string(),
            vcpu.halted.to_string(),
            vcpu.blocked.to_string(),
            vcpu.remark().to_string(),
        ]);
    }
    table.text("  ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use sleepy_uapi::POLICY_BOOST;

    fn vcpu(index: u32, flags: u32) -> VcpuJson {
        let busy = Vcpu {
            index,
            tid: 4_194_304,
            nice: 19,
            baseline: -20,
            flags,
            oncpu: 59_900_000_000,
            preempted: 1_234_567,
            halted: 1_234_567,
            blocked: 1_234_567,
            yielded: 1_234_567,
            ..Vcpu::default()
        };
        VcpuJson::from(&busy)
    }

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
        let policy = sleepy_uapi::Policy {
            boost_nice: -20,
            flags: POLICY_BOOST,
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
            vcpus: vec![
                vcpu(0, VCPU_ATTACHED | VCPU_MOVED | VCPU_ON_CPU),
                vcpu(127, VCPU_ATTACHED),
            ],
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
        assert!(text.contains("waits for 1 answer"), "{text}");
        assert!(
            text.contains("  rules    request  to-vm    tcp dst port 80\n           and 1 for TCP, 1 for noise\n"),
            "{text}"
        );
    }

    #[test]
    fn flags_have_words() {
        assert_eq!(vcpu(0, 0).remark(), "not seen running yet");
        assert_eq!(
            vcpu(0, VCPU_ATTACHED | VCPU_ON_CPU | VCPU_FOREIGN).remark(),
            "nice set by hand: left alone"
        );
        assert_eq!(vcpu(0, VCPU_ATTACHED | VCPU_ON_CPU).remark(), "running");
        assert_eq!(vcpu(0, VCPU_ATTACHED).remark(), "");
    }
}
