// SPDX-License-Identifier: GPL-2.0-only

//! What of a host decides which levers work on it.

use std::path::Path;

use serde::Serialize;

use crate::cgroup::Hierarchy;
use crate::time;

/// A host.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Host {
    /// The version of control groups that has the CPU controller.
    pub cgroup: Option<u32>,
    /// Why there is none.
    #[serde(skip)]
    pub no_cgroup: Option<String>,
    /// Threads in the root cgroup have a group for each session.
    pub autogroup: bool,
    /// The sched_ext scheduler that is loaded.
    pub sched_ext: Option<String>,
    /// It has all threads but real-time and deadline ones, not only those of the policy SCHED_EXT.
    pub sched_ext_all: bool,
    /// How long KVM polls for a guest that has halted, at most.
    pub halt_poll_ns: Option<u64>,
    /// The host's own idle loop polls.
    pub haltpoll: bool,
}

impl Host {
    /// This one.
    pub fn here(groups: &Result<Hierarchy, String>) -> Self {
        Self::of(Path::new("/"), groups)
    }

    fn of(root: &Path, groups: &Result<Hierarchy, String>) -> Self {
        let read = |path: &str| {
            let text = std::fs::read_to_string(root.join(path)).ok()?;
            Some(text.trim().to_string())
        };
        let is_one = |path: &str| read(path).is_some_and(|text| text == "1");
        let ext = "sys/kernel/sched_ext";
        let is_enabled = read(&format!("{ext}/state")).is_some_and(|state| state == "enabled");
        let ops =
            || read(&format!("{ext}/root/ops")).unwrap_or_else(|| "without a name".to_string());
        let halt_poll = read("sys/module/kvm/parameters/halt_poll_ns");
        Self {
            cgroup: groups
                .as_ref()
                .ok()
                .map(|found| if found.legacy { 1 } else { 2 }),
            no_cgroup: groups.as_ref().err().cloned(),
            autogroup: is_one("proc/sys/kernel/sched_autogroup_enabled"),
            sched_ext: is_enabled.then(ops),
            sched_ext_all: is_enabled && is_one(&format!("{ext}/switch_all")),
            halt_poll_ns: halt_poll.and_then(|ns| ns.parse().ok()),
            haltpoll: read("sys/devices/system/cpu/cpuidle/current_governor")
                .is_some_and(|governor| governor == "haltpoll"),
        }
    }

    /// What has to be known of it, besides its levers, a sentence each.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(ns) = self.halt_poll_ns.filter(|ns| *ns > 0) {
            notes.push(format!(
                "halt polling: KVM spins for up to {} when a vCPU halts: CPU time that no guest has asked for \
                 (kvm.halt_poll_ns)",
                time::exact(ns)
            ));
        }
        if self.haltpoll {
            notes.push(
                "the cpuidle governor is haltpoll: idle CPUs of this host spin, which no guest has asked for"
                    .to_string(),
            );
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(files: &[(&str, &str)]) -> Host {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("{text}\n")).unwrap();
        }
        Host::of(dir.path(), &Err("why".to_string()))
    }

    #[test]
    fn what_is_around_is_seen() {
        let found = host(&[
            ("proc/sys/kernel/sched_autogroup_enabled", "1"),
            ("sys/kernel/sched_ext/state", "enabled"),
            ("sys/kernel/sched_ext/switch_all", "1"),
            ("sys/kernel/sched_ext/root/ops", "rusty_1.0"),
            ("sys/module/kvm/parameters/halt_poll_ns", "200000"),
            (
                "sys/devices/system/cpu/cpuidle/current_governor",
                "haltpoll",
            ),
        ]);
        assert!(found.autogroup && found.haltpoll && found.sched_ext_all);
        assert_eq!(found.sched_ext.as_deref(), Some("rusty_1.0"));
        assert_eq!(found.halt_poll_ns, Some(200_000));
        assert_eq!(found.notes().len(), 2);
        assert!(found.notes()[0].contains("up to 200us"));
    }

    #[test]
    fn nothing_around_is_nothing_to_say() {
        let found = host(&[
            ("proc/sys/kernel/sched_autogroup_enabled", "0"),
            ("sys/kernel/sched_ext/state", "disabled"),
            ("sys/kernel/sched_ext/switch_all", "0"),
            ("sys/module/kvm/parameters/halt_poll_ns", "0"),
        ]);
        assert_eq!(found.notes(), [""; 0]);
        assert_eq!(found.no_cgroup.as_deref(), Some("why"));
        assert_eq!(host(&[]).notes(), [""; 0]);
        let partial = host(&[
            ("sys/kernel/sched_ext/state", "enabled"),
            ("sys/kernel/sched_ext/switch_all", "0"),
        ]);
        assert!(partial.sched_ext.is_some() && !partial.sched_ext_all);
    }
}
