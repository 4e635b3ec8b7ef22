// SPDX-License-Identifier: GPL-2.0-only

//! What has to be done so that the host is as manifests say. Nothing is done here.

use std::cell::LazyCell;
use std::collections::{HashMap, HashSet};

use sleepy_uapi::{Info, VmGet, VmLink, VmRule};

use super::diff::{self, Change};
use crate::device::{Device, text, vm_name};
use crate::error::{Error, Result};
use crate::filter::Compiler;
use crate::lever::shown;
use crate::link::{self, Found};
use crate::manifest::report::{Report, Spot};
use crate::manifest::vm::{Vm, check_name};
use crate::probe::{Futile, Survey};
use crate::processes::Processes;
use crate::vmm::Vmm;
use crate::wanted::{Wanted, check_events};

mod lever;

/// What is to be done with one VM.
pub struct Step {
    /// How it shall be.
    pub wanted: Wanted,
    /// What to do.
    pub action: Action,
    /// What is different then.
    pub changes: Vec<Change>,
    /// It is one of many, and may end at any time.
    pub may_end: bool,
}

/// What to do with a VM that the manifests name.
pub enum Action {
    /// It is not there yet.
    Add,
    /// Other policy or rules.
    Change(VmGet, Parts),
    /// Another process or other links: it is removed, and added again.
    Replace(VmGet),
    /// It is as it shall be.
    Keep,
}

/// What of a VM changes.
#[derive(Clone, Copy)]
pub struct Parts {
    /// Its policy.
    pub policy: bool,
    /// Its rules.
    pub rules: bool,
}

/// Everything that is to be done.
pub struct Plan {
    /// VMs that are not wanted any more.
    pub remove: Vec<VmGet>,
    /// All that are.
    pub steps: Vec<Step>,
}

/// A VM as it is.
struct Running {
    vm: VmGet,
    links: Vec<VmLink>,
    rules: Vec<VmRule>,
}

/// One VM of a manifest, and its process.
struct Target<'a> {
    vm: &'a Vm,
    name: String,
    pid: i32,
    /// When its process started, if that was looked at.
    start_time: Option<u64>,
}

impl Target<'_> {
    fn has_ended(&self) -> bool {
        match Vmm::open(self.pid) {
            Ok(vmm) => self.start_time.is_some_and(|time| time != vmm.start_time()),
            Err(_) => Vmm::is_gone(self.pid),
        }
    }
}

/// Makes the plan; what is wrong goes into the report.
pub fn make(device: &Device, vms: &[Vm], prune: bool, report: &mut Report) -> Result<Plan> {
    // First those that are there: one that somebody adds after that is none that nobody wants.
    let present = device.vms()?;
    let processes = Processes::scan(vms.iter().map(|vm| &vm.selector.value))?;
    let targets = targets(vms, &processes, report);
    let names: HashSet<&str> = targets.iter().map(|target| target.name.as_str()).collect();
    let mut running = HashMap::new();
    let (mut remove, mut owners) = (Vec::new(), HashMap::new());
    for vm in present {
        let name = vm_name(&vm);
        // One that is gone meanwhile was not there.
        let Some(links) = device.links(&vm)? else {
            continue;
        };
        if names.contains(name.as_str()) {
            let Some(rules) = device.rules(&vm)? else {
                continue;
            };
            running.insert(name, Running { vm, links, rules });
        } else if prune && vm.pid != 0 {
            // What cannot be seen would be taken for what nobody wants.
            let seen = processes.check_seen(vm.pid as i32);
            seen.map_err(|error| error.of(&format!("VM {name} may be wanted")))?;
            remove.push(vm);
        } else {
            let why = if vm.pid == 0 {
                "whose process is in another PID namespace"
            } else {
                "which the manifests do not name (see --prune)"
            };
            let keys = links.iter().map(|link| (link.netns, link.ifindex));
            owners.extend(keys.map(|key| (key, format!("VM {name}, {why}"))));
        }
    }
    let mut planner = Planner {
        info: device.info()?,
        survey: if vms.iter().any(|vm| Survey::is_needed(&vm.policy)) {
            Some(Survey::take(Some(device))?)
        } else {
            None
        },
        quick: LazyCell::new(Box::new(|| Survey::quick(device))),
        futile: Vec::new(),
        groupless: Vec::new(),
        running,
        owners,
        compiler: None,
        report,
    };
    let steps = targets.iter().filter_map(|target| planner.step(target));
    let steps = steps.collect();
    planner.judge_levers();
    Ok(Plan { remove, steps })
}

