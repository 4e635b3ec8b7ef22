// SPDX-License-Identifier: GPL-2.0-only

//! `probe`: which levers work here, and why.

use serde::Serialize;
use sleepy_uapi::{Info, LEVER_OBSERVE, Policy, VmGet};

use crate::cgroup::own::Others;
use crate::cli::ProbeArgs;
use crate::device::{Device, vm_name};
use crate::error::{Error, Exit, Result};
use crate::events::Set;
use crate::lever::{is_auto, lever_names, shown};
use crate::output::{Output, hang};
use crate::vmm::Vmm;
use crate::wanted::virtual_machines;

use facts::Facts;
use host::Host;
use levers::{Verdict, choose, of_host, verdicts};

pub mod facts;
mod find;
pub mod host;
pub mod levers;
pub mod machine;
pub mod survey;

pub use levers::{Choice, Futile};
pub use machine::Machine;
pub use survey::Survey;

#[derive(Serialize)]
struct Body {
    probe: Probe,
}

#[derive(Serialize)]
struct Probe {
    host: HostJson,
    vms: Vec<VmJson>,
}

#[derive(Serialize)]
struct HostJson {
    #[serde(flatten)]
    host: Host,
    levers: Vec<Verdict>,
    /// Those of the loaded module; none if none is loaded.
    module_levers: Option<Vec<String>>,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct VmJson {
    /// None if sleepy does not look after it.
    name: Option<String>,
    pid: i32,
    #[serde(skip)]
    label: String,
    /// The lever it has.
    lever: Option<String>,
    /// The threads that were looked at, and whether they are its vCPUs'.
    threads: Vec<i32>,
    vcpus_known: bool,
    cgroup: String,
    #[serde(flatten)]
    about: About,
    /// What of that it has in common with others like it.
    #[serde(skip)]
    common: About,
}

/// What is said of a VM.
#[derive(PartialEq, Serialize)]
struct About {
    auto: Auto,
    levers: Vec<Verdict>,
    notes: Vec<String>,
}

#[derive(PartialEq, Serialize)]
struct Auto {
    lever: &'static str,
    why: String,
}

impl About {
    fn new(host: &Host, facts: &Facts) -> Self {
        let choice = choose(host, facts);
        Self {
            auto: Auto {
                lever: choice.lever.name(),
                why: choice.why,
            },
            levers: verdicts(host, facts),
            notes: facts.notes(),
        }
    }

