// SPDX-License-Identifier: GPL-2.0-only

//! Finds the VMMs that a manifest's selectors mean.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};

use procfs::process::all_processes;
use procfs::{FromRead, ProcessCGroups};

use crate::error::{Error, Exit, Result, words};
use crate::manifest::pattern::{arguments, components, glob};
use crate::manifest::selector::Selector;
use crate::netns::Netns;
use crate::vmm::{REMEDY, Tap, Vmm, text};

/// The processes that hold a KVM virtual machine. No other one is meant: a shell may well have the same words on
/// its command line.
#[derive(Default)]
pub struct Processes {
    candidates: Vec<Candidate>,
    /// Those that were looked at, and which candidate that is, if it has a virtual machine; none if nobody had to be.
    seen: Option<HashMap<i32, Option<usize>>>,
}

/// Without open descriptors: there may be thousands.
struct Candidate {
    pid: i32,
    start_time: u64,
    args: Vec<String>,
    cgroups: Vec<String>,
    /// Names and network namespaces; none if they may not be looked at.
    taps: OnceCell<Option<Vec<(String, u64)>>>,
}

/// A process, and what the star stands for.
#[derive(Debug, PartialEq)]
pub struct Match {
    /// The process's number.
    pub pid: i32,
    /// When it started, if it was found by something else than its number.
    pub start_time: Option<u64>,
    /// What the selector's star stands for.
    pub star: String,
}

impl Processes {
    /// Those there are now; none if all selectors say themselves which process it is.
    pub fn scan<'a>(mut selectors: impl Iterator<Item = &'a Selector>) -> Result<Self> {
        if selectors.all(|selector| matches!(selector, Selector::Pid(_) | Selector::Pidfile(_))) {
            return Ok(Self::default());
        }
        let all = all_processes().map_err(|error| Error::failed(format!("/proc: {error}")))?;
        let (mut candidates, mut seen) = (Vec::new(), HashMap::new());
        for process in all.flatten() {
            // One that ends meanwhile is none.
            if let Ok(candidate) = candidate(process.pid) {
                seen.insert(process.pid, candidate.as_ref().map(|_| candidates.len()));
                candidates.extend(candidate);
            }
        }
        Ok(Self {
            candidates,
            seen: Some(seen),
        })
    }

    /// Fails if a process lives that the selectors may mean, and that could not be looked at.
    pub fn check_seen(&self, pid: i32) -> Result<()> {
        let Some(seen) = &self.seen else {
            return Ok(());
        };
        let is_dim = |number: usize| self.candidates[number].taps.get() == Some(&None);
        let is_seen = seen
            .get(&pid)
            .is_some_and(|number| !number.is_some_and(is_dim));
        if is_seen || !Vmm::lives(pid) {
            return Ok(());
        }
        Err(Error::not_permitted(format!(
            "process {pid} may not be looked at; {REMEDY}"
        )))
    }

    /// The one that is meant, or with `each` all of them.
    pub fn find(&self, selector: &Selector, each: bool) -> std::result::Result<Vec<Match>, String> {
        let matches = self.matches(selector)?;
        match (&matches[..], each) {
            ([_], _) | (_, true) => Ok(matches),
            ([], false) => Err(format!(
                "{selector} matches no process that has a virtual machine; {}",
                match &self.candidates[..] {
                    [] => format!("there is none that may be looked at; {REMEDY}"),
                    all => format!("there are: {}", some(all.iter(), all.len())),
                }
            )),
            (several, false) => {
                let pids: HashSet<i32> = several.iter().map(|found| found.pid).collect();
                let matched = self.candidates.iter();
                let matched = matched.filter(|candidate| pids.contains(&candidate.pid));
                Err(format!(
                    "{selector} matches {} processes: {}; make it narrower, or write each = true",
                    several.len(),
                    some(matched, several.len())
                ))
            }
        }
    }

    fn matches(&self, selector: &Selector) -> std::result::Result<Vec<Match>, String> {
        let alone = |pid| {
            Ok(vec![Match {
                pid,
                start_time: None,
                star: String::new(),
            }])
        };
        match selector {
            Selector::Pid(pid) => alone(*pid),
            Selector::Pidfile(path) => alone(pidfile(path)?),
            Selector::Cmdline(pattern) => {
                Ok(self.all(|candidate| arguments(pattern, &candidate.args)))
            }
            Selector::Unit(pattern) => {
                Ok(self.all(|candidate| candidate.in_cgroup(pattern, false)))
            }
            Selector::Cgroup(pattern) => {
                Ok(self.all(|candidate| candidate.in_cgroup(pattern, true)))
            }
            Selector::Link(name) => {
                let (netns, device) = match crate::link::split(name) {
                    (None, device) => (None, device),
                    (Some(path), device) => {
                        let netns = Netns::open(&path).map_err(|errno| {
                            format!(
                                "link {name}: the network namespace {path}: {}",
                                words(errno)
                            )
                        })?;
                        (Some(netns.inode()), device)
                    }
                };
                Ok(self.all(|candidate| candidate.holds(netns, device)))
            }
            Selector::Unknown => Ok(Vec::new()),
        }
    }

    fn all(&self, star: impl Fn(&Candidate) -> Option<String>) -> Vec<Match> {
        let matched = |candidate: &Candidate| {
            star(candidate).map(|star| Match {
                pid: candidate.pid,
                start_time: Some(candidate.start_time),
                star,
            })
        };
        self.candidates.iter().filter_map(matched).collect()
    }
}

