// SPDX-License-Identifier: GPL-2.0-only

//! `vm list`, and `sleepyctl` without a command.

use serde::Serialize;
use sleepy_uapi::{Info, STATE_AWAKE, STATE_SLEEPY, VmGet};

use crate::device::{Device, vm_name};
use crate::error::Result;
use crate::events::Set;
use crate::host::{self, Limit};
use crate::lever::{is_auto, lever_name, lever_names, shown};
use crate::output::Align::{Left, Right};
use crate::output::{Output, Table};

#[derive(Serialize)]
struct Body {
    #[serde(skip_serializing_if = "Option::is_none")]
    module: Option<Module>,
    vms: Vec<Vm>,
}

#[derive(Serialize)]
struct Vm {
    id: u32,
    name: String,
    pid: u32,
    state: String,
    in_flight: u32,
    lever: String,
    /// sleepyctl has chosen the lever.
    auto: bool,
    #[serde(skip)]
    shown: String,
    vcpus: u32,
    links: u32,
    lost_links: u32,
}

impl From<&VmGet> for Vm {
    fn from(vm: &VmGet) -> Self {
        Self {
            id: vm.id,
            name: vm_name(vm),
            pid: vm.pid,
            state: state_name(vm.state),
            in_flight: vm.in_flight,
            lever: lever_name(vm.policy.lever),
            auto: is_auto(&vm.policy),
            shown: shown(&vm.policy),
            vcpus: vm.n_vcpus,
            links: vm.n_links,
            lost_links: vm.lost_links,
        }
    }
}

#[derive(Serialize)]
struct Module {
    abi: u32,
    version: Option<String>,
    levers: Vec<String>,
    sleep_on: Vec<&'static str>,
    wake_on: Vec<&'static str>,
    limits: Vec<Limit>,
    vms: u32,
    max_vms: u32,
    max_links: u32,
    max_rules: u32,
    max_insns: u32,
}

impl From<&Info> for Module {
    fn from(info: &Info) -> Self {
        let version = std::fs::read_to_string("/sys/module/sleepy/version").ok();
        Self {
            abi: info.version,
            version: version.map(|text| text.trim().to_string()),
            levers: lever_names(info.levers),
            sleep_on: Set::SleepOn.names(info.sleep_on),
            wake_on: Set::WakeOn.names(info.wake_on),
            limits: host::limits(),
            vms: info.vms,
            max_vms: info.max_vms,
            max_links: info.max_links,
            max_rules: info.max_rules,
            max_insns: info.max_insns,
        }
    }
}

impl Module {
    fn text(&self) -> String {
        let version = self
            .version
            .as_ref()
            .map(|version| format!(" {version}"))
            .unwrap_or_default();
        let vms = match self.vms {
            0 => "no VMs".to_string(),
            1 => "1 VM".to_string(),
            more => format!("{more} VMs"),
        };
        let mut out = format!(
            "sleepy{version} (ABI {}, levers {}): {vms}\n",
            self.abi,
            self.levers.join(", ")
        );
        for (set, shown) in [(Set::SleepOn, &self.sleep_on), (Set::WakeOn, &self.wake_on)] {
            let mut missing = set.all();
            missing.retain(|event| !shown.contains(event));
            if !missing.is_empty() {
                let key = set.key();
                out += &format!("not seen ({key}): {}\n", missing.join(", "));
            }
        }
        out
    }

    /// What this host may hide from VMs that wake on these events.
    fn notes(&self, wake_on: u32) -> String {
        let notes = self.limits.iter().filter_map(|limit| limit.note(wake_on));
        let notes: String = notes.map(|note| note + "\n").collect();
        if notes.is_empty() {
            notes
        } else {
            format!("\n{notes}")
        }
    }
}

/// Runs `vm list`.
pub fn run(output: Output) -> Result<()> {
    print(output, &Device::open()?.vms()?, None)
}

