// SPDX-License-Identifier: GPL-2.0-only

//! The ioctls of `/dev/sleepy` and of a tap, as safe functions. All `unsafe` code of sleepyctl is here.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::{Errno, Result};
use rustix::ioctl::{Getter, Ioctl, IoctlOutput, Opcode, Setter, Updater, ioctl};
use sleepy_uapi as uapi;
use sleepy_uapi::{
    Info, Link, Rule, Vcpu, VmAdd, VmArray, VmGet, VmLink, VmRemove, VmRule, VmSet, VmStats,
};

use crate::device::text;

/// [`uapi::IOC_INFO`].
pub fn info(device: impl AsFd) -> Result<Info> {
    // SAFETY: the call writes an `Info`, whose every bit pattern is valid.
    unsafe { ioctl(device, Getter::<{ uapi::IOC_INFO }, Info>::new()) }
}

/// [`uapi::IOC_VM_ADD`], with the addresses and numbers of `links` and `rules` filled in.
pub fn vm_add(
    device: impl AsFd,
    add: &mut VmAdd,
    links: &[Link],
    rules: &[KernelRule<'_>],
) -> Result<()> {
    let rules: Vec<Rule> = rules.iter().map(KernelRule::raw).collect();
    add.links = links.as_ptr() as u64;
    add.n_links = links.len() as u32;
    add.rules = rules.as_ptr() as u64;
    add.n_rules = rules.len() as u32;
    // SAFETY: the call reads and writes a `VmAdd`, and reads as many links, rules, instructions and bytes
    // of text as it is told of; all of them are borrowed until it has returned.
    let result = unsafe { ioctl(device, Updater::<{ uapi::IOC_VM_ADD }, VmAdd>::new(add)) };
    (add.links, add.rules) = (0, 0);
    result
}

/// A rule whose parts are borrowed.
pub struct KernelRule<'a> {
    /// One of `CLASS_*`.
    pub class: u32,
    /// `TO_VM`, `FROM_VM` or both.
    pub direction: u32,
    /// Read back as it is.
    pub tag: u32,
    /// Read back as it is.
    pub text: &'a str,
    /// What it matches.
    pub matcher: Matcher<'a>,
}

/// What a rule has the kernel run.
pub enum Matcher<'a> {
    /// What libpcap has made of an expression.
    Classic(&'a [pcap::BpfInstruction]),
    /// An eBPF program, which says the class.
    Program(BorrowedFd<'a>),
}

// The kernel's `struct sock_filter` has 8 bytes, and libpcap's `struct bpf_insn`, which
// `BpfInstruction` wraps, the same fields in the same places.
const _: () = assert!(size_of::<pcap::BpfInstruction>() == 8);

impl KernelRule<'_> {
    fn raw(&self) -> Rule {
        let rule = Rule {
            class: self.class,
            direction: self.direction,
            tag: self.tag,
            text: self.text.as_ptr() as u64,
            text_len: self.text.len() as u32,
            ..Rule::default()
        };
        match self.matcher {
            Matcher::Classic(insns) => Rule {
                len: insns.len() as u32,
                insns: insns.as_ptr() as u64,
                ..rule
            },
            Matcher::Program(fd) => Rule {
                prog_fd: fd.as_raw_fd(),
                ..rule
            },
        }
    }
}

/// [`uapi::IOC_VM_REMOVE`].
pub fn vm_remove(device: impl AsFd, remove: VmRemove) -> Result<()> {
    // SAFETY: the call reads a `VmRemove`.
    unsafe {
        ioctl(
            device,
            Setter::<{ uapi::IOC_VM_REMOVE }, VmRemove>::new(remove),
        )
    }
}