    fn text(&self) -> String {
        let auto = format!("{}: {}", self.auto.lever, self.auto.why);
        lever_lines(&self.levers) + &hang("  auto     ", &auto, " ") + &note_lines(&self.notes)
    }
}

/// Runs it.
pub fn run(output: Output, args: &ProbeArgs) -> Result<()> {
    let device = match Device::open() {
        Ok(device) => Some(device),
        // A host can be looked at before.
        Err(error) if error.exit == Exit::NotLoaded && args.name.is_none() => None,
        Err(error) => return Err(error),
    };
    let (vms, info) = match &device {
        Some(device) => (device.vms()?, Some(device.info()?)),
        None => (Vec::new(), None),
    };
    let survey = Survey::take(device.as_ref())?;
    let machines: Vec<&Machine> = match (&args.name, args.pid) {
        (Some(name), _) => {
            let device = device.as_ref().ok_or_else(|| Error::failed("no module"))?;
            let vm = device.named(std::slice::from_ref(name))?[0];
            let gone = || crate::device::gone(&vm);
            vec![survey.with_id(vm.id).ok_or_else(gone)?]
        }
        (None, Some(pid)) => {
            let vmm = Vmm::open(pid)?;
            virtual_machines(&vmm, args.vm_fd)?;
            vec![survey.of_process(&vmm, args.vm_fd)?]
        }
        (None, None) => survey.added().collect(),
    };
    let vm = |machine: &&Machine| {
        let vm = vms.iter().find(|vm| machine.id == Some(vm.id));
        about(&survey.host, machine, &survey.facts(machine), vm)
    };
    let body = Body {
        probe: Probe {
            vms: machines.iter().map(vm).collect(),
            host: host_json(&survey.host, info.as_ref()),
        },
    };
    output.print(&body, || text(&body.probe))
}

fn host_json(host: &Host, info: Option<&Info>) -> HostJson {
    let mut notes = host.notes();
    match info {
        None => notes.push("the module is not loaded (`modprobe sleepy`)".to_string()),
        Some(info) => {
            for (set, shown) in [(Set::SleepOn, info.sleep_on), (Set::WakeOn, info.wake_on)] {
                let mut missing = set.all();
                missing.retain(|event| !set.names(shown).contains(event));
                if !missing.is_empty() {
                    notes.push(format!(
                        "this kernel does not show events of {}: {}; build it with CONFIG_KPROBES and \
                         CONFIG_TRACEPOINTS",
                        set.key(),
                        missing.join(", ")
                    ));
                }
            }
        }
    }
    HostJson {
        host: host.clone(),
        levers: of_host(host),
        module_levers: info.map(|info| lever_names(info.levers)),
        notes,
    }
}

fn about(host: &Host, machine: &Machine, facts: &Facts, vm: Option<&VmGet>) -> VmJson {
    VmJson {
        label: machine.label.clone(),
        name: vm.map(vm_name),
        pid: machine.pid,
        lever: vm.map(|vm| shown(&vm.policy)),
        threads: facts.threads.iter().map(|(tid, _)| *tid).collect(),
        vcpus_known: facts.are_vcpus,
        cgroup: facts.place.clone(),
        about: About::new(host, facts),
        common: About::new(host, &facts.common()),
    }
}

/// Whether it is to be said that a policy's lever does nothing: what sleepyctl has chosen has its reason already, and
/// from `observe` nobody expects more.
pub fn is_doubtful(policy: &Policy) -> bool {
    !is_auto(policy) && policy.lever != LEVER_OBSERVE
}

/// What is to be said of the lever that a VM has just been given, if it does nothing for it. What cannot be seen at
/// once is not said.
pub fn note(device: &Device, id: u32, policy: &Policy) -> Option<String> {
    if !is_doubtful(policy) {
        return None;
    }
    let survey = Survey::quick(device)?;
    let futile = survey.futile(survey.with_id(id)?, policy, "--lever auto")?;
    Some(format!("note: {}", futile.text))
}

fn lever_lines(levers: &[Verdict]) -> String {
    let line = |verdict: &Verdict| {
        let Verdict { lever, works, why } = verdict;
        hang(&format!("  {lever:<8} {:<10}  ", works.text()), why, " ")
    };
    levers.iter().map(line).collect()
}

fn note_lines(notes: &[String]) -> String {
    let line = |note: &String| hang("  note     ", note, " ");
    notes.iter().map(line).collect()
}

fn text(probe: &Probe) -> String {
    let version = match probe.host.host.cgroup {
        Some(version) => format!("cgroup version {version}"),
        None => "no cgroups for CPU time".to_string(),
    };
    let mut out = format!("host: {version}\n{}", lever_lines(&probe.host.levers));
    out += &note_lines(&probe.host.notes);
    for alike in alike(&probe.vms) {
        out += &format!("\n{}", section(&alike));
    }
    if probe.vms.is_empty() {
        out += "\nno VMs; `sleepyctl probe --pid PID` looks at one before it is added\n";
    }
    out
}

/// VMs of which the same is to be said, together.
fn alike(vms: &[VmJson]) -> Vec<Vec<&VmJson>> {
    let mut kinds: Vec<Vec<&VmJson>> = Vec::new();
    for vm in vms {
        let is_like =
            |kind: &&mut Vec<&VmJson>| (&kind[0].lever, &kind[0].common) == (&vm.lever, &vm.common);
        match kinds.iter_mut().find(is_like) {
            Some(kind) => kind.push(vm),
            None => kinds.push(vec![vm]),
        }
    }
    kinds
}

fn section(vms: &[&VmJson]) -> String {
    let lever = |vm: &VmJson| {
        let lever = vm.lever.as_ref();
        lever.map_or_else(String::new, |lever| format!(", lever {lever}"))
    };
    match vms {
        [vm] => {
            let who = match &vm.name {
                Some(name) => format!("{name} (process {})", vm.pid),
                None => vm.label.clone(),
            };
            format!("{who}{}\n{}", lever(vm), vm.about.text())
        }
        vms => {
            let head = format!("{} VMs{}: ", vms.len(), lever(vms[0]));
            let names = vms.iter().filter_map(|vm| vm.name.as_deref());
            hang(
                &head,
                &Others::new(names.clone().count(), names).to_string(),
                " ",
            ) + &vms[0].common.text()
        }
    }
}

#[cfg(test)]
mod tests {
    use sleepy_uapi::{LEVER_NICE, POLICY_AUTO};

    use super::*;
    use crate::cgroup::Limit;
    use crate::cgroup::own::Missing;

