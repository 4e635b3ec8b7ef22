// SPDX-License-Identifier: GPL-2.0-only

//! The CPU weight of a control group.
//!
//! The kernel exports nothing to set it by; the group's own files do.
//!
//! C headers: [`include/linux/cgroup.h`](srctree/include/linux/cgroup.h), [`include/linux/fs.h`](srctree/include/linux/fs.h)

use super::{bindings as helpers, series::EOPNOTSUPP};
use core::{fmt::Write, ptr::NonNull};
use kernel::{
    bindings,
    error::{from_err_ptr, to_result},
    prelude::*,
    task::Task,
};

/// A file of a control group, open for reading and writing.
///
/// # Invariants
///
/// Owns a reference to the file.
struct File(NonNull<bindings::file>);

// SAFETY: The file belongs to no thread.
unsafe impl Send for File {}
// SAFETY: Reads and writes at positions of our own are serialised by the file system.
unsafe impl Sync for File {}

/// A number in decimal, for a file.
struct Decimal {
    text: [u8; 12],
    len: usize,
}

impl Write for Decimal {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let end = self.len + text.len();
        let room = self.text.get_mut(self.len..end).ok_or(core::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

impl File {
    fn open(directory: &File, name: &CStr) -> Result<Self> {
        // SAFETY: The directory is valid by the type invariant, the name for the call.
        let file = from_err_ptr(unsafe {
            helpers::sleepy_open_beside(directory.0.as_ptr(), name.as_char_ptr())
        })?;
        // INVARIANT: The reference is ours.
        NonNull::new(file).map(Self).ok_or(EBADF)
    }

    /// The number that the file says.
    fn read(&self) -> Result<u64> {
        let mut text = [0u8; 32];
        let mut position = 0;
        // SAFETY: The file is valid by the type invariant, and `text` has room.
        let len = unsafe {
            bindings::kernel_read(
                self.0.as_ptr(),
                text.as_mut_ptr().cast(),
                text.len(),
                &raw mut position,
            )
        };
        let len = usize::try_from(len).map_err(|_| Error::from_errno(len as i32))?;
        let text = core::str::from_utf8(&text[..len]).map_err(|_| EIO)?;
        text.trim().parse().map_err(|_| EIO)
    }

    fn write(&self, number: u64) -> Result {
        let mut decimal = Decimal {
            text: [0; 12],
            len: 0,
        };
        write!(decimal, "{number}").map_err(|_| EINVAL)?;
        let mut position = 0;
        // SAFETY: The file is valid by the type invariant, and so is the text.
        let written = unsafe {
            bindings::kernel_write(
                self.0.as_ptr(),
                decimal.text.as_ptr().cast(),
                decimal.len,
                &raw mut position,
            )
        };
        if written < 0 {
            to_result(written as i32)
        } else {
            Ok(())
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: By the type invariant there is a reference to give back.
        unsafe { bindings::fput(self.0.as_ptr()) };
    }
}

/// What a group gets of a CPU among its siblings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Weight {
    /// `cpu.weight`, 1 to 10000; in version 1, `cpu.shares`.
    pub(crate) weight: u64,
    /// `cpu.idle`: gives way to every group that is not idle.
    pub(crate) idle: bool,
}

/// A control group with a CPU controller, of either version.
///
/// Keeps nothing but its files: the group may be removed, whereupon all fails with `ENODEV`. All of it for process context.
///
/// # Invariants
///
/// `directory` is the directory of a control group.
pub(crate) struct Group {
    directory: File,
    weight: File,
    idle: File,
    /// Version 1.
    legacy: bool,
}

impl Group {
    /// The group behind a descriptor of its directory. `EBADF` if it is not open, or not a control group's;
    /// `EOPNOTSUPP` if the group has no CPU controller of its own.
    pub(crate) fn from_fd(fd: i32) -> Result<Self> {
        let fd = u32::try_from(fd).map_err(|_| EBADF)?;
        // SAFETY: Looks the descriptor up in the current process, and takes a reference for us. INVARIANT: That one.
        let directory = File(NonNull::new(unsafe { bindings::fget(fd) }).ok_or(EBADF)?);
        // SAFETY: Valid by its reference.
        let legacy = match unsafe { helpers::sleepy_cgroup_version(directory.0.as_ptr()) } {
            1 => true,
            2 => false,
            _ => return Err(EBADF),
        };
        Self::open(directory, legacy)
    }

    fn open(directory: File, legacy: bool) -> Result<Self> {
        let missing = |error| if error == ENOENT { EOPNOTSUPP } else { error };
        let weight = if legacy { c"cpu.shares" } else { c"cpu.weight" };
        Ok(Self {
            weight: File::open(&directory, weight).map_err(missing)?,
            idle: File::open(&directory, c"cpu.idle").map_err(missing)?,
            directory,
            legacy,
        })
    }

    /// The same group by other files: whoever reads or writes one of these does not wait for who does with those.
    pub(crate) fn reopen(&self) -> Result<Self> {
        // SAFETY: Valid by the type invariant; takes a reference for us. INVARIANT: That one.
        let directory = unsafe { bindings::get_file(self.directory.0.as_ptr()) };
        Self::open(File(NonNull::new(directory).ok_or(EBADF)?), self.legacy)
    }

    /// Its identity: the inode of its directory.
    pub(crate) fn id(&self) -> u64 {
        // SAFETY: Valid by the type invariant.
        unsafe { helpers::sleepy_file_inode(self.directory.0.as_ptr()) }
    }

    /// What it has now.
    pub(crate) fn get(&self) -> Result<Weight> {
        Ok(Weight {
            weight: self.weight.read()?,
            idle: self.idle.read()? != 0,
        })
    }

    /// Changes it. A group that is idle has no weight: what it shall have otherwise is forgotten by then.
    pub(crate) fn set(&self, weight: Weight) -> Result {
        self.idle.write(weight.idle.into())?;
        if !weight.idle {
            self.weight.write(weight.weight)?;
        }
        Ok(())
    }

    /// Makes sure that it can be changed.
    pub(crate) fn touch(&self) -> Result {
        self.idle.write(self.idle.read()?)
    }

    /// Whether it is the same group.
    pub(crate) fn is(&self, other: &Self) -> bool {
        let (own, its) = (self.directory.0, other.directory.0);
        // SAFETY: Both are valid by the type invariants.
        unsafe { helpers::sleepy_same_file(own.as_ptr(), its.as_ptr()) }
    }

    /// The least that `weight` can be.
    pub(crate) fn least(&self) -> u64 {
        if self.legacy {
            2
        } else {
            1
        }
    }

    /// Whether the thread's CPU time is the group's, or that of one inside of it.
    pub(crate) fn has(&self, task: &Task) -> bool {
        // SAFETY: Both are valid by their references.
        unsafe { helpers::sleepy_cgroup_has(self.directory.0.as_ptr(), task.as_ptr()) }
    }
}
