// SPDX-License-Identifier: GPL-2.0-only

//! All VMs of a host, whether sleepy looks after them or not, and where their threads are.

use std::collections::{BTreeSet, HashMap, HashSet};

use procfs::process::all_processes;
use sleepy_uapi::{LEVER_GROUP, Policy};

use super::facts::{Facts, Own};
use super::find;
use super::host::Host;
use super::levers::{Choice, Futile, choose, futile};
use super::machine::{Groups, Machine, Place, group_of, has_cookie, policy_of, session, tasks};
use crate::cgroup::own::{self, Missing, Others};
use crate::cgroup::{Group, Hierarchy, Limit, below, common, up};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::index::Index;
use crate::kvm_debug::{self, Vms};
use crate::lever::{Lever, is_auto};
use crate::vmm::Vmm;

/// A host and its VMs, at one time.
pub struct Survey {
    /// The host.
    pub host: Host,
    groups: Groups,
    machines: Vec<Machine>,
    by_id: Index<u32>,
    by_process: Index<i32>,
    /// By their threads' groups, and those above them.
    by_group: Index<String>,
    /// By the groups that all of their threads are in.
    by_common: Index<String>,
    /// By the places where somebody is beside them.
    by_place: Index<Place>,
}

impl Survey {
    /// Looks at everything. Without a device, sleepy looks after no VM.
    pub fn take(device: Option<&Device>) -> Result<Self> {
        let (groups, kvm) = (Hierarchy::here(), Vms::here().unwrap_or_default());
        let machines = device.map(|device| find::added(device, &kvm, &groups));
        let machines = machines.transpose()?.unwrap_or_default();
        let all = all_processes().map_err(|error| Error::failed(format!("/proc: {error}")))?;
        // One that ends meanwhile is none.
        let vmms = all.flatten().filter_map(|p| Vmm::open(p.pid).ok());
        let vmms = vmms.filter(find::has_vm);
        Ok(Self::with_others(groups, &kvm, machines, vmms))
    }

    /// Looks only where KVM says that VMs are, which takes less time. None if it says nothing.
    pub fn quick(device: &Device) -> Option<Self> {
        let (groups, kvm) = (Hierarchy::here(), Vms::here()?);
        let machines = find::added(device, &kvm, &groups).ok()?;
        let pids: BTreeSet<i32> = find::unknown(kvm.all(), machines.iter())
            .filter_map(kvm_debug::Vm::process)
            .collect();
        let vmms = pids.into_iter().filter_map(|pid| Vmm::open(pid).ok());
        Some(Self::with_others(groups, &kvm, machines, vmms))
    }

    fn with_others(
        groups: Groups,
        kvm: &Vms,
        mut machines: Vec<Machine>,
        vmms: impl Iterator<Item = Vmm>,
    ) -> Self {
        let mut known: HashMap<i32, Vec<&Machine>> = HashMap::new();
        for machine in &machines {
            known.entry(machine.pid).or_default().push(machine);
        }
        let others = vmms.flat_map(|vmm| {
            let known = known.get(&(vmm.pid() as i32));
            find::others_of(&vmm, kvm, &groups, known.map_or(&[], Vec::as_slice))
        });
        let others: Vec<Machine> = others.collect();
        machines.extend(others);
        let host = Host::here(&groups);
        for machine in machines.iter_mut().filter(|_| host.autogroup) {
            machine.session = session(machine.pid);
        }
        Self::new(host, groups, machines)
    }

    fn new(host: Host, groups: Groups, mut machines: Vec<Machine>) -> Self {
        let (mut by_id, mut by_process) = (Index::default(), Index::default());
        let (mut by_group, mut by_common) = (Index::default(), Index::default());
        let mut by_place = Index::default();
        for (number, machine) in machines.iter_mut().enumerate() {
            machine.number = number;
            machine.places = places(machine, host.autogroup, groups.as_ref().ok());
            by_id.add(number, machine.id.into_iter());
            by_process.add(number, [machine.pid].into_iter());
            let all = |name| up(name).map(str::to_string);
            by_group.add(number, machine.groups().flat_map(all));
            let common = common(machine.groups());
            by_common.add(number, common.iter().flat_map(|name| all(name)));
            by_place.add(number, machine.places.iter().flat_map(Place::seen_from));
        }
        Self {
            host,
            groups,
            machines,
            by_id,
            by_process,
            by_group,
            by_common,
            by_place,
        }
    }

