// SPDX-License-Identifier: GPL-2.0-only

//! Control groups, as far as they share out CPU time: where they are, and what they are called.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use procfs::process::MountInfos;
use procfs::{FromRead, ProcError, ProcessCGroups};
use rustix::fs::{Mode, OFlags, open};

use crate::error::{Error, Result};
use crate::vmm::text;

pub mod own;

/// The hierarchy that has the CPU controller.
///
/// Groups have the names that `/proc/PID/cgroup` gives them: seen from the root of our cgroup namespace.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    /// Version 1.
    pub legacy: bool,
    /// Which group is mounted where.
    mounts: Vec<(String, PathBuf)>,
}

/// A group's directory.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
}

/// A limit of bandwidth.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// The group that has it.
    pub group: String,
    /// So much CPU time, in nanoseconds,
    pub quota: u64,
    /// in each period as long as this.
    pub period: u64,
}

impl Group {
    /// A descriptor for the kernel.
    pub fn open(&self) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        open(&self.path, flags, Mode::empty())
            .map_err(|errno| Error::os(format!("cgroup {}", self.path.display()), errno))
    }

    /// What `vm show` knows it by.
    pub fn inode(&self) -> Option<u64> {
        inode(&self.path)
    }
}

fn inode(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|about| about.ino())
}

impl Hierarchy {
    /// The one that is mounted here; otherwise why there is none, as a sentence.
    pub fn here() -> std::result::Result<Self, String> {
        let read = |file| text("self", file).map_err(|error| format!("/proc/self/{file}: {error}"));
        let odd = |error: ProcError| format!("/proc: {error}");
        let groups = read("cgroup")
            .map_err(|why| format!("this kernel has no control groups (CONFIG_CGROUPS): {why}"))?;
        let groups = ProcessCGroups::from_read(groups.as_bytes()).map_err(odd)?;
        let mounts = MountInfos::from_read(read("mountinfo")?.as_bytes()).map_err(odd)?;
        Self::of(&groups, &mounts)
    }

    fn of(own: &ProcessCGroups, mounts: &MountInfos) -> std::result::Result<Self, String> {
        let legacy = own.0.iter().any(|group| is_cpu(&group.controllers));
        let (kind, how) = if legacy {
            ("cgroup", "mount -t cgroup -o cpu none /sys/fs/cgroup/cpu")
        } else {
            ("cgroup2", "mount -t cgroup2 none /sys/fs/cgroup")
        };
        let mounts: Vec<_> = mounts
            .iter()
            .filter(|mount| mount.fs_type == kind)
            .filter(|mount| !legacy || mount.super_options.contains_key("cpu"))
            .map(|mount| (mount.root.clone(), mount.mount_point.clone()))
            .collect();
        if mounts.is_empty() {
            return Err(format!(
                "the control groups of the CPU controller are not mounted: `{how}`"
            ));
        }
        let hierarchy = Self { legacy, mounts };
        if !hierarchy.lists("/", "cgroup.controllers") {
            return Err(
                "the kernel has no CPU controller for control groups (CONFIG_FAIR_GROUP_SCHED)"
                    .to_string(),
            );
        }
        Ok(hierarchy)
    }

    /// The name of a thread's group.
    pub fn group_of(&self, groups: &ProcessCGroups) -> Option<String> {
        let is_it = |controllers: &[String], number| {
            if self.legacy {
                is_cpu(controllers)
            } else {
                number == 0
            }
        };
        let mut groups = groups.0.iter();
        let group = groups.find(|group| is_it(&group.controllers, group.hierarchy))?;
        Some(group.pathname.clone())
    }

