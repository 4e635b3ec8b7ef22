// SPDX-License-Identifier: GPL-2.0-only

//! The control group that is a VM's own, so that its weight is the VM's.

use std::fmt;

use super::{Group, Hierarchy, common, up};
use crate::output::counted;

/// Other VMs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Others {
    /// How many.
    pub count: usize,
    /// What the first few are called; or nothing, and then it is their number that is told.
    names: Vec<String>,
}

impl Others {
    /// So many that are called so; no more names are taken than are told.
    pub fn new<'a>(count: usize, names: impl Iterator<Item = &'a str>) -> Self {
        const FEW: usize = 3;
        Self {
            count,
            names: names.take(FEW).map(str::to_string).collect(),
        }
    }

    /// The same, without names.
    pub fn unnamed(&self) -> Self {
        Self {
            count: self.count,
            names: Vec::new(),
        }
    }
}

impl fmt::Display for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.names.join(", ");
        match self.count - self.names.len() {
            _ if names.is_empty() => f.write_str(&counted(self.count, "other VM")),
            0 => f.write_str(&names),
            more => write!(f, "{names} and {more} more"),
        }
    }
}

/// Why a VM has no control group of its own.
#[derive(Clone, Debug, PartialEq)]
pub enum Missing {
    /// No group is there for CPU time.
    Hierarchy(String),
    /// No group with all of its threads is seen from here.
    Unseen,
    /// No mount shows this group.
    Unmounted(String),
    /// This one has no CPU controller; commands that give it one.
    Controller(String, String),
    /// It is in the root.
    Root,
    /// It is in this one, with others.
    Shared(String, Others),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hierarchy(why) => f.write_str(why),
            Self::Unseen => f.write_str("its threads are in no cgroup that is seen from here"),
            Self::Unmounted(group) => write!(
                f,
                "its cgroup {group} is not mounted here; run sleepyctl in the host's own namespaces"
            ),
            Self::Controller(group, commands) => write!(
                f,
                "its cgroup {group} has no CPU controller; give it one: `{commands}`"
            ),
            Self::Root => f.write_str(
                "it is in the root cgroup, which has no weight; start it in one of its own \
                 (`systemd-run --scope ...`), or take the lever park",
            ),
            Self::Shared(group, others) => write!(
                f,
                "it has no cgroup of its own: it shares {group} with {others}; start each in one of its own, \
                 or take the lever park"
            ),
        }
    }
}

/// The group of a VM whose threads are in these groups: the nearest that has them all and that has a CPU controller; or
/// the systemd unit around that, if nobody else is in it. If the group holds another VM as well, there is none.
/// `others` says which other VMs have threads in a group, or below it.
pub fn find<'a>(
    hierarchy: &Hierarchy,
    groups: impl Iterator<Item = &'a str>,
    others: impl FnOnce(&str) -> Others,
) -> Result<Group, Missing> {
    let nearest = common(groups).ok_or(Missing::Unseen)?;
    if hierarchy.path(&nearest).is_none() {
        return Err(Missing::Unmounted(nearest));
    }
    let name = hierarchy.accounts(&nearest);
    let inside = others(&name);
    let is_root = hierarchy.is_root(&name);
    if (is_root || inside.count > 0) && name != nearest {
        let commands = hierarchy.enable(&nearest);
        return Err(Missing::Controller(nearest, commands));
    }
    if is_root {
        return Err(Missing::Root);
    }
    if inside.count > 0 {
        return Err(Missing::Shared(name, inside));
    }
    let own = unit_of_its_own(hierarchy, &name).unwrap_or(&name);
    hierarchy
        .group(own)
        .ok_or_else(|| Missing::Unmounted(name.clone()))
}

/// The systemd unit that a group is in, as libvirt's groups of vCPUs are, if a single process is all that is in it: it is
/// the unit's weight that counts beside other VMs.
fn unit_of_its_own<'a>(hierarchy: &Hierarchy, name: &'a str) -> Option<&'a str> {
    let is_unit = |name: &&str| name.ends_with(".scope") || name.ends_with(".service");
    let unit = up(name).find(is_unit)?;
    let has_weight = hierarchy.accounts(unit) == unit;
    (has_weight && hierarchy.has_one_process(unit)).then_some(unit)
}

#[cfg(test)]
mod tests {
    use super::super::below;
    use super::super::tests::tree;
    use super::*;