fn targets<'a>(vms: &'a [Vm], processes: &Processes, report: &mut Report) -> Vec<Target<'a>> {
    let mut targets: Vec<Target<'a>> = Vec::new();
    let (mut names, mut machines) = (HashSet::new(), HashMap::new());
    for vm in vms {
        let spot = vm.selector.spot;
        let found = match processes.find(&vm.selector.value, vm.each) {
            Ok(found) => found,
            Err(why) => {
                report.error(spot, why);
                continue;
            }
        };
        if found.is_empty() {
            let message = format!("{} matches no process now: no VM", vm.selector.value);
            report.warning(spot, message);
        }
        for found in found {
            let name = vm.name.value.replace("{}", &found.star);
            let pid = found.pid;
            if let Err(why) = check_name(&name) {
                let message = format!("process {pid}: the name would be `{name}`; {why}");
                report.error(vm.name.spot, message);
                continue;
            }
            if names.contains(&name) {
                report.error(vm.name.spot, format!("two VMs would be called `{name}`"));
                continue;
            }
            if let Some(other) = machines.get(&(pid, vm.vm_fd)) {
                let message = format!("process {pid} is that of `{other}` already");
                report.error(spot, message);
                continue;
            }
            names.insert(name.clone());
            machines.insert((pid, vm.vm_fd), name.clone());
            targets.push(Target {
                vm,
                name,
                pid,
                start_time: found.start_time,
            });
        }
    }
    targets
}

struct Planner<'a> {
    info: Info,
    /// For levers that depend on the host.
    survey: Option<Survey>,
    /// For what is said of others.
    quick: LazyCell<Option<Survey>, Box<dyn FnOnce() -> Option<Survey> + 'a>>,
    /// Levers that do nothing: in which table, and for which VM.
    futile: Vec<(Spot, String, Futile)>,
    /// Levers that need a group that is not there.
    groupless: Vec<(Spot, String, Futile)>,
    running: HashMap<String, Running>,
    /// Who has a link, or will have it.
    owners: HashMap<(u64, u32), String>,
    compiler: Option<Compiler>,
    report: &'a mut Report,
}

impl Planner<'_> {
    fn step(&mut self, target: &Target<'_>) -> Option<Step> {
        let (found, groupless) = (self.report.found(), self.groupless.len());
        let step = self.make_step(target);
        let Target { vm, name, pid, .. } = target;
        // It was there when we looked for it; one of many may end at any time, and nothing of that is a mistake.
        if step.is_none() && vm.each && target.has_ended() {
            self.report.forget(found);
            self.groupless.truncate(groupless);
            let own = format!("`{name}`");
            self.owners.retain(|_, owner| *owner != own);
            let message = format!("process {pid} has ended just now: no VM `{name}`");
            self.report.warning(vm.selector.spot, message);
        }
        step
    }

    fn make_step(&mut self, target: &Target<'_>) -> Option<Step> {
        let Target { vm, name, pid, .. } = target;
        let opened = Vmm::open(*pid).and_then(|vmm| match target.start_time {
            Some(time) if time != vmm.start_time() => Err(Error::failed(format!(
                "process {pid} has ended just now, and another one has its number"
            ))),
            _ => Ok(vmm),
        });
        let vmm = self.good(vm.selector.spot, opened)?;
        let links = self.links(vm, &vmm)?;
        self.claim(vm, name, &links)?;
        let mut wanted = Wanted {
            name: name.clone(),
            vmm,
            vm_fd: vm.vm_fd,
            links,
            policy: vm.policy,
            group: None,
            choice: None,
            rules: Vec::new(),
        };
        let checked = check_events(&self.info, &vm.policy)
            .and_then(|()| wanted.check_links(!vm.own_rules.is_empty(), vm.auto_link));
        self.good(vm.spot, checked)?;
        self.choose(vm, &mut wanted)?;

        let rules = vm.rules();
        let mut changes = Vec::new();
        let action = match self.running.get(name) {
            None => Action::Add,
            Some(old) => {
                changes.extend(changes_of_handle(old, &wanted));
                let replaced = !changes.is_empty();
                let policy = diff::policy(&old.vm.policy, &wanted.policy);
                let compared = diff::rules(&old.rules, &rules);
                let old = old.vm;
                let rules = self.good(vm.spot, compared)?;
                let parts = Parts {
                    policy: !policy.is_empty(),
                    rules: !rules.is_empty(),
                };
                changes.extend(policy.into_iter().chain(rules));
                match (replaced, changes.is_empty()) {
                    (true, _) => Action::Replace(old),
                    (false, false) => Action::Change(old, parts),
                    (false, true) => Action::Keep,
                }
            }
        };
        if let Action::Add | Action::Replace(_) = action {
            let machines = wanted.virtual_machines();
            self.good(vm.selector.spot, machines)?;
        }
        let new_lever = match action {
            Action::Add | Action::Replace(_) => Some(0),
            Action::Change(old, parts) => parts.policy.then_some(old.group),
            Action::Keep => None,
        };
        if let Some(group_so_far) = new_lever {
            self.find_group(vm, &mut wanted, group_so_far)?;
        }
        let same_lever = |old: &VmGet| shown(&old.policy) == shown(&wanted.policy);
        match action {
            Action::Keep => {}
            Action::Change(old, _) if same_lever(&old) => {}
            _ => self.doubt(vm, &wanted),
        }
        if !matches!(action, Action::Keep) {
            let compiled = self.compile(rules, &wanted.links);
            wanted.rules = self.good(vm.spot, compiled)?;
        }
        Some(Step {
            wanted,
            action,
            changes,
            may_end: vm.each,
        })
    }

    /// The value, or a finding at this place.
    fn good<T>(&mut self, spot: Spot, result: Result<T>) -> Option<T> {
        result
            .map_err(|error| self.report.error(spot, error.message))
            .ok()
    }

    fn links(&mut self, vm: &Vm, vmm: &Vmm) -> Option<Vec<Found>> {
        let names: Vec<String> = vm.links.iter().map(|link| link.value.clone()).collect();
        // The kernel, too, says which devices can be links; but then a VM that was to be replaced is gone.
        let find = |names: &[String], auto_link| {
            let links = link::find(vmm, names, auto_link)?;
            links.iter().try_for_each(Found::check)?;
            Ok(links)
        };
        let found = find(&names, vm.auto_link);
        let culprit = || {
            let is_wrong = |name: &&String| find(&[(*name).clone()], false).is_err();
            let at = names.iter().position(|name| is_wrong(&name))?;
            Some(vm.links[at].spot)
        };
        let spot = match found {
            Ok(_) => vm.spot,
            Err(_) => culprit().unwrap_or(vm.selector.spot),
        };
        self.good(spot, found)
    }

    /// Each link belongs to one VM.
    fn claim(&mut self, vm: &Vm, name: &str, links: &[Found]) -> Option<()> {
        let mut free = Some(());
        for link in links {
            let named = vm.links.iter().find(|named| named.value == link.name);
            let spot = named.map_or(vm.spot, |named| named.spot);
            if let Some(owner) = self.owners.get(&link.key()) {
                let message = format!("link {} belongs to {owner}", link.name);
                self.report.error(spot, message);
                free = None;
            } else {
                self.owners.insert(link.key(), format!("`{name}`"));
            }
        }
        free
    }

    fn compile(
        &mut self,
        rules: Vec<crate::rule::Rule>,
        links: &[Found],
    ) -> Result<Vec<crate::filter::Compiled>> {
        let compiler = match &mut self.compiler {
            Some(compiler) => compiler,
            none => none.insert(Compiler::open(links)?),
        };
        compiler.compile(rules)
    }
}

