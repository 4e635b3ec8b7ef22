// SPDX-License-Identifier: GPL-2.0-only

//! A VM of this host, and where its threads are.

use std::collections::HashSet;

use procfs::process::Process;
use procfs::{FromRead, ProcessCGroups};
use rustix::process::Pid;
use rustix::thread::{CoreSchedulingScope, core_scheduling_cookie};

use crate::cgroup::{Hierarchy, up};
use crate::vmm::text;

/// The control groups; otherwise why there are none.
pub type Groups = Result<Hierarchy, String>;

/// A VM.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Its number among all.
    pub number: usize,
    /// What it is called, in words.
    pub label: String,
    /// Its process.
    pub pid: i32,
    /// Its id, if sleepy looks after it.
    pub id: Option<u32>,
    /// Its maker's descriptor of it.
    pub fd: Option<i32>,
    /// Whether its threads are its vCPUs'.
    pub are_vcpus: bool,
    /// KVM halts its vCPUs itself; none if that is not known.
    pub halts_inside: Option<bool>,
    /// Its vCPU threads, or all of its process.
    pub threads: Vec<Thread>,
    /// The process's autogroup, where it counts.
    pub session: Option<String>,
    /// Where its threads compete with others.
    pub places: HashSet<Place>,
}

/// What the scheduler shares a CPU out within, thread by thread.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// A cgroup.
    pub group: String,
    /// In the root one, with autogroup: a session.
    pub session: Option<String>,
}

impl Place {
    /// The places from which a thread here is seen as one beside it: this one, and groups above it. A session has no groups
    /// inside.
    pub fn seen_from(&self) -> impl Iterator<Item = Self> {
        let group = |name: &str| Self {
            group: name.to_string(),
            session: None,
        };
        let session = self.session.is_some().then(|| self.clone());
        up(&self.group).map(group).chain(session)
    }
}

/// One of its threads.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Thread {
    /// Its number.
    pub tid: i32,
    /// Its cgroup; none where there are none.
    pub group: Option<String>,
}

impl Machine {
    /// The threads of a VM, or all of its process if none of them is known.
    pub fn of(pid: i32, vcpus: Vec<i32>, groups: &Groups) -> Self {
        let are_vcpus = !vcpus.is_empty();
        let tids = if are_vcpus { vcpus } else { tasks(pid) };
        let thread = |tid| {
            let own = groups_of(tid)?;
            let group = groups.as_ref().ok().and_then(|all| all.group_of(&own));
            Some(Thread { tid, group })
        };
        Self {
            pid,
            are_vcpus,
            threads: tids.into_iter().filter_map(thread).collect(),
            ..Self::default()
        }
    }

    /// The cgroups of its threads.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.threads
            .iter()
            .filter_map(|thread| thread.group.as_deref())
    }
}

/// A process's autogroup.
pub fn session(pid: i32) -> Option<String> {
    session_of(&Process::new(pid).ok()?.autogroup().ok()?)
}

/// `/autogroup-42 nice 0`
pub fn session_of(autogroup: &str) -> Option<String> {
    autogroup.split_whitespace().next().map(str::to_string)
}

/// A thread's cgroup.
pub fn group_of(tid: i32, groups: &Hierarchy) -> Option<String> {
    groups.group_of(&groups_of(tid)?)
}

/// A thread's cgroups; none if it has ended.
fn groups_of(tid: i32) -> Option<ProcessCGroups> {
    ProcessCGroups::from_read(text(tid, "cgroup").ok()?.as_bytes()).ok()
}

/// A thread's scheduling policy.
pub fn policy_of(tid: i32) -> u32 {
    let stat = Process::new(tid).and_then(|thread| thread.stat());
    stat.ok().and_then(|stat| stat.policy).unwrap_or_default()
}

/// The threads of a process.
pub fn tasks(pid: i32) -> Vec<i32> {
    let tasks = Process::new(pid).and_then(|process| process.tasks());
    let tasks = tasks.into_iter().flatten().flatten();
    tasks.map(|task| task.tid).collect()
}

/// Whether a thread shares a core only with those of the same cookie.
pub fn has_cookie(tid: i32) -> bool {
    // A kernel without core scheduling has none.
    Pid::from_raw(tid)
        .and_then(|tid| core_scheduling_cookie(tid, CoreSchedulingScope::Thread).ok())
        .is_some_and(|cookie| cookie != 0)
}