    /// Where a group is; none if no mount shows it.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        let mut found = self.mounts.iter().filter_map(|(root, point)| {
            let rest = below(root, name)?;
            // What is above the root of our namespace has no name in it.
            (!rest.split('/').any(|part| part == "..")).then(|| point.join(rest))
        });
        found.next()
    }

    /// The group of this name.
    pub fn group(&self, name: &str) -> Option<Group> {
        let path = self.path(name)?;
        Some(Group {
            name: name.to_string(),
            path,
        })
    }

    /// The group that has the CPU time of those in `name`: in version 2, a group without a controller of its own has
    /// none of its own.
    pub fn accounts(&self, name: &str) -> String {
        // What is not seen is as good as any other.
        if self.legacy || self.path(name).is_none() {
            return name.to_string();
        }
        let has_weight = |name: &&str| {
            let path = self.path(name);
            path.is_some_and(|path| path.join("cpu.weight").exists())
        };
        up(name).find(has_weight).unwrap_or("/").to_string()
    }

    /// Whether it is the root of all, which has no weight.
    pub fn is_root(&self, name: &str) -> bool {
        let path = self.path(name);
        // The root of a namespace has one.
        name == "/" && (self.legacy || !path.is_some_and(|path| path.join("cpu.weight").exists()))
    }

    /// The commands that give a group a CPU controller of its own.
    fn enable(&self, name: &str) -> String {
        let mut above: Vec<&str> = up(name).skip(1).collect();
        above.reverse();
        let commands: Vec<String> = above
            .into_iter()
            .filter(|above| !self.lists(above, "cgroup.subtree_control"))
            .filter_map(|above| self.path(above))
            .map(|path| format!("echo +cpu > {}/cgroup.subtree_control", path.display()))
            .collect();
        commands.join(" && ")
    }

    /// Whether the CPU controller is in a file of a group. In version 1 it is everywhere.
    fn lists(&self, name: &str, file: &str) -> bool {
        let text = || std::fs::read_to_string(self.path(name)?.join(file)).ok();
        // What cannot be read forbids nothing.
        self.legacy
            || text().is_none_or(|text| {
                text.split_whitespace()
                    .any(|controller| controller == "cpu")
            })
    }

    /// The limits of bandwidth that a group is under, its own and those above.
    pub fn limits(&self, name: &str) -> Vec<Limit> {
        let limit = |name: &str| {
            let path = self.path(name)?;
            let read = |file: &str| std::fs::read_to_string(path.join(file)).ok();
            let text = if self.legacy {
                format!(
                    "{} {}",
                    read("cpu.cfs_quota_us")?.trim(),
                    read("cpu.cfs_period_us")?
                )
            } else {
                read("cpu.max")?
            };
            // Without a limit it is `max`, or -1.
            let (quota, period) = text.trim().split_once(' ')?;
            Some(Limit {
                group: name.to_string(),
                quota: quota.parse::<u64>().ok()? * 1000,
                period: period.parse::<u64>().ok()? * 1000,
            })
        };
        up(name).filter_map(limit).collect()
    }

    /// The processes in a group and those below it.
    pub fn processes(&self, name: &str) -> BTreeSet<i32> {
        self.some_processes(name, usize::MAX)
    }

    /// Whether it is a single process that is in a group and those below it.
    pub fn has_one_process(&self, name: &str) -> bool {
        self.some_processes(name, 2).len() == 1
    }

    /// So many of them, and perhaps some more.
    fn some_processes(&self, name: &str, enough: usize) -> BTreeSet<i32> {
        let mut pids = BTreeSet::new();
        self.walk(name, &mut |path| {
            // That of a threaded group cannot be read; its processes are in the one above.
            let text = std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
            pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
            pids.len() >= enough
        });
        pids
    }

    /// The group with this inode.
    pub fn with_inode(&self, wanted: u64) -> Option<Group> {
        let mut found = None;
        self.walk("/", &mut |path| {
            if inode(path) == Some(wanted) {
                found = Some(path.to_path_buf());
            }
            found.is_some()
        });
        let path = found?;
        let root = self.path("/")?;
        let name = path.strip_prefix(root).ok()?;
        Some(Group {
            name: format!("/{}", name.display()),
            path,
        })
    }

    /// Visits a group and those below it, until `visit` has seen enough.
    fn walk(&self, name: &str, visit: &mut dyn FnMut(&Path) -> bool) {
        fn below(path: &Path, visit: &mut dyn FnMut(&Path) -> bool) -> bool {
            visit(path)
                || std::fs::read_dir(path).is_ok_and(|entries| {
                    let directories = entries
                        .flatten()
                        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
                    directories
                        .map(|entry| entry.path())
                        .any(|path| below(&path, visit))
                })
        }
        if let Some(path) = self.path(name) {
            below(&path, visit);
        }
    }
}

fn is_cpu(controllers: &[String]) -> bool {
    controllers.iter().any(|controller| controller == "cpu")
}

/// What of a group's name is below another one: nothing for the same.
pub fn below<'a>(above: &str, name: &'a str) -> Option<&'a str> {
    let rest = name.strip_prefix(above.trim_end_matches('/'))?;
    match rest.strip_prefix('/') {
        Some(rest) => Some(rest),
        None => rest.is_empty().then_some(rest),
    }
}

/// A group's name, and those of all above it.
pub fn up<'a>(name: &'a str) -> impl Iterator<Item = &'a str> {
    std::iter::successors(Some(name), |name: &&'a str| {
        match name.rsplit_once('/')? {
            _ if *name == "/" => None,
            ("", _) => Some("/"),
            (above, _) => Some(above),
        }
    })
}

/// The nearest group that all of these are in.
pub fn common<'a>(mut names: impl Iterator<Item = &'a str>) -> Option<String> {
    let first = names.next()?;
    let nearest = names.fold(first, |nearest, name| {
        up(nearest)
            .find(|above| below(above, name).is_some())
            .unwrap_or("/")
    });
    Some(nearest.to_string())
}

#[cfg(test)]
pub mod tests;