    /// Whether a policy's lever depends on the host.
    pub fn is_needed(policy: &Policy) -> bool {
        is_auto(policy) || policy.lever == LEVER_GROUP
    }

    /// The VMs that sleepy looks after.
    pub fn added(&self) -> impl Iterator<Item = &Machine> {
        self.machines.iter().filter(|machine| machine.id.is_some())
    }

    /// The VM with this id.
    pub fn with_id(&self, id: u32) -> Option<&Machine> {
        let number = self.by_id.with(&id).first()?;
        Some(&self.machines[*number])
    }

    /// The VM of a process, perhaps that of a descriptor. One that nobody looks after yet is rather meant.
    pub fn of_process(&self, vmm: &Vmm, vm_fd: Option<i32>) -> Result<&Machine> {
        let its = || {
            let numbers = self.by_process.with(&(vmm.pid() as i32));
            numbers.iter().map(|number| &self.machines[*number])
        };
        its()
            .find(|machine| machine.fd.is_some() && machine.fd == vm_fd)
            .or_else(|| its().find(|machine| machine.id.is_none()))
            .or_else(|| its().next())
            .ok_or_else(|| {
                Error::failed(format!(
                    "no KVM virtual machine in {vmm}; give the VMM's pid"
                ))
            })
    }

    /// Which lever `auto` is for a VM; none if its policy names one.
    pub fn settle(&self, machine: &Machine, policy: &mut Policy) -> Option<Choice> {
        if !is_auto(policy) {
            return None;
        }
        let choice = choose(&self.host, &self.facts(machine));
        policy.lever = choice.lever.number()?;
        Some(choice)
    }

    /// The control group that a policy needs. One that the VM's lever has had so far stays, as long as all of its
    /// threads are there.
    pub fn group(
        &self,
        machine: &Machine,
        policy: &Policy,
        so_far: u64,
    ) -> std::result::Result<Option<Group>, Futile> {
        if policy.lever != LEVER_GROUP {
            return Ok(None);
        }
        let stays = || {
            let groups = self.groups.as_ref().ok()?;
            let nearest = common(machine.groups())?;
            let mut above = up(&nearest).filter_map(|name| groups.group(name));
            above.find(|group| so_far != 0 && group.inode() == Some(so_far))
        };
        match stays() {
            Some(group) => Ok(Some(group)),
            None => match self.own(machine) {
                Ok(group) => Ok(Some(group)),
                Err(why) => {
                    let common = self.facts(machine).common().own.err();
                    Err(Futile {
                        common: format!("lever cgroup: {}", common.as_ref().unwrap_or(&why)),
                        text: format!("lever cgroup: {}: {why}", machine.label),
                    })
                }
            },
        }
    }

    /// Whether a policy's lever does nothing for a VM.
    pub fn futile(&self, machine: &Machine, policy: &Policy, auto: &str) -> Option<Futile> {
        let lever = Lever::of_number(policy.lever)?;
        futile(lever, &self.host, &self.facts(machine), auto)
    }

    /// Those of some machines that are others than this one; `numbers` rise.
    fn others(&self, machine: &Machine, numbers: &[usize]) -> Others {
        let itself = numbers.binary_search(&machine.number).is_ok();
        let others = numbers.iter().filter(|number| **number != machine.number);
        let names = others.map(|number| self.machines[*number].label.as_str());
        Others::new(numbers.len() - usize::from(itself), names)
    }

    /// Those whose threads compete with a machine's: in the same scheduling group, or with a group inside of it.
    fn beside(&self, machine: &Machine) -> Others {
        let places: Vec<&Place> = machine.places.iter().collect();
        match places[..] {
            [place] => self.others(machine, self.by_place.with(place)),
            _ => {
                let all = self.by_place.with_any(places.into_iter());
                self.others(machine, &Vec::from_iter(all))
            }
        }
    }

    fn own(&self, machine: &Machine) -> std::result::Result<Group, Missing> {
        let hierarchy = self.groups.as_ref();
        let hierarchy = hierarchy.map_err(|why| Missing::Hierarchy(why.clone()))?;
        own::find(hierarchy, machine.groups(), |name| {
            self.others(machine, self.by_group.with(name))
        })
    }

