// SPDX-License-Identifier: GPL-2.0-only

//! All `unsafe` code of the fuzzer: calls with any argument, memory to point at, and KCOV's.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap, mmap_anonymous, mprotect, munmap};
use sleepy_uapi::{
    Info, Link, Rule, Vcpu, VmAdd, VmArray, VmGet, VmLink, VmRemove, VmSet, VmStats,
};

/// Pages, as many as the longest argument needs.
const EDGE: usize = 2 * 4096;

/// What a call may be given and may write.
///
/// # Safety
///
/// Every byte of it belongs to a field, and may have any value.
pub unsafe trait Plain: Copy {
    /// Its bytes.
    fn bytes(&self) -> &[u8] {
        // SAFETY: By the trait's requirements there is no padding.
        unsafe { slice::from_raw_parts(ptr::from_ref(self).cast(), size_of::<Self>()) }
    }
}

macro_rules! plain {
    ($($name:ty),*) => {$(
        // SAFETY: An integer, or of the ABI, whose structures are of integers with explicit padding.
        unsafe impl Plain for $name {}
    )*};
}
plain!(
    u64, Info, Link, Rule, Vcpu, VmAdd, VmArray, VmGet, VmLink, VmRemove, VmSet, VmStats
);

/// Memory that calls may be pointed at: pages that are read-only, some that are not, and some that are not there.
pub struct Arena {
    start: *mut u8,
    used: usize,
}

impl Arena {
    const ROOM: usize = 1 << 20;
    const SIZE: usize = EDGE + Self::ROOM + EDGE;

    /// With nothing in it.
    pub fn new() -> io::Result<Self> {
        let all = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: New memory, whose edges nobody but a call touches.
        let start = unsafe {
            let start = mmap_anonymous(ptr::null_mut(), Self::SIZE, all, MapFlags::PRIVATE)?;
            mprotect(start, EDGE, MprotectFlags::READ)?;
            mprotect(
                start.byte_add(EDGE + Self::ROOM),
                EDGE,
                MprotectFlags::empty(),
            )?;
            start.cast()
        };
        Ok(Self { start, used: 0 })
    }

    /// Forgets what is in it.
    pub fn clear(&mut self) {
        self.used = 0;
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) -> u64 {
        assert!(offset + bytes.len() <= Self::ROOM, "the arena is full");
        // SAFETY: Within the writable pages, to which there are no references.
        unsafe {
            let to = self.start.add(EDGE + offset);
            ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
            to as u64
        }
    }

    /// Puts something into it, with `room` bytes at least, and returns where it is.
    pub fn put(&mut self, bytes: &[u8], room: usize) -> u64 {
        let offset = self.used;
        self.used = (offset + bytes.len().max(room)).next_multiple_of(8);
        assert!(self.used <= Self::ROOM, "the arena is full");
        self.write(offset, bytes)
    }

    /// Puts something at its end, the last `missing` bytes where nothing is.
    pub fn put_across(&mut self, bytes: &[u8], missing: usize) -> u64 {
        let there = &bytes[..bytes.len().saturating_sub(missing)];
        self.write(Self::ROOM - there.len(), there)
    }

    /// Puts something where a call can read it, and not write.
    pub fn put_read_only(&mut self, bytes: &[u8]) -> u64 {
        assert!(bytes.len() <= EDGE);
        let all = MprotectFlags::READ | MprotectFlags::WRITE;
        // SAFETY: It is the first edge, to which there are no references.
        unsafe {
            mprotect(self.start.cast(), EDGE, all).expect("mprotect");
            ptr::copy_nonoverlapping(bytes.as_ptr(), self.start, bytes.len());
            mprotect(self.start.cast(), EDGE, MprotectFlags::READ).expect("mprotect");
        }
        self.start as u64
    }