/// Runs `sleepyctl`.
pub fn run_with_module(output: Output) -> Result<()> {
    let device = Device::open()?;
    print(output, &device.vms()?, Some(Module::from(&device.info()?)))
}

fn print(output: Output, vms: &[VmGet], module: Option<Module>) -> Result<()> {
    let body = Body {
        module,
        vms: vms.iter().map(Vm::from).collect(),
    };
    let wake_on = vms.iter().fold(0, |bits, vm| bits | vm.policy.wake_on);
    output.print(&body, || match &body.module {
        None if body.vms.is_empty() => {
            "no VMs; `sleepyctl vm add --help` shows how to add one\n".to_string()
        }
        None => table(&body.vms),
        Some(module) if body.vms.is_empty() => module.text(),
        Some(module) => {
            let notes = module.notes(wake_on);
            format!("{}\n{}{notes}", module.text(), table(&body.vms))
        }
    })
}

fn table(vms: &[Vm]) -> String {
    let mut table = Table::new(&[
        ("NAME", Left),
        ("ID", Right),
        ("PID", Right),
        ("STATE", Left),
        ("FLIGHT", Right),
        ("LEVER", Left),
        ("VCPU", Right),
        ("LINK", Right),
        ("", Left),
    ]);
    for vm in vms {
        let lost = if vm.lost_links > 0 {
            format!("{} lost", vm.lost_links)
        } else {
            String::new()
        };
        table.row(vec![
            vm.name.clone(),
            vm.id.to_string(),
            vm.pid.to_string(),
            vm.state.clone(),
            vm.in_flight.to_string(),
            vm.shown.clone(),
            vm.vcpus.to_string(),
            vm.links.to_string(),
            lost,
        ]);
    }
    table.text("")
}

/// A state's name.
pub fn state_name(state: u32) -> String {
    match state {
        STATE_AWAKE => "awake".to_string(),
        STATE_SLEEPY => "sleepy".to_string(),
        other => format!("state {other}"),
    }
}

/// The VM of a process.
pub fn name_of_pid(vms: &[VmGet], pid: u32) -> Option<String> {
    vms.iter().find(|vm| vm.pid == pid).map(vm_name)
}

#[cfg(test)]
mod tests {
    use sleepy_uapi::{LEVER_GROUP, POLICY_AUTO, Policy};

    use super::*;

    #[test]
    fn events_that_are_not_shown_are_named() {
        let all = Info {
            sleep_on: sleepy_uapi::SLEEP_EVENTS,
            wake_on: sleepy_uapi::WAKE_EVENTS,
            ..Info::default()
        };
        assert_eq!(Module::from(&all).text().lines().count(), 1);
        let text = Module::from(&Info { wake_on: 0, ..all }).text();
        let expected = "(wake_on): request, packet, interrupt, timer, ipi, doorbell, hint\n";
        assert!(text.ends_with(expected), "{text}");
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    }

    #[test]
    fn list_fits_80_columns() {
        let vm = VmGet {
            id: 16384,
            name: *b"a-name-of-24-letters-fit\0\0\0\0\0\0\0\0",
            pid: 4_194_304,
            state: STATE_SLEEPY,
            in_flight: 64,
            n_vcpus: 128,
            n_links: 16,
            ..VmGet::default()
        };
        let text = table(&[Vm::from(&vm)]);
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        let auto = VmGet {
            name: *b"a-name-of-20-letters\0\0\0\0\0\0\0\0\0\0\0\0",
            policy: Policy {
                lever: LEVER_GROUP,
                flags: POLICY_AUTO,
                ..Policy::default()
            },
            ..vm
        };
        let text = table(&[Vm::from(&auto)]);
        assert!(text.contains("  auto (cgroup)  "), "{text}");
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        let lost = VmGet {
            lost_links: 1,
            ..vm
        };
        assert!(table(&[Vm::from(&lost)]).contains("16  1 lost\n"));
    }
}
