// SPDX-License-Identifier: GPL-2.0-only

//! What of a VM decides which levers work for it.

use crate::cgroup::own::{Missing, Others};
use crate::cgroup::{Group, Limit, below};
use crate::time;

/// `SCHED_*` of sched(7).
const POLICIES: [(u32, &str); 7] = [
    (0, "SCHED_OTHER"),
    (1, "SCHED_FIFO"),
    (2, "SCHED_RR"),
    (3, "SCHED_BATCH"),
    (5, "SCHED_IDLE"),
    (6, "SCHED_DEADLINE"),
    (7, "SCHED_EXT"),
];

/// A scheduling policy's name.
pub fn policy_name(number: u32) -> String {
    let found = POLICIES.iter().find(|(policy, _)| *policy == number);
    found.map_or_else(
        || format!("policy {number}"),
        |(_, name)| (*name).to_string(),
    )
}

/// Whether a thread of this policy is never touched.
pub fn is_real_time(policy: u32) -> bool {
    matches!(policy, 1 | 2 | 6)
}

/// A VM, among the others on its host.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Threads whose CPU time is looked at, with their scheduling policies.
    pub threads: Vec<(i32, u32)>,
    /// They are its vCPUs'. Otherwise they are all of its process: nothing says which run vCPUs.
    pub are_vcpus: bool,
    /// The cgroup that accounts for their time.
    pub place: String,
    /// That is the root, where autogroup is on: it is their session that counts.
    pub by_session: bool,
    /// Other VMs that its threads compete with, thread by thread.
    pub beside: Others,
    /// How many other VMs there are besides those.
    pub elsewhere: usize,
    /// The control group that is the VM's own, or why there is none.
    pub own: Result<Own, Missing>,
    /// KVM halts its vCPUs itself; none if that is not known.
    pub halts_inside: Option<bool>,
    /// Threads share a core only with those of the same cookie.
    pub has_cookie: bool,
    /// Limits of bandwidth that its threads are under.
    pub limits: Vec<Limit>,
    /// The nearest cgroup that it is in with another VM.
    pub shared: String,
    /// They are those of several VMs, without what tells one from the others.
    pub in_common: bool,
}

/// A VM's own control group.
#[derive(Clone, Debug)]
pub struct Own {
    /// The group.
    pub group: Group,
    /// What it is in.
    pub above: String,
    /// How many other VMs are in that, so that the group's weight counts against theirs.
    pub rivals: usize,
    /// The VMM's other threads are in the group, too.
    pub has_helpers: bool,
    /// How many other processes are.
    pub strangers: usize,
}

impl Facts {
    /// What it has in common with others like it: where its own cgroup was named, there is a star.
    pub fn common(&self) -> Self {
        let mut facts = Self {
            beside: self.beside.unnamed(),
            in_common: true,
            ..self.clone()
        };
        let star = |name: &mut String| *name = starred(&self.shared, name);
        star(&mut facts.place);
        match &mut facts.own {
            Ok(own) => {
                star(&mut own.group.name);
                star(&mut own.above);
            }
            Err(Missing::Shared(group, others)) => {
                star(group);
                *others = others.unnamed();
            }
            Err(Missing::Controller(group, _) | Missing::Unmounted(group)) => star(group),
            Err(Missing::Hierarchy(_) | Missing::Unseen | Missing::Root) => {}
        }
        for limit in &mut facts.limits {
            star(&mut limit.group);
        }
        facts
    }

    /// It, as the subject of a sentence.
    pub fn subject(&self) -> &'static str {
        if self.in_common { "each" } else { "it" }
    }

    /// Whether there is no other VM.
    pub fn is_only_one(&self) -> bool {
        self.beside.count + self.elsewhere == 0
    }

    /// Threads that are never touched.
    pub fn real_time(&self) -> Vec<i32> {
        let threads = self.threads.iter();
        let real_time = threads.filter(|(_, policy)| is_real_time(*policy));
        real_time.map(|(tid, _)| *tid).collect()
    }

    /// Whether a thread is a sched_ext scheduler's.
    pub fn is_ext(&self) -> bool {
        self.threads.iter().any(|(_, policy)| *policy == 7)
    }

    /// Whether no thread may be touched.
    pub fn is_untouchable(&self) -> bool {
        !self.threads.is_empty() && self.real_time().len() == self.threads.len()
    }

    /// What has to be known of it, a sentence each.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.are_vcpus {
            notes.push(
                "nothing says yet which threads run vCPUs (KVM's debugfs does, once they have run): \
                 all of the process are looked at"
                    .to_string(),
            );
        }
        let real_time = self.real_time();
        if !real_time.is_empty() {
            let which = if self.in_common {
                format!("{} of {} in each", real_time.len(), self.threads.len())
            } else {
                crate::wanted::list(&real_time)
            };
            notes.push(format!(
                "real-time and deadline threads are never touched: {which}"
            ));
        }
        if self.has_cookie {
            notes.push(
                "core scheduling: a vCPU that is woken or stirred waits until its whole core is free for it"
                    .to_string(),
            );
        }
        for limit in &self.limits {
            notes.push(format!(
                "cgroup {} may use {} of each {} (cpu.max): a VM that is woken may still be throttled",
                limit.group,
                time::exact(limit.quota),
                time::exact(limit.period)
            ));
        }
        if let Ok(own) = &self.own
            && own.strangers > 0
        {
            let plural = if own.strangers == 1 { "" } else { "es" };
            notes.push(format!(
                "the lever cgroup takes weight from {} other process{plural} in {}, too",
                own.strangers, own.group.name
            ));
        }
        notes
    }
}

/// A cgroup's name, with a star for the part below `shared`.
fn starred(shared: &str, name: &str) -> String {
    let Some(rest) = below(shared, name).filter(|rest| !rest.is_empty()) else {
        return name.to_string();
    };
    let shared = shared.trim_end_matches('/');
    match rest.split_once('/') {
        None => format!("{shared}/*"),
        Some((_, rest)) => format!("{shared}/*/{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_part_of_a_name_is_a_star() {
        for (shared, name, expected) in [
            ("/vms", "/vms/a", "/vms/*"),
            ("/vms", "/vms/a/libvirt", "/vms/*/libvirt"),
            ("/", "/a", "/*"),
            ("/", "/one.slice/a", "/*/a"),
            ("/vms", "/vms", "/vms"),
            ("/vms/a", "/vms", "/vms"),
            ("/", "/", "/"),
        ] {
            assert_eq!(starred(shared, name), expected, "{name} below {shared}");
        }
    }
}
