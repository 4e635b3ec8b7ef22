// SPDX-License-Identifier: GPL-2.0-only

//! The machine: one page of memory, with the guest's program in it, and vCPUs in real mode.

use std::io;

use clap::ValueEnum;
use kvm_bindings::{
    KVM_MP_STATE_RUNNABLE, kvm_mp_state, kvm_msi, kvm_regs, kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

const PAGE: usize = 4096;
/// Where the program is, and the handler of the interrupt.
const PROGRAM: u64 = 0x800;
const HANDLER: u64 = 0xc00;
const STACK: u64 = PAGE as u64;
/// Where an Intel CPU without "unrestricted guest" keeps what it needs for real mode.
const TSS: usize = 0xfffb_d000;

/// The interrupt is an NMI: it needs no setting up by the guest, and ends by its IRET alone.
const VECTOR: u64 = 2;
const MSI_ALL: u32 = 0xfee0_0000 | 0xff << 12;
const MSI_NMI: u32 = 4 << 8;

/// What the guest does for ever.
#[derive(Clone, Copy, ValueEnum)]
pub enum Mode {
    /// Jump to itself
    Spin,
    /// Halt; an interrupt wakes it for a moment
    Halt,
    /// Write to a port, which the VMM handles
    Exit,
}

impl Mode {
    fn program(self) -> &'static [u8] {
        match self {
            // jmp .
            Self::Spin => &[0xeb, 0xfe],
            // hlt; jmp .-1
            Self::Halt => &[0xf4, 0xeb, 0xfd],
            // out 0x80, al; jmp .-2
            Self::Exit => &[0xe6, 0x80, 0xeb, 0xfc],
        }
    }
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("KVM: {0}")]
    Kvm(#[from] kvm_ioctls::Error),
    #[error("guest memory: {0}")]
    Memory(String),
    #[error("tap {name}: {source}")]
    Tap { name: String, source: tun::Error },
    #[error("the guest stopped: {0}")]
    Guest(String),
    #[error("--name has a NUL in it")]
    Name,
    #[error("--add-vcpu-after: not a time")]
    Time,
    #[error("a vCPU's thread ended before it ran")]
    Thread,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// See the module.
pub struct Machine {
    vm: VmFd,
    /// The VM's memory is mapped here for as long as the VM lives.
    _memory: GuestMemoryMmap,
}

impl Machine {
    /// A machine with an interrupt controller, without which a halt would end KVM_RUN.
    pub fn new(mode: Mode) -> Result<Self, Error> {
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), PAGE)])
            .map_err(|error| Error::Memory(error.to_string()))?;
        let write = |bytes: &[u8], at: u64| {
            memory
                .write_slice(bytes, GuestAddress(at))
                .map_err(|error| Error::Memory(error.to_string()))
        };
        write(mode.program(), PROGRAM)?;
        // iret
        write(&[0xcf], HANDLER)?;
        // A real mode interrupt vector: offset, segment.
        write(&(HANDLER as u32).to_le_bytes(), VECTOR * 4)?;

        let vm = Kvm::new()?.create_vm()?;
        vm.set_tss_address(TSS)?;
        vm.create_irq_chip()?;
        let host = memory
            .get_host_address(GuestAddress(0))
            .map_err(|error| Error::Memory(error.to_string()))?;
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: PAGE as u64,
            userspace_addr: host as u64,
        };
        // SAFETY: `host` is the start of a mapping of PAGE bytes, which lives until `_memory` is dropped: after
        // `vm`, by the order of the fields. Nothing in this process refers to its contents any more.
        #[allow(unsafe_code)]
        unsafe {
            vm.set_user_memory_region(region)?;
        }
        Ok(Self {
            vm,
            _memory: memory,
        })
    }

    /// A new vCPU at the start of the program.
    pub fn vcpu(&self, index: usize) -> Result<Vcpu, Error> {
        let fd = self.vm.create_vcpu(index as u64)?;
        let mut sregs = fd.get_sregs()?;
        sregs.cs.base = 0;
        sregs.cs.selector = 0;
        fd.set_sregs(&sregs)?;
        // Bit 1 is always set.
        fd.set_regs(&kvm_regs {
            rip: PROGRAM,
            rsp: STACK,
            rflags: 2,
            ..Default::default()
        })?;
        // All but the first would wait for the first to start them.
        fd.set_mp_state(kvm_mp_state {
            mp_state: KVM_MP_STATE_RUNNABLE,
        })?;
        Ok(Vcpu { fd })
    }

    /// Sends every vCPU an interrupt.
    pub fn interrupt(&self) -> Result<(), Error> {
        self.vm.signal_msi(kvm_msi {
            address_lo: MSI_ALL,
            data: MSI_NMI,
            ..Default::default()
        })?;
        Ok(())
    }
}

/// One vCPU.
pub struct Vcpu {
    fd: VcpuFd,
}

impl Vcpu {
    /// Runs it for ever; returns why it could not.
    pub fn run(&mut self) -> Error {
        loop {
            match self.fd.run() {
                Ok(VcpuExit::IoOut(..) | VcpuExit::Intr) => {}
                Ok(exit) => return Error::Guest(format!("{exit:?}")),
                Err(error) if error.errno() == rustix::io::Errno::INTR.raw_os_error() => {}
                Err(error) => return error.into(),
            }
        }
    }
}
