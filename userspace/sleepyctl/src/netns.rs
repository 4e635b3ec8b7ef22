// SPDX-License-Identifier: GPL-2.0-only

//! Network namespaces.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::io::{Errno, Result};
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::ioctl;

/// Where named namespaces are kept.
pub const NAMED: &str = "/run/netns";
const OWN: &str = "/proc/thread-self/ns/net";

/// A network namespace, kept by a descriptor.
pub struct Netns {
    fd: OwnedFd,
    inode: u64,
}

impl Netns {
    /// The caller's.
    pub fn own() -> Result<Self> {
        Self::open(OWN)
    }

    /// That of a file, such as one in [`NAMED`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_fd(open(
            path.as_ref(),
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?)
    }

    /// That of a descriptor.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        let inode = fstat(&fd)?.st_ino;
        Ok(Self { fd, inode })
    }

    /// What it is known by.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Runs `f` in it, on a thread of its own.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        if Self::own().is_ok_and(|own| own.inode == self.inode) {
            return Ok(f());
        }
        let enter_and_run = || {
            move_into_link_name_space(self.fd.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(f())
        };
        std::thread::scope(|scope| scope.spawn(enter_and_run).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// The index of the interface of this name, if there is one.
    pub fn ifindex(&self, name: &str) -> Result<Option<u32>> {
        match name_to_index(self.socket()?, name) {
            Ok(index) => Ok(Some(index)),
            Err(Errno::NODEV) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Whether an interface has an Ethernet header.
    pub fn is_ethernet(&self, name: &str) -> Result<bool> {
        const ARPHRD_ETHER: u16 = 1;
        Ok(ioctl::hardware_type(self.socket()?, name)? == ARPHRD_ETHER)
    }

    fn socket(&self) -> Result<OwnedFd> {
        self.run(|| socket(AddressFamily::UNIX, SocketType::DGRAM, None))?
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The names in [`NAMED`], by inode; namespaces without a name are not in it.
pub fn names() -> HashMap<u64, String> {
    let Ok(entries) = std::fs::read_dir(NAMED) else {
        return HashMap::new();
    };
    let name = |entry: std::fs::DirEntry| {
        // Not `DirEntry::metadata`: that would be the file below the mount.
        let inode = std::fs::metadata(entry.path()).ok()?.ino();
        Some((inode, entry.file_name().into_string().ok()?))
    };
    entries.flatten().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_found() {
        let own = Netns::own().unwrap();
        assert_eq!(own.ifindex("lo").unwrap(), Some(1));
        assert_eq!(own.ifindex("no-such-device").unwrap(), None);
    }

    #[test]
    fn own_namespace_needs_no_rights() {
        assert_eq!(Netns::own().unwrap().run(|| 7).unwrap(), 7);
    }

    #[test]
    fn file_is_no_namespace() {
        let file = Netns::open("/proc/self/status").unwrap();
        assert_eq!(file.run(|| ()).unwrap_err(), Errno::INVAL);
    }
}