    /// All that decides which levers work for a VM.
    pub fn facts(&self, machine: &Machine) -> Facts {
        let hierarchy = self.groups.as_ref().ok();
        let beside = self.beside(machine);
        let nearest = common(machine.groups());
        let account = |name: &str| hierarchy.map(|groups| groups.accounts(name));
        let place = nearest.as_deref().and_then(account);
        let place = place.unwrap_or_else(|| "/".to_string());
        // Those of single vCPUs count as well as those of the whole VM.
        let mut limits: Vec<Limit> = Vec::new();
        for limit in machine
            .groups()
            .filter_map(|name| Some(hierarchy?.limits(name)))
            .flatten()
        {
            if !limits.contains(&limit) {
                limits.push(limit);
            }
        }
        Facts {
            threads: machine
                .threads
                .iter()
                .map(|thread| (thread.tid, policy_of(thread.tid)))
                .collect(),
            are_vcpus: machine.are_vcpus,
            by_session: machine.places.iter().any(|place| place.session.is_some()),
            elsewhere: self.machines.len() - 1 - beside.count,
            beside,
            own: self.own(machine).map(|group| self.describe(machine, group)),
            halts_inside: machine.halts_inside,
            has_cookie: machine.threads.iter().any(|thread| has_cookie(thread.tid)),
            limits,
            shared: self.shared(machine),
            in_common: false,
            place,
        }
    }

    /// The nearest cgroup that a VM is in with another one.
    fn shared(&self, machine: &Machine) -> String {
        let common = common(machine.groups());
        let mut above = common.iter().flat_map(|name| up(name));
        let nearest = above.find(|name| self.by_common.with(*name).len() > 1);
        nearest.unwrap_or("/").to_string()
    }

    fn describe(&self, machine: &Machine, group: Group) -> Own {
        let above = up(&group.name).nth(1).unwrap_or("/").to_string();
        let rivals = self.others(machine, self.by_group.with(&above)).count;
        let groups = self.groups.as_ref().ok();
        let vcpus: HashSet<i32> = machine.threads.iter().map(|thread| thread.tid).collect();
        let is_inside = |tid: i32| {
            let name = groups.and_then(|groups| group_of(tid, groups));
            name.is_some_and(|name| below(&group.name, &name).is_some())
        };
        let has_helpers = tasks(machine.pid)
            .into_iter()
            .any(|tid| machine.are_vcpus && !vcpus.contains(&tid) && is_inside(tid));
        let processes = groups.map(|groups| groups.processes(&group.name));
        Own {
            strangers: processes.map_or(0, |pids| {
                pids.iter().filter(|pid| **pid != machine.pid).count()
            }),
            above,
            rivals,
            has_helpers,
            group,
        }
    }
}

/// The scheduling groups that a VM's threads are in.
fn places(machine: &Machine, autogroup: bool, groups: Option<&Hierarchy>) -> HashSet<Place> {
    let place = |name: &str| {
        let group = groups.map_or_else(|| "/".to_string(), |groups| groups.accounts(name));
        let is_root = groups.is_none_or(|groups| groups.is_root(&group));
        let session = machine.session.clone();
        Place {
            group,
            session: session.filter(|_| is_root && autogroup),
        }
    };
    match groups {
        Some(_) => machine.groups().map(place).collect(),
        None => HashSet::from([place("/")]),
    }
}

#[cfg(test)]
mod tests {
    use sleepy_uapi::{LEVER_NICE, LEVER_OBSERVE, LEVER_PARK};

    use super::super::machine::{Thread, session_of};
    use super::*;
    use crate::cgroup::tests::tree;

    fn machine(id: u32, group: &str, session: &str) -> Machine {
        Machine {
            label: format!("VM {id}"),
            id: Some(id),
            are_vcpus: true,
            threads: vec![Thread {
                tid: 1_000_000_000 + id as i32,
                group: Some(group.to_string()),
            }],
            session: session_of(session),
            ..Machine::default()
        }
    }

    fn survey(hierarchy: Hierarchy, autogroup: bool, machines: Vec<Machine>) -> Survey {
        let host = Host {
            autogroup,
            ..Host::default()
        };
        Survey::new(host, Ok(hierarchy), machines)
    }

