// SPDX-License-Identifier: GPL-2.0-only

//! The process that runs a VM, held by a pidfd so that its number cannot come to mean another one.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};

use procfs::ProcError;
use procfs::process::{FDInfo, FDTarget, Process};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use rustix::time::Timespec;

use crate::error::{Error, Result, words};
use crate::ioctl;
use crate::netns::Netns;

/// For whoever may not look at a process.
pub const REMEDY: &str = "run as root, or with CAP_SYS_PTRACE";

/// A process, alive when it was opened.
pub struct Vmm {
    pid: i32,
    pidfd: OwnedFd,
    process: Process,
    comm: String,
    start_time: u64,
}

impl fmt::Display for Vmm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.comm)
    }
}

/// A tap that a VMM holds open.
pub struct Tap {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub netns: Netns,
}

impl Vmm {
    /// The process with this number.
    ///
    /// First the pidfd, then what `/proc` says, then whether the process of the pidfd still lives: if it
    /// does, its number was not free meanwhile, and `/proc` spoke of the same process.
    pub fn open(pid: i32) -> Result<Self> {
        let number = Pid::from_raw(pid)
            .ok_or_else(|| Error::usage("--pid 0: no process has the number 0"))?;
        let pidfd =
            pidfd_open(number, PidfdFlags::empty()).map_err(|errno| no_process(pid, errno))?;
        let process =
            Process::new(pid).map_err(|error| proc_error(&format!("process {pid}"), &error))?;
        let stat = process
            .stat()
            .map_err(|error| proc_error(&format!("process {pid}"), &error))?;
        let vmm = Self {
            pid,
            pidfd,
            process,
            comm: stat.comm,
            start_time: stat.starttime,
        };
        if vmm.has_ended() {
            Err(Error::failed(format!("{vmm} has ended")))
        } else {
            Ok(vmm)
        }
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.pid.unsigned_abs()
    }

    /// When it started, in clock ticks after boot.
    pub fn start_time(&self) -> u64 {
        self.start_time
    }

    /// Its network namespace.
    pub fn netns(&self) -> Result<Netns> {
        Netns::open(format!("/proc/{}/ns/net", self.pid))
            .map_err(|errno| Error::os(format!("the network namespace of {self}"), errno))
    }

    /// The numbers of its descriptors of KVM virtual machines; none if it has no virtual machine.
    ///
    /// A VMM may have closed them, and still have its vCPUs'.
    pub fn vm_fds(&self) -> Result<Option<Vec<i32>>> {
        let (mut vms, mut has_vcpu) = (Vec::new(), false);
        for fd in self.fds()? {
            match fd.target {
                FDTarget::AnonInode(name) if name == "kvm-vm" => vms.push(fd.fd),
                FDTarget::AnonInode(name) => has_vcpu |= name.starts_with("kvm-vcpu"),
                _ => {}
            }
        }
        Ok((has_vcpu || !vms.is_empty()).then_some(vms))
    }

    /// Its descriptors, by number; without those that are closed while we look.
    fn fds(&self) -> Result<impl Iterator<Item = FDInfo>> {
        let failed = |error| proc_error(&format!("the descriptors of {self}"), &error);
        let mut fds: Vec<FDInfo> = self.process.fd().map_err(failed)?.flatten().collect();
        // Who may list them may not look at any of them, perhaps. The directory's own two may be counted.
        if fds.is_empty() && self.process.fd_count().is_ok_and(|count| count > 2) {
            return Err(failed(ProcError::PermissionDenied(None)));
        }
        fds.sort_unstable_by_key(|fd| fd.fd);
        Ok(fds.into_iter())
    }

    /// The taps that it holds open, by descriptor.
    pub fn taps(&self) -> Result<Vec<Tap>> {
        let mut taps = Vec::new();
        for fd in self.tap_fds()? {
            // A descriptor closed or reused since we looked is not a tap of this VM any more.
            let own = match self.take(fd) {
                Ok(own) => own,
                Err(Errno::BADF) => continue,
                Err(errno) => return Err(self.take_error(fd, errno)),
            };
            let Ok(Some(name)) = ioctl::tap_name(&own) else {
                continue;
            };
            let netns = ioctl::tap_netns(&own)
                .and_then(Netns::from_fd)
                .map_err(|errno| {
                    Error::os(
                        format!("the network namespace of the tap {name} of {self}"),
                        errno,
                    )
                })?;
            taps.push(Tap { name, netns });
        }
        Ok(taps)
    }

    /// Numbers of the descriptors whose `fdinfo` names an interface.
    fn tap_fds(&self) -> Result<Vec<i32>> {
        let info = |fd: i32| std::fs::read_to_string(format!("/proc/{}/fdinfo/{fd}", self.pid));
        let numbers = self.fds()?.map(|fd| fd.fd);
        Ok(numbers
            .filter(|fd| info(*fd).is_ok_and(|info| names_interface(&info)))
            .collect())
    }

