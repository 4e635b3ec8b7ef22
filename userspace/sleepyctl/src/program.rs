// SPDX-License-Identifier: GPL-2.0-only

//! Pinned eBPF programs, as rules.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya::programs::{ProgramError, ProgramType, SchedClassifier};

use crate::error::{Error, Result};

/// A program that a rule can have.
///
/// aya opens pinned programs of many types, but has no such function for socket filters. Whichever it is, it does not
/// look at the type; we do, and the kernel does.
pub struct Program {
    id: u32,
    fd: OwnedFd,
}

impl Program {
    /// The one that is pinned there.
    pub fn open(path: &str) -> Result<Self> {
        if path.contains('\0') {
            return Err(Error::failed(format!("{path:?} is no path")));
        }
        let open = || {
            let pinned = SchedClassifier::from_pin(path)?;
            let info = pinned.info()?;
            let fd = pinned.fd()?.as_fd().try_clone_to_owned();
            Ok((info.program_type()?, info.id(), fd?))
        };
        let (kind, id, fd) = open().map_err(|error| cannot_open(path, &error))?;
        if kind != ProgramType::SocketFilter {
            return Err(Error::failed(format!(
                "{path}: a program of type {kind:?}; load one of type SocketFilter \
                 (`bpftool prog load FILE {path} type socket`)"
            )));
        }
        Ok(Self { id, fd })
    }

    /// By what the kernel knows it.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Its descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn cannot_open(path: &str, error: &ProgramError) -> Error {
    let os = match error {
        ProgramError::SyscallError(error) => Some(&error.io_error),
        _ => None,
    };
    match os.map(std::io::Error::kind) {
        Some(std::io::ErrorKind::NotFound) => Error::failed(format!(
            "{path}: there is no such file; pin the program: `bpftool prog load FILE {path} type socket`"
        )),
        // The kernel says the same of a file that is no pinned program.
        Some(std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::InvalidInput) => {
            Error::failed(format!(
                "{path}: this is no pinned eBPF program, or not permitted; name a file below /sys/fs/bpf, as root"
            ))
        }
        _ => Error::failed(format!("{path}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_program_is_named() {
        for path in ["/sys/fs/bpf/no-such-program", "/dev/null", "a\0b"] {
            let error = Program::open(path).err().unwrap().to_string();
            let shown = path.split('\0').next().unwrap_or_default();
            assert!(error.contains(shown), "{error}");
        }
    }
}