impl Candidate {
    fn in_cgroup(&self, pattern: &str, from_root: bool) -> Option<String> {
        self.cgroups
            .iter()
            .find_map(|path| components(pattern, path, from_root))
    }

    fn holds(&self, netns: Option<u64>, device: &str) -> Option<String> {
        let taps = self.taps.get_or_init(|| {
            let key = |tap: Tap| (tap.name, tap.netns.inode());
            match Vmm::open(self.pid).and_then(|vmm| vmm.taps()) {
                Ok(taps) => Some(taps.into_iter().map(key).collect()),
                Err(error) => (error.exit != Exit::NotPermitted).then(Vec::new),
            }
        });
        taps.iter()
            .flatten()
            .filter(|(_, inode)| netns.is_none_or(|wanted| wanted == *inode))
            .find_map(|(name, _)| glob(device, name))
    }
}

/// None if it has no virtual machine, or ends meanwhile.
fn candidate(pid: i32) -> Result<Option<Candidate>> {
    let vmm = Vmm::open(pid)?;
    if vmm.vm_fds()?.is_none() {
        return Ok(None);
    }
    let read = || {
        let cgroups = ProcessCGroups::from_read(text(pid, "cgroup").ok()?.as_bytes()).ok()?;
        Some(Candidate {
            args: args(pid)?,
            cgroups: cgroups.into_iter().map(|group| group.pathname).collect(),
            pid,
            start_time: vmm.start_time(),
            taps: OnceCell::new(),
        })
    };
    Ok(read())
}

fn args(pid: i32) -> Option<Vec<String>> {
    let text = text(pid, "cmdline").ok()?;
    let args = text.split('\0').filter(|arg| !arg.is_empty());
    Some(args.map(str::to_string).collect())
}

fn pidfile(path: &str) -> std::result::Result<i32, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("pidfile {path}: {error}; is the VMM running?"))?;
    let pid = text.trim().parse().ok().filter(|pid| *pid > 0);
    pid.ok_or_else(|| format!("pidfile {path}: there is no process number in it"))
}

/// The first few of so many, by their number and arguments.
fn some<'a>(candidates: impl Iterator<Item = &'a Candidate>, count: usize) -> String {
    const FEW: usize = 4;
    const LONG: usize = 60;
    let few: Vec<String> = candidates
        .take(FEW)
        .map(|candidate| {
            let args = candidate.args.join(" ");
            match args.char_indices().nth(LONG) {
                Some((end, _)) => format!("{} ({}...)", candidate.pid, &args[..end]),
                None => format!("{} ({args})", candidate.pid),
            }
        })
        .collect();
    let more = match count.saturating_sub(FEW) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    format!("{}{more}", few.join(", "))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::io::{Read, Write};
    use std::os::unix::ffi::OsStrExt;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn process_without_a_virtual_machine_is_none() {
        let own = std::process::id() as i32;
        assert!(candidate(own).unwrap().is_none());
        let error = Processes::default()
            .find(&Selector::Cmdline("x".to_string()), false)
            .unwrap_err();
        assert!(error.ends_with("or with CAP_SYS_PTRACE"), "{error}");
    }

    #[test]
    fn what_was_not_looked_at_may_be_meant() {
        let own = std::process::id() as i32;
        let seen = |pids: &[i32]| Processes {
            seen: Some(pids.iter().map(|pid| (*pid, None)).collect()),
            ..Processes::default()
        };
        let error = seen(&[]).check_seen(own).unwrap_err();
        assert!(error.exit == Exit::NotPermitted && error.message.ends_with(REMEDY));
        assert!(seen(&[own]).check_seen(own).is_ok());
        assert!(
            Processes::default().check_seen(own).is_ok(),
            "nobody had to be"
        );
        assert!(seen(&[]).check_seen(i32::MAX).is_ok(), "it has ended");
    }

    #[test]
    fn argument_that_is_no_text_hides_nothing() {
        let mut command = Command::new("cat");
        command.args(["-", "x"]).arg(OsStr::from_bytes(b"\xff"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        // It has its arguments once it runs.
        input.write_all(b"y").unwrap();
        output.read_exact(&mut [0]).unwrap();
        let found = args(child.id() as i32);
        drop(input);
        child.wait().unwrap();
        assert_eq!(found.unwrap(), ["cat", "-", "x", "\u{fffd}"]);
    }

    #[test]
    fn pidfiles_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmm.pid");
        let selector = Selector::Pidfile(path.display().to_string());
        let find = || Processes::default().find(&selector, false);
        assert!(find().unwrap_err().contains("is the VMM running?"));
        std::fs::write(&path, " 42\n").unwrap();
        assert_eq!(find().unwrap()[0].pid, 42);
        std::fs::write(&path, "no number").unwrap();
        assert!(find().unwrap_err().contains("no process number"));
    }
}