    /// A duplicate of one of its descriptors.
    pub fn take(&self, fd: i32) -> rustix::io::Result<OwnedFd> {
        pidfd_getfd(&self.pidfd, fd, PidfdGetfdFlags::empty())
    }

    /// Why [`Vmm::take`] failed.
    pub fn take_error(&self, fd: i32, errno: Errno) -> Error {
        match errno {
            Errno::PERM => Error::not_permitted(format!(
                "not permitted to take descriptors from {self}; {REMEDY}"
            )),
            Errno::SRCH => Error::failed(format!("{self} has ended")),
            Errno::BADF => Error::failed(format!(
                "{self} has no descriptor {fd}; `ls -l /proc/{}/fd` lists them",
                self.pid
            )),
            _ => Error::failed(format!("descriptor {fd} of {self}: {}", words(errno))),
        }
    }

    /// Whether there is no such process any more.
    pub fn is_gone(pid: i32) -> bool {
        match Process::new(pid).and_then(|process| process.stat()) {
            Ok(stat) => matches!(stat.state, 'Z' | 'X'),
            Err(error) => matches!(error, ProcError::NotFound(_)),
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        has_ended(&self.pidfd)
    }

    /// Whether there is such a process, even if `/proc` does not show it.
    pub fn lives(pid: i32) -> bool {
        let pidfd = Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty()));
        matches!(pidfd, Some(Ok(pidfd)) if !has_ended(&pidfd))
    }
}

fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
    // A pidfd is readable once its process has ended.
    !matches!(poll(&mut fds, Some(&Timespec::default())), Ok(0))
}

/// A file of a process, or a thread, in `/proc`. What is no text in it must not hide the rest.
pub fn text(pid: impl fmt::Display, file: &str) -> std::io::Result<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/{file}"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether a descriptor's `fdinfo` is that of a tap with a device.
pub fn names_interface(fdinfo: &str) -> bool {
    fdinfo.lines().any(|line| {
        line.strip_prefix("iff:")
            .is_some_and(|name| !name.trim().is_empty())
    })
}

fn no_process(pid: i32, errno: Errno) -> Error {
    let thread_of = Process::new(pid)
        .and_then(|thread| thread.status())
        .ok()
        .filter(|status| status.tgid != pid);
    match (errno, thread_of) {
        (_, Some(status)) => Error::failed(format!(
            "{pid} is a thread of process {}; give --pid {0}",
            status.tgid
        )),
        (Errno::SRCH, None) => {
            Error::failed(format!("there is no process {pid}; give the VMM's pid"))
        }
        _ => Error::os(format!("process {pid}"), errno),
    }
}

fn proc_error(what: &str, error: &ProcError) -> Error {
    match error {
        ProcError::PermissionDenied(_) => {
            Error::not_permitted(format!("{what}: permission denied; run as root"))
        }
        ProcError::NotFound(_) => Error::failed(format!("{what} has ended")),
        _ => Error::failed(format!("{what}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn own_process_is_opened() {
        let own = std::process::id();
        let vmm = Vmm::open(own as i32).unwrap();
        assert_eq!(vmm.pid(), own);
        assert!(vmm.start_time() > 0);
        assert_eq!(vmm.vm_fds().unwrap(), None, "a test has no virtual machine");
    }

    #[test]
    fn ended_process_is_noticed() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let vmm = Vmm::open(child.id() as i32).unwrap();
        assert!(!vmm.has_ended());
        let pid = child.id() as i32;
        assert!(!Vmm::is_gone(pid));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(vmm.has_ended() && Vmm::is_gone(pid));
        let error = Vmm::open(child.id() as i32).err().unwrap().to_string();
        assert_eq!(
            error,
            format!("there is no process {}; give the VMM's pid", child.id())
        );
    }

    #[test]
    fn thread_is_no_process() {
        std::thread::spawn(|| {
            let tid = rustix::thread::gettid().as_raw_nonzero().get();
            let error = Vmm::open(tid).err().unwrap().to_string();
            let pid = std::process::id();
            assert_eq!(
                error,
                format!("{tid} is a thread of process {pid}; give --pid {pid}")
            );
        })
        .join()
        .unwrap();
    }

    #[test]
    fn interface_is_found_in_fdinfo() {
        assert!(names_interface(
            "pos:\t0\nflags:\t0104002\nmnt_id:\t27\nino:\t118\niff:\ttap0\n"
        ));
        assert!(
            !names_interface("pos:\t0\nflags:\t0104002\nmnt_id:\t27\nino:\t118\niff:\t\n"),
            "no device yet"
        );
        assert!(!names_interface(
            "pos:\t0\nflags:\t02\nmnt_id:\t15\nino:\t1\neventfd-count: 0\n"
        ));
    }
}