/// [`uapi::IOC_VM_SET`], with the address and number of `rules` filled in, if there are any to set.
pub fn vm_set(device: impl AsFd, set: &mut VmSet, rules: Option<&[KernelRule<'_>]>) -> Result<()> {
    let rules: Vec<Rule> = rules
        .unwrap_or_default()
        .iter()
        .map(KernelRule::raw)
        .collect();
    set.rules = rules.as_ptr() as u64;
    set.n_rules = rules.len() as u32;
    // SAFETY: the call reads and writes a `VmSet`, and reads as many rules, instructions and bytes of text as it is
    // told of; all of them are borrowed until it has returned.
    let result = unsafe { ioctl(device, Updater::<{ uapi::IOC_VM_SET }, VmSet>::new(set)) };
    set.rules = 0;
    result
}

/// [`uapi::IOC_VM_GET`].
pub fn vm_get(device: impl AsFd, get: &mut VmGet) -> Result<()> {
    // SAFETY: the call reads and writes a `VmGet`, whose every bit pattern is valid.
    unsafe { ioctl(device, Updater::<{ uapi::IOC_VM_GET }, VmGet>::new(get)) }
}

/// [`uapi::IOC_VM_STATS`].
pub fn vm_stats(device: impl AsFd, stats: &mut VmStats) -> Result<()> {
    // SAFETY: the call reads and writes a `VmStats`, whose every bit pattern is valid.
    unsafe {
        ioctl(
            device,
            Updater::<{ uapi::IOC_VM_STATS }, VmStats>::new(stats),
        )
    }
}

/// Fills `room`, returns how many items there are.
///
/// # Safety
///
/// `CALL` must take a `VmArray` and write `T`s, for which every bit pattern is valid.
unsafe fn fill<const CALL: Opcode, T>(device: impl AsFd, id: u32, room: &mut [T]) -> Result<u32> {
    let mut array = VmArray {
        id,
        count: room.len() as u32,
        items: room.as_mut_ptr() as u64,
    };
    // SAFETY: the call reads and writes a `VmArray`, and at most `room.len()` items at the address of `room`.
    unsafe { ioctl(device, Updater::<CALL, VmArray>::new(&mut array)) }?;
    Ok(array.count)
}

/// [`uapi::IOC_VM_VCPUS`]: fills `room`, returns how many there are.
pub fn vm_vcpus(device: impl AsFd, id: u32, room: &mut [Vcpu]) -> Result<u32> {
    // SAFETY: that is what the call does.
    unsafe { fill::<{ uapi::IOC_VM_VCPUS }, Vcpu>(device, id, room) }
}

/// [`uapi::IOC_VM_LINKS`]: fills `room`, returns how many there are.
pub fn vm_links(device: impl AsFd, id: u32, room: &mut [VmLink]) -> Result<u32> {
    // SAFETY: that is what the call does.
    unsafe { fill::<{ uapi::IOC_VM_LINKS }, VmLink>(device, id, room) }
}

/// [`uapi::IOC_VM_RULES`]: fills `room`, returns how many there are.
pub fn vm_rules(device: impl AsFd, id: u32, room: &mut [VmRule]) -> Result<u32> {
    // SAFETY: that is what the call does.
    unsafe { fill::<{ uapi::IOC_VM_RULES }, VmRule>(device, id, room) }
}

/// `struct ifreq`, as far as it is used here.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Ifreq {
    name: [u8; 16],
    /// `ifr_flags`, or `sa_family` of `ifr_hwaddr`.
    value: u16,
    rest: [u8; 22],
}

// linux/sockios.h
const SIOCGIFHWADDR: Opcode = 0x8927;

/// Of which kind an interface is, one of `ARPHRD_*`, in the network namespace of a socket.
pub fn hardware_type(socket: impl AsFd, device: &str) -> Result<u16> {
    let mut ifreq = Ifreq::default();
    // With a NUL behind it.
    let room = ifreq.name.len() - 1;
    if device.len() > room {
        return Err(Errno::NODEV);
    }
    ifreq.name[..device.len()].copy_from_slice(device.as_bytes());
    // SAFETY: the call reads and writes a `struct ifreq`, which is as large as `Ifreq` and may hold any bytes.
    unsafe { ioctl(socket, Updater::<SIOCGIFHWADDR, Ifreq>::new(&mut ifreq)) }?;
    Ok(ifreq.value)
}

// linux/if_tun.h; the size in TUNGETIFF's number is that of an int, though it writes a `struct ifreq`.
const TUNGETIFF: Opcode = 0x8004_54d2;
const TUNGETDEVNETNS: Opcode = 0x54e3;
const IFF_TAP: u16 = 2;

/// The name of the tap behind a descriptor; none if it is a tun.
pub fn tap_name(tap: impl AsFd) -> Result<Option<String>> {
    let mut ifreq = Ifreq::default();
    // SAFETY: the call writes a `struct ifreq`, which is as large as `Ifreq` and may hold any bytes.
    unsafe { ioctl(tap, Updater::<TUNGETIFF, Ifreq>::new(&mut ifreq)) }?;
    Ok((ifreq.value & IFF_TAP != 0).then(|| text(&ifreq.name)))
}

/// A descriptor of the network namespace of the tap behind a descriptor.
pub fn tap_netns(tap: impl AsFd) -> Result<OwnedFd> {
    // SAFETY: the call takes no argument, and returns a new descriptor as `GetNetns` expects.
    unsafe { ioctl(tap, GetNetns) }
}

struct GetNetns;

// SAFETY: TUNGETDEVNETNS takes no argument, and the descriptor that it returns is the caller's alone.
unsafe impl Ioctl for GetNetns {
    type Output = OwnedFd;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        TUNGETDEVNETNS
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> Result<OwnedFd> {
        // SAFETY: the call has succeeded, so that `out` is a new descriptor that nobody else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(out) })
    }
}