    /// What a call has written at an address that `put` has returned.
    pub fn get<T: Plain>(&self, address: u64) -> T {
        let offset = address as usize - self.start as usize;
        assert!(offset + size_of::<T>() <= EDGE + Self::ROOM);
        // SAFETY: Within the readable pages, and any bytes are a `T`.
        unsafe { ptr::read_unaligned(self.start.add(offset).cast()) }
    }

    /// Addresses at which nothing can be read or written; the first one is read-only.
    pub fn bad(&self) -> [u64; 9] {
        let start = self.start as u64;
        let end = start + (EDGE + Self::ROOM) as u64;
        let top = 0x7fff_ffff_f000;
        [
            start,
            0,
            1,
            end,
            top,
            1 << 47,
            1 << 63,
            0xffff_8880_0000_0000,
            u64::MAX,
        ]
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: Made by `new`; nothing refers to it.
        let _ = unsafe { munmap(self.start.cast(), Self::SIZE) };
    }
}

struct Any(Opcode, u64);

// SAFETY: Nothing is made of what the call returns; for what it is pointed at see `call`.
unsafe impl Ioctl for Any {
    type Output = ();
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.0
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.1 as *mut c_void
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> rustix::io::Result<()> {
        Ok(())
    }
}

/// Any ioctl of `/dev/sleepy`, or of KCOV. All that it may write to must be in an [`Arena`], or not be there.
pub fn call(device: impl AsFd, number: u32, argument: u64) -> rustix::io::Result<()> {
    // SAFETY: To an arena's memory there are no references, and elsewhere nothing is written.
    unsafe { ioctl(device, Any(number, argument)) }
}

const KCOV_INIT_TRACE: u32 = 0x8008_6301;
const KCOV_ENABLE: u32 = 0x6364;
const KCOV_DISABLE: u32 = 0x6365;

/// What this thread reaches in the kernel (Documentation/dev-tools/kcov.rst in its source).
pub struct Kcov {
    file: File,
    area: *mut u64,
    seen: Vec<bool>,
    /// Addresses in the module.
    pub pcs: Vec<u64>,
}

impl Kcov {
    const WORDS: usize = 1 << 18;
    /// More than the module has bytes of code, and a power of two.
    const CODE: usize = 1 << 22;

    /// From now on; none on a kernel without.
    pub fn start() -> Option<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .open("/sys/kernel/debug/kcov");
        let file = file.ok()?;
        call(&file, KCOV_INIT_TRACE, Self::WORDS as u64).expect("KCOV_INIT_TRACE");
        let all = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: New memory, which the kernel writes to as long as this thread is traced.
        let area = unsafe {
            mmap(
                ptr::null_mut(),
                Self::WORDS * 8,
                all,
                MapFlags::SHARED,
                &file,
                0,
            )
        };
        call(&file, KCOV_ENABLE, 0).expect("KCOV_ENABLE");
        Some(Self {
            file,
            area: area.expect("KCOV's memory").cast(),
            seen: vec![false; Self::CODE],
            pcs: Vec::new(),
        })
    }

    /// Takes what has been reached since the last time.
    pub fn take(&mut self) {
        // SAFETY: The first word is the number of those that follow; this thread writes to them, in the kernel.
        let count = unsafe { AtomicU64::from_ptr(self.area) };
        for index in 1..=count.load(Ordering::Relaxed) as usize {
            // SAFETY: Within the mapping, as KCOV counts no more than that.
            let pc = unsafe { self.area.add(index).read_volatile() };
            let seen = &mut self.seen[pc as usize % Self::CODE];
            if !*seen {
                *seen = true;
                self.pcs.push(pc);
            }
        }
        count.store(0, Ordering::Relaxed);
    }
}

impl Drop for Kcov {
    fn drop(&mut self) {
        let _ = call(&self.file, KCOV_DISABLE, 0);
        // SAFETY: Nothing refers to it, and the kernel writes no more.
        let _ = unsafe { munmap(self.area.cast(), Self::WORDS * 8) };
    }
}