/// What cannot be changed in a VM that is there.
fn changes_of_handle(old: &Running, wanted: &Wanted) -> Vec<Change> {
    let mut changes = Vec::new();
    let vmm = &wanted.vmm;
    if (old.vm.pid, old.vm.start_time) != (vmm.pid(), vmm.start_time()) {
        changes.push(Change::new("process", old.vm.pid, vmm.pid()));
    }
    let before: HashSet<_> = old
        .links
        .iter()
        .map(|link| (link.netns, link.ifindex))
        .collect();
    let after: HashSet<_> = wanted.links.iter().map(Found::key).collect();
    if before != after || old.vm.lost_links > 0 {
        let before: Vec<String> = old.links.iter().map(|link| text(&link.name)).collect();
        changes.push(Change::new(
            "links",
            diff::list(&before),
            diff::list(&wanted.link_names()),
        ));
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::load::{Manifests, of_texts};
    use crate::manifest::report::Severity;

    /// Plans one VM of a process that has ended; returns what is found.
    fn findings_of_the_ended(selector: &str) -> Vec<(Severity, String)> {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let text = format!("schema_version = 1\n[[vm]]\nprofile = \"opaque\"\n{selector}");
        let read = of_texts(&[("f".to_string(), text)]).unwrap();
        let Manifests { mut report, vms } = read;
        assert_eq!(report.findings(), []);
        let mut planner = Planner {
            info: Info::default(),
            survey: None,
            quick: LazyCell::new(Box::new(|| None)),
            futile: Vec::new(),
            groupless: Vec::new(),
            running: HashMap::new(),
            owners: HashMap::new(),
            compiler: None,
            report: &mut report,
        };
        let target = Target {
            vm: &vms[0],
            name: "a-1".to_string(),
            pid: child.id() as i32,
            start_time: None,
        };
        assert!(planner.step(&target).is_none());
        drop(planner);
        let findings = report.findings().into_iter();
        findings
            .map(|found| (found.severity, found.message))
            .collect()
    }

    #[test]
    fn one_of_many_may_end_meanwhile() {
        let found = findings_of_the_ended("name = \"a-{}\"\nunit = \"x-*\"\neach = true");
        let [(Severity::Warning, message)] = &found[..] else {
            panic!("{found:?}")
        };
        assert!(
            message.ends_with("has ended just now: no VM `a-1`"),
            "{message}"
        );
        let found = findings_of_the_ended("name = \"a\"\nunit = \"x\"");
        let [(Severity::Error, message)] = &found[..] else {
            panic!("{found:?}")
        };
        assert!(message.starts_with("there is no process"), "{message}");
    }
}