    /// The group of a VM in these groups beside one in those: its name, or why there is none.
    fn found(groups: &[(&str, &str)], own: &[&str], other: &[&str]) -> Result<String, String> {
        let (_dir, hierarchy) = tree(groups);
        let others = |name: &str| {
            let is_inside = other.iter().any(|group| below(name, group).is_some());
            let inside = is_inside.then_some("VM b");
            Others::new(inside.iter().count(), inside.into_iter())
        };
        let found = find(&hierarchy, own.iter().copied(), others);
        found.map(|group| group.name).map_err(|why| why.to_string())
    }

    #[test]
    fn group_of_its_own_is_found() {
        let groups = [
            ("/", "cpu"),
            ("/m", "cpu"),
            ("/m/a", "cpu"),
            ("/m/a/libvirt", "cpu"),
            ("/m/a/libvirt/vcpu0", ""),
            ("/m/a/libvirt/vcpu1", ""),
            ("/m/b", ""),
        ];
        let own = |own: &[&str]| found(&groups, own, &["/m/b"]);
        assert_eq!(own(&["/m/a"]).as_deref(), Ok("/m/a"));
        let vcpus = ["/m/a/libvirt/vcpu0", "/m/a/libvirt/vcpu1"];
        assert_eq!(own(&vcpus).as_deref(), Ok("/m/a/libvirt"));
        assert_eq!(own(&vcpus[..1]).as_deref(), Ok("/m/a/libvirt/vcpu0"));
    }

    #[test]
    fn unit_is_its_own_if_nobody_else_is_there() {
        let groups = [
            ("/", "cpu"),
            ("/m.slice", "cpu"),
            ("/m.slice/a.scope", "cpu"),
            ("/m.slice/a.scope/libvirt", "cpu"),
            ("/m.slice/a.scope/libvirt/vcpu0", ""),
        ];
        let (dir, hierarchy) = tree(&groups);
        let vcpu = "/m.slice/a.scope/libvirt/vcpu0";
        let own = || {
            let found = find(&hierarchy, [vcpu].into_iter(), |_| Others::default());
            found.unwrap().name
        };
        let helpers = dir.path().join("m.slice/a.scope/cgroup.procs");
        let threaded = dir.path().join("m.slice/a.scope/libvirt/cgroup.procs");
        std::fs::write(threaded, "42\n").unwrap();
        assert_eq!(own(), "/m.slice/a.scope");
        std::fs::write(helpers, "43\n").unwrap();
        assert_eq!(own(), vcpu);
    }

    #[test]
    fn controller_above_is_its_own_if_nobody_else_is_there() {
        let groups = [("/", "cpu"), ("/a", ""), ("/a/x", ""), ("/b", "")];
        assert_eq!(found(&groups, &["/a/x"], &["/b"]).as_deref(), Ok("/a"));
    }

    #[test]
    fn why_there_is_none_has_a_remedy() {
        let groups = [("/", "cpu"), ("/m", ""), ("/m/a", ""), ("/m/b", "")];
        let off = [("/", ""), ("/m", ""), ("/m/a", ""), ("/m/b", "")];
        for (groups, own, other, starts, has) in [
            (
                &groups,
                "/m",
                "/m",
                "it has no cgroup of its own: it shares /m with VM b",
                "park",
            ),
            (
                &groups,
                "/m",
                "/m/b",
                "it has no cgroup of its own: it shares /m with",
                "park",
            ),
            (
                &groups,
                "/m/a",
                "/m/b",
                "its cgroup /m/a has no CPU controller",
                "/m/cgroup.subtree_control`",
            ),
            (
                &groups,
                "/",
                "/m",
                "it is in the root cgroup",
                "systemd-run",
            ),
            (
                &off,
                "/m/a",
                "/",
                "its cgroup /m/a has no CPU controller",
                " && echo +cpu > ",
            ),
            (
                &groups,
                "/../x",
                "/m",
                "its cgroup /../x is not mounted here",
                "namespaces",
            ),
        ] {
            let why = found(groups, &[own], &[other]).unwrap_err();
            assert!(why.starts_with(starts) && why.contains(has), "{why}");
        }
        assert!(found(&groups, &[], &["/m"]).is_err());
    }

    #[test]
    fn many_are_a_few() {
        let others = |names: &[&str]| Others::new(names.len(), names.iter().copied());
        assert_eq!(others(&["a"]).to_string(), "a");
        assert_eq!(others(&["a"]).unnamed().to_string(), "1 other VM");
        let many = others(&["a", "b", "c", "d", "e"]);
        assert_eq!(many.to_string(), "a, b, c and 2 more");
        assert_eq!(many.unnamed().to_string(), "5 other VMs");
    }
}
