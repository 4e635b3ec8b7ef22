// SPDX-License-Identifier: GPL-2.0-only

//! Stands in for a virtual machine monitor: one VM, one vCPU, and a guest that has halted for good, or spins if it is told to.
//! Thousands of these fit in where one real guest does.
//!
//! It keeps the descriptors that it was started with, such as that of a tap, and writes a byte when its guest is about to run.
#![allow(unsafe_code)]

use std::env;
use std::error::Error;
use std::io::{self, Write};

use kvm_bindings::{kvm_regs, kvm_userspace_memory_region};
use kvm_ioctls::Kvm;

const EINTR: i32 = 4;
const SIZE: usize = 4096;
const HLT: [u8; 2] = [0xf4; 2];
/// A jump to itself.
const JMP: [u8; 2] = [0xeb, 0xfe];

/// All of the guest's memory.
#[repr(align(4096))]
struct Page([u8; SIZE]);

fn main() -> Result<(), Box<dyn Error>> {
    let vm = Kvm::new()?.create_vm()?;
    // With an interrupt controller, a vCPU that halts waits inside of KVM.
    vm.create_irq_chip()?;
    let code = match env::args().nth(1).as_deref() {
        None => HLT,
        Some("spin") => JMP,
        Some(other) => return Err(format!("{other}: give spin, or nothing").into()),
    };
    let mut page = Box::new(Page([0; SIZE]));
    page.0
        .chunks_mut(code.len())
        .for_each(|place| place.copy_from_slice(&code));
    let page = Box::leak(page);
    let region = kvm_userspace_memory_region {
        memory_size: SIZE as u64,
        userspace_addr: page.0.as_mut_ptr() as u64,
        ..Default::default()
    };
    // SAFETY: The memory is never freed, and nobody but the guest uses it.
    unsafe { vm.set_user_memory_region(region)? };
    let mut vcpu = vm.create_vcpu(0)?;
    let mut sregs = vcpu.get_sregs()?;
    (sregs.cs.base, sregs.cs.selector) = (0, 0);
    vcpu.set_sregs(&sregs)?;
    vcpu.set_regs(&kvm_regs {
        rflags: 2,
        ..Default::default()
    })?;
    io::stdout().write_all(b"+")?;
    io::stdout().flush()?;
    loop {
        match vcpu.run() {
            // Whoever attaches something to the thread interrupts it.
            Err(error) if error.errno() == EINTR => {}
            ended => return Err(format!("the guest has left: {ended:?}").into()),
        }
    }
}
