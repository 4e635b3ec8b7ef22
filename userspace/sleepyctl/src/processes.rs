// SPDX-License-Identifier: GPL-2.0-only

//! Finds the VMMs that a manifest's selectors mean.

use std::cell::OnceCell;
use std::io::Read;

use procfs::process::{Process, all_processes};
use procfs::{FromRead, ProcessCGroups};

use crate::error::{Error, Result};
use crate::manifest::pattern::{arguments, components, glob};
use crate::manifest::selector::Selector;
use crate::netns::Netns;
use crate::vmm::{Tap, Vmm};

/// The processes that hold a KVM virtual machine. No other one is meant: a shell may well have the same words on
/// its command line.
pub struct Processes(Vec<Candidate>);

/// Without open descriptors: there may be thousands.
struct Candidate {
    pid: i32,
    args: Vec<String>,
    cgroups: Vec<String>,
    /// Names and network namespaces.
    taps: OnceCell<Vec<(String, u64)>>,
}

/// A process, and what the star stands for.
#[derive(Debug, PartialEq)]
pub struct Match {
    /// The process's number.
    pub pid: i32,
    /// What the selector's star stands for.
    pub star: String,
}

impl Processes {
    /// Those there are now; none if all selectors say themselves which process it is.
    pub fn scan<'a>(mut selectors: impl Iterator<Item = &'a Selector>) -> Result<Self> {
        if selectors.all(|selector| matches!(selector, Selector::Pid(_) | Selector::Pidfile(_))) {
            return Ok(Self(Vec::new()));
        }
        let all = all_processes().map_err(|error| Error::failed(format!("/proc: {error}")))?;
        // One that ends meanwhile is none.
        Ok(Self(all.flatten().filter_map(candidate).collect()))
    }

    /// The one that is meant, or with `each` all of them.
    pub fn find(&self, selector: &Selector, each: bool) -> std::result::Result<Vec<Match>, String> {
        let matches = self.matches(selector)?;
        match (&matches[..], each) {
            ([_], _) | (_, true) => Ok(matches),
            ([], false) => Err(format!(
                "{selector} matches no process that has a virtual machine; {}",
                match &self.0[..] {
                    [] =>
                        "there is none that may be looked at; run as root, or with CAP_SYS_PTRACE"
                            .to_string(),
                    all => format!("there are: {}", some(all.iter())),
                }
            )),
            (several, false) => {
                let matched = self
                    .0
                    .iter()
                    .filter(|candidate| several.iter().any(|found| found.pid == candidate.pid));
                Err(format!(
                    "{selector} matches {} processes: {}; make it narrower, or write each = true",
                    several.len(),
                    some(matched)
                ))
            }
        }
    }

    fn matches(&self, selector: &Selector) -> std::result::Result<Vec<Match>, String> {
        let alone = |pid| {
            Ok(vec![Match {
                pid,
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
                        let netns = Netns::open(&path).map_err(|_| {
                            format!("link {name}: there is no network namespace {path}")
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
                star,
            })
        };
        self.0.iter().filter_map(matched).collect()
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
            let taps = Vmm::open(self.pid).and_then(|vmm| vmm.taps());
            let key = |tap: Tap| (tap.name, tap.netns.inode());
            taps.unwrap_or_default().into_iter().map(key).collect()
        });
        taps.iter()
            .filter(|(_, inode)| netns.is_none_or(|wanted| wanted == *inode))
            .find_map(|(name, _)| glob(device, name))
    }
}

fn candidate(process: Process) -> Option<Candidate> {
    let vmm = Vmm::open(process.pid).ok()?;
    vmm.vm_fds().ok()??;
    let cgroups = ProcessCGroups::from_read(text(&process, "cgroup")?.as_bytes()).ok()?;
    Some(Candidate {
        args: args(&process)?,
        cgroups: cgroups.into_iter().map(|group| group.pathname).collect(),
        pid: process.pid,
        taps: OnceCell::new(),
    })
}

fn args(process: &Process) -> Option<Vec<String>> {
    let text = text(process, "cmdline")?;
    let args = text.split('\0').filter(|arg| !arg.is_empty());
    Some(args.map(str::to_string).collect())
}

/// One of its files. One byte that is no text must not hide it.
fn text(process: &Process, file: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut file = process.open_relative(file).ok()?;
    file.read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn pidfile(path: &str) -> std::result::Result<i32, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("pidfile {path}: {error}; is the VMM running?"))?;
    let pid = text.trim().parse().ok().filter(|pid| *pid > 0);
    pid.ok_or_else(|| format!("pidfile {path}: there is no process number in it"))
}

/// The first few, by their number and arguments.
fn some<'a>(candidates: impl Iterator<Item = &'a Candidate>) -> String {
    const FEW: usize = 4;
    const LONG: usize = 60;
    let all: Vec<String> = candidates
        .map(|candidate| {
            let args = candidate.args.join(" ");
            match args.char_indices().nth(LONG) {
                Some((end, _)) => format!("{} ({}...)", candidate.pid, &args[..end]),
                None => format!("{} ({args})", candidate.pid),
            }
        })
        .collect();
    let more = match all.len().saturating_sub(FEW) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    format!("{}{more}", all[..all.len().min(FEW)].join(", "))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::io::Write;
    use std::os::unix::ffi::OsStrExt;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn process_without_a_virtual_machine_is_none() {
        let own = std::process::id() as i32;
        assert!(candidate(Process::new(own).unwrap()).is_none());
        let error = Processes(Vec::new())
            .find(&Selector::Cmdline("x".to_string()), false)
            .unwrap_err();
        assert!(error.ends_with("or with CAP_SYS_PTRACE"), "{error}");
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
        let found = args(&Process::new(child.id() as i32).unwrap());
        drop(input);
        child.wait().unwrap();
        assert_eq!(found.unwrap(), ["cat", "-", "x", "\u{fffd}"]);
    }

    #[test]
    fn pidfiles_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmm.pid");
        let selector = Selector::Pidfile(path.display().to_string());
        let find = || Processes(Vec::new()).find(&selector, false);
        assert!(find().unwrap_err().contains("is the VMM running?"));
        std::fs::write(&path, " 42\n").unwrap();
        assert_eq!(find().unwrap()[0].pid, 42);
        std::fs::write(&path, "no number").unwrap();
        assert!(find().unwrap_err().contains("no process number"));
    }
}
