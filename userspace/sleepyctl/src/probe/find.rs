// SPDX-License-Identifier: GPL-2.0-only

//! Finds a host's VMs and their vCPU threads.

use std::collections::HashSet;

use sleepy_uapi::Vcpu;

use super::machine::{Groups, Machine, tasks};
use crate::device::{Device, vm_name};
use crate::error::Result;
use crate::kvm_debug::{self, Vms};
use crate::vmm::Vmm;

/// The VMs that sleepy looks after.
pub fn added(device: &Device, kvm: &Vms, groups: &Groups) -> Result<Vec<Machine>> {
    let mut machines = Vec::new();
    for vm in device.vms()? {
        // One that is gone meanwhile was not there.
        let Some(vcpus) = device.vcpus(&vm)? else {
            continue;
        };
        let pid = vm.pid as i32;
        let seen: Vec<i32> = vcpus.iter().map(|vcpu| vcpu.tid as i32).collect();
        // Until it has seen them itself, its process's are taken.
        let own = if seen.is_empty() {
            tasks(pid)
        } else {
            seen.clone()
        };
        let shown = kvm.of(&own).next();
        let tids = match shown {
            Some(shown) if seen.is_empty() => shown.tids.clone(),
            _ => seen,
        };
        machines.push(Machine {
            label: format!("VM {}", vm_name(&vm)),
            id: Some(vm.id),
            fd: shown.map(|shown| shown.fd),
            halts_inside: halts_inside(shown, &vcpus),
            ..Machine::of(pid, tids, groups)
        });
    }
    Ok(machines)
}

/// Whether KVM halts a VM's vCPUs itself; none if nothing says so.
fn halts_inside(shown: Option<&kvm_debug::Vm>, vcpus: &[Vcpu]) -> Option<bool> {
    // One that has blocked in a halt has done so inside KVM.
    let has_halted = vcpus.iter().any(|vcpu| vcpu.halted > 0);
    shown
        .and_then(|vm| vm.halts_inside)
        .or(has_halted.then_some(true))
}

/// Those of the VMs that KVM shows that are none of these machines.
pub fn unknown<'a, 'b>(
    shown: impl Iterator<Item = &'a kvm_debug::Vm>,
    machines: impl Iterator<Item = &'b Machine>,
) -> impl Iterator<Item = &'a kvm_debug::Vm> {
    let threads = machines.flat_map(|machine| &machine.threads);
    let known: HashSet<i32> = threads.map(|thread| thread.tid).collect();
    shown.filter(move |vm| !vm.tids.iter().any(|tid| known.contains(tid)))
}

/// The VMs of a process besides those of it that are known already.
pub fn others_of(vmm: &Vmm, kvm: &Vms, groups: &Groups, known: &[&Machine]) -> Vec<Machine> {
    let pid = vmm.pid() as i32;
    let of = |tids: &[i32]| Machine {
        label: vmm.to_string(),
        ..Machine::of(pid, tids.to_vec(), groups)
    };
    // All of its threads, and so all of its VMs.
    if known.iter().any(|machine| !machine.are_vcpus) {
        return Vec::new();
    }
    let own = tasks(pid);
    let shown = unknown(kvm.of(&own), known.iter().copied()).map(|vm| Machine {
        fd: Some(vm.fd),
        halts_inside: vm.halts_inside,
        ..of(&vm.tids)
    });
    let shown: Vec<Machine> = shown.collect();
    if shown.is_empty() && known.is_empty() {
        return vec![of(&[])];
    }
    shown
}

/// Whether a process has a VM.
pub fn has_vm(vmm: &Vmm) -> bool {
    matches!(vmm.vm_fds(), Ok(Some(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halts_of_kvm_are_known_by_either_sign() {
        let shown = |halts_inside| kvm_debug::Vm {
            halts_inside,
            ..kvm_debug::Vm::default()
        };
        let vcpu = |halted| Vcpu {
            halted,
            ..Vcpu::default()
        };
        let (never, once) = ([vcpu(0)], [vcpu(0), vcpu(1)]);
        assert_eq!(halts_inside(None, &never), None);
        assert_eq!(halts_inside(None, &once), Some(true));
        assert_eq!(halts_inside(Some(&shown(None)), &never), None);
        assert_eq!(halts_inside(Some(&shown(None)), &once), Some(true));
        for inside in [true, false] {
            assert_eq!(
                halts_inside(Some(&shown(Some(inside))), &never),
                Some(inside)
            );
        }
    }
}