    #[test]
    fn vms_beside_are_told_from_those_elsewhere() {
        let (_dir, tree) = tree(&[
            ("/", "cpu"),
            ("/a", "cpu"),
            ("/a/1", ""),
            ("/a/2", ""),
            ("/b", ""),
        ]);
        let groups = ["/a/1", "/a/2", "/b", "/b"];
        let machines = groups.iter().zip(1..);
        let machines = machines.map(|(group, id)| machine(id, group, "")).collect();
        let survey = survey(tree, false, machines);
        let facts = |id| survey.facts(survey.with_id(id).unwrap());
        let first = facts(1);
        assert_eq!((first.beside.count, first.elsewhere), (0, 3));
        assert_eq!(first.shared, "/a");
        assert_eq!(first.place, "/a/1");
        let own = first.own.unwrap();
        assert_eq!((own.above.as_str(), own.rivals), ("/a", 1));
        let third = facts(3);
        assert_eq!(
            (third.beside.to_string(), third.elsewhere),
            ("VM 4".to_string(), 2)
        );
        let why = third.own.unwrap_err().to_string();
        assert!(why.contains("shares /b with VM 4"), "{why}");
    }

    #[test]
    fn thread_competes_with_groups_beside_it() {
        let (_dir, tree) = tree(&[("/", "cpu"), ("/a", "cpu"), ("/a/1", "")]);
        let machines = vec![
            machine(1, "/", ""),
            machine(2, "/a", ""),
            machine(3, "/a/1", ""),
        ];
        let survey = survey(tree, true, machines);
        let beside = |id| survey.facts(survey.with_id(id).unwrap()).beside.count;
        assert_eq!([beside(1), beside(2), beside(3)], [2, 1, 0]);
    }

    #[test]
    fn lever_that_does_nothing_is_told() {
        let (_dir, tree) = tree(&[("/", "cpu"), ("/a", ""), ("/b", "")]);
        let machines = vec![machine(1, "/a", ""), machine(2, "/b", "")];
        let survey = survey(tree, false, machines);
        let told = |lever| {
            let policy = Policy {
                lever,
                ..Policy::default()
            };
            let machine = survey.with_id(1).unwrap();
            let futile = survey.futile(machine, &policy, "--lever auto");
            futile.map(|futile| (futile.text, futile.common))
        };
        let text = |place: &str| {
            format!("lever nice: no effect between VMs: {place}; `--lever auto` takes park")
        };
        let expected = (
            text("it is alone in its cgroup /a"),
            text("each is alone in its cgroup /*"),
        );
        assert_eq!(told(LEVER_NICE), Some(expected));
        for lever in [LEVER_OBSERVE, LEVER_GROUP, LEVER_PARK] {
            assert_eq!(told(lever), None, "lever {lever}");
        }
    }

    #[test]
    fn sessions_count_in_the_root_alone() {
        let groups = [("/", "cpu"), ("/a", "")];
        let beside = |autogroup, group: &str| {
            let (_dir, tree) = tree(&groups);
            let sessions = [
                "/autogroup-1 nice 0",
                "/autogroup-1 nice 5",
                "/autogroup-2 nice 0",
            ];
            let machines = sessions.iter().zip(1..);
            let machines = machines
                .map(|(session, id)| machine(id, group, session))
                .collect();
            let survey = survey(tree, autogroup, machines);
            let facts = survey.facts(survey.with_id(1).unwrap());
            assert_eq!(facts.by_session, autogroup && group == "/");
            facts.beside.count
        };
        assert_eq!(beside(true, "/"), 1);
        assert_eq!(beside(false, "/"), 2);
        assert_eq!(beside(true, "/a"), 2);
    }

    #[test]
    fn group_that_the_lever_has_stays() {
        let (_dir, tree) = tree(&[("/", "cpu"), ("/a", "cpu"), ("/a/1", ""), ("/b", "")]);
        let (above, other) = (tree.group("/a").unwrap(), tree.group("/b").unwrap());
        let survey = survey(tree, false, vec![machine(1, "/a/1", "")]);
        let policy = Policy {
            lever: LEVER_GROUP,
            ..Policy::default()
        };
        let name = |so_far: Option<u64>| {
            let machine = survey.with_id(1).unwrap();
            let group = survey.group(machine, &policy, so_far.unwrap_or(0));
            group.unwrap().unwrap().name
        };
        assert_eq!(name(None), "/a/1");
        assert_eq!(name(above.inode()), "/a");
        assert_eq!(name(other.inode()), "/a/1", "the threads have left it");
        let machine = survey.with_id(1).unwrap();
        let none = survey.group(machine, &Policy::default(), 0).unwrap();
        assert_eq!(none, None, "another lever needs none");
    }
}