    fn facts() -> Facts {
        Facts {
            threads: vec![(4_194_301, 1), (4_194_302, 0)],
            are_vcpus: false,
            place: "/machine.slice/machine-qemu-function.scope".to_string(),
            by_session: false,
            beside: Others::default(),
            elsewhere: 250,
            own: Err(Missing::Shared(
                "/machine.slice".to_string(),
                Others::new(1, ["VM b"].into_iter()),
            )),
            halts_inside: None,
            has_cookie: true,
            limits: vec![Limit {
                group: "/machine.slice".to_string(),
                quota: 50_000_000,
                period: 100_000_000,
            }],
            shared: "/machine.slice".to_string(),
            in_common: false,
        }
    }

    fn host() -> Host {
        Host {
            autogroup: true,
            sched_ext: Some("scx_rusty".to_string()),
            halt_poll_ns: Some(200_000),
            cgroup: Some(2),
            ..Host::default()
        }
    }

    fn probe() -> Probe {
        let machine = Machine {
            label: "process 4194304 (qemu-system-x86)".to_string(),
            pid: 4_194_304,
            ..Machine::default()
        };
        Probe {
            vms: vec![about(&host(), &machine, &facts(), None)],
            host: host_json(&host(), Some(&Info::default())),
        }
    }

    /// One of many, which have a control group each.
    fn one_of_many(number: u32, lever: u32) -> VmJson {
        let mut vm = VmGet::default();
        let name = format!("function-{number}");
        vm.name[..name.len()].copy_from_slice(name.as_bytes());
        vm.policy.lever = lever;
        let facts = Facts {
            threads: vec![(number as i32, 0)],
            place: format!("/machine.slice/function-{number}"),
            ..facts()
        };
        about(&host(), &Machine::default(), &facts, Some(&vm))
    }

    #[test]
    fn nothing_is_said_of_what_was_chosen_or_only_measures() {
        let policy = |lever, flags| Policy {
            lever,
            flags,
            ..Policy::default()
        };
        for (policy, expected) in [
            (policy(LEVER_NICE, 0), true),
            (policy(LEVER_NICE, POLICY_AUTO), false),
            (policy(LEVER_OBSERVE, 0), false),
        ] {
            assert_eq!(is_doubtful(&policy), expected);
        }
    }

    #[test]
    fn vms_that_are_alike_are_shown_together() {
        let mut vms: Vec<VmJson> = (1..=50).map(|number| one_of_many(number, 1)).collect();
        vms.push(one_of_many(51, 4));
        let text = text(&Probe { vms, ..probe() });
        assert!(text.lines().count() < 60, "{text}");
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        for part in [
            "\n50 VMs, lever nice: function-1, function-2, function-3 and 47 more\n",
            "\nfunction-51 (process 0), lever park\n",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [
            "nice no effect between VMs: each is alone in its cgroup /machine.slice/* idle",
            "nice no effect between VMs: it is alone in its cgroup /machine.slice/function-51 idle",
        ] {
            assert!(words.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn view_fits_80_columns() {
        let text = text(&probe());
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        for part in [
            "host: cgroup version 2\n",
            "\nprocess 4194304 (qemu-system-x86)\n",
            "\n  nice     no effect   between VMs: it is alone in its cgroup",
            "\n  cgroup   impossible  it has no cgroup of its own",
            "\n  auto     observe: it has real-time",
            "\n  note     core scheduling",
            "may use 50ms of each 100ms",
            "CONFIG_KPROBES",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn json_has_what_scripts_rely_on() {
        let json = serde_json::to_value(Body { probe: probe() }).unwrap();
        for path in [
            "/probe/host/cgroup",
            "/probe/host/autogroup",
            "/probe/host/sched_ext",
            "/probe/host/halt_poll_ns",
            "/probe/host/haltpoll",
            "/probe/host/levers/0/why",
            "/probe/host/module_levers",
            "/probe/host/notes",
            "/probe/vms/0/name",
            "/probe/vms/0/pid",
            "/probe/vms/0/lever",
            "/probe/vms/0/threads/1",
            "/probe/vms/0/vcpus_known",
            "/probe/vms/0/cgroup",
            "/probe/vms/0/auto/lever",
            "/probe/vms/0/auto/why",
            "/probe/vms/0/levers/4/lever",
            "/probe/vms/0/levers/4/works",
            "/probe/vms/0/levers/4/why",
            "/probe/vms/0/notes/0",
        ] {
            assert!(json.pointer(path).is_some(), "{path}");
        }
        let works = json.pointer("/probe/vms/0/levers/1/works");
        assert_eq!(works.and_then(|v| v.as_str()), Some("no_effect"));
    }
}
