// SPDX-License-Identifier: GPL-2.0-only

//! Pinned eBPF programs, as rules.

use std::os::fd::{AsFd, BorrowedFd};

use aya::programs::{ProgramError, ProgramFd, ProgramInfo, ProgramType};

use crate::error::{Error, Result};

/// A program that a rule can have.
pub struct Program {
    id: u32,
    fd: ProgramFd,
}

impl Program {
    /// The one that is pinned there.
    pub fn open(path: &str) -> Result<Self> {
        if path.contains('\0') {
            return Err(Error::failed(format!("{path:?} is no path")));
        }
        let info = ProgramInfo::from_pin(path).map_err(|error| cannot_open(path, &error))?;
        let kind = info
            .program_type()
            .map_err(|error| cannot_open(path, &error))?;
        if kind != ProgramType::SocketFilter {
            return Err(Error::failed(format!(
                "{path}: a program of type {kind:?}; load one of type SocketFilter \
                 (`bpftool prog load FILE {path} type socket`)"
            )));
        }
        let fd = info.fd().map_err(|error| cannot_open(path, &error))?;
        Ok(Self { id: info.id(), fd })
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
        Some(std::io::ErrorKind::PermissionDenied) => {
            Error::not_permitted(format!("{path}: not permitted; run as root"))
        }
        Some(std::io::ErrorKind::InvalidInput) => Error::failed(format!(
            "{path}: not a pinned eBPF program; name a file below /sys/fs/bpf"
        )),
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
