// SPDX-License-Identifier: GPL-2.0-only

//! One VM: who it is, its vCPUs and its links.

use crate::{
    engine::Engine,
    rust::{
        kvm::{self, VcpuId, VmId},
        module_ref::ModuleRef,
        netdev::{Device, DeviceId, Rtnl},
        netfilter::DeviceHooks,
        preempt_notifier::Attachment,
        process::{self, Process},
        rcu_cell::RcuCell,
        timed::Timed,
    },
    sense::{
        packet::{LinkHook, Rules},
        vcpu::Vcpu,
    },
    turns::Turns,
    uapi,
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{Atomic, Relaxed},
        rcu, Arc, Mutex,
    },
    task::Task,
};

/// A VM's name, padded with NULs.
pub(crate) type Name = [u8; uapi::NAME_SIZE];

/// Who a VM is. None of it keeps the VM alive.
pub(crate) struct Identity {
    /// Its id, never used again.
    pub(crate) id: u32,
    /// Its name.
    pub(crate) name: Name,
    /// The VMM.
    pub(crate) process: Process,
    /// When that started, in clock ticks after boot.
    pub(crate) start_time: u64,
    /// The KVM VM. An address that is only compared, and only with those of VMs that `process` has now.
    pub(crate) kvm: VmId,
}

type Link = Pin<KBox<DeviceHooks<LinkHook>>>;

/// A VM.
///
/// Locks: `vcpus` and `links` are taken after the registry's lock and after RTNL, never within each other,
/// and never by hooks and notifiers, which have the engine alone.
#[pin_data]
pub(crate) struct Vm {
    /// Who it is.
    pub(crate) identity: Identity,
    /// Its hot half.
    pub(crate) engine: Arc<Timed<Engine>>,
    rules: Arc<RcuCell<Rules>>,
    #[pin]
    policy: Mutex<uapi::Policy>,
    #[pin]
    vcpus: Mutex<KVec<Attachment<Vcpu>>>,
    #[pin]
    links: Mutex<KVec<Link>>,
    lost_links: Atomic<u32>,
    _module: ModuleRef,
}

impl Vm {
    /// A VM without links and vCPUs; `policy` has been checked.
    pub(crate) fn new(
        identity: Identity,
        policy: &uapi::Policy,
        rules: Rules,
        turns: Arc<Turns>,
    ) -> Result<Arc<Self>> {
        let engine = Arc::pin_init(Timed::new(Engine::new(*policy, turns)), GFP_KERNEL)?;
        let rules = RcuCell::new(KBox::new(rules, GFP_KERNEL)?);
        let rules = Arc::new(rules, GFP_KERNEL)?;
        let policy = *policy;
        Arc::pin_init(
            pin_init!(Self {
                identity,
                engine,
                rules,
                policy <- new_mutex!(policy),
                vcpus <- new_mutex!(KVec::new()),
                links <- new_mutex!(KVec::new()),
                lost_links: Atomic::new(0),
                _module: ModuleRef::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// Hooks a device. The caller has made sure that no other VM has it.
    pub(crate) fn add_link(&self, device: Device, rtnl: &Rtnl) -> Result {
        let hook = LinkHook {
            engine: self.engine.clone(),
            rules: self.rules.clone(),
        };
        let mut links = self.links.lock();
        links.reserve(1, GFP_KERNEL)?;
        links.push(DeviceHooks::register(device, hook, rtnl)?, GFP_KERNEL)?;
        Ok(())
    }

    /// Lets go of a device that goes away, if it is one of its links. Requests may come where they cannot
    /// be seen any more: the VM is kept awake.
    pub(crate) fn lose_link(&self, device: DeviceId, _rtnl: &Rtnl) {
        let mut links = self.links.lock();
        let Some(index) = links.iter().position(|link| link.device().id() == device) else {
            return;
        };
        drop(links.remove(index));
        drop(links);
        self.lost_links.add(1, Relaxed);
        self.engine.hold();
    }

    /// Calls `f` for each link.
    pub(crate) fn each_link(&self, mut f: impl FnMut(&Device)) {
        self.links.lock().iter().for_each(|link| f(link.device()));
    }

    /// Looks for the VM in its process, and takes up the vCPUs that have come since. False if the VM, or
    /// its process, is gone.
    pub(crate) fn scan(&self) -> bool {
        let Some(thread) = self.identity.process.thread() else {
            return false;
        };
        kvm::Vm::find(&thread, |vm| {
            (vm.id() == self.identity.kvm).then(|| self.adopt(vm))
        })
        .is_some()
    }

    /// Takes up the vCPU threads that KVM has, and lets go of those it has not any more. What memory does
    /// not suffice for is left for the next time.
    fn adopt(&self, vm: &kvm::Vm) {
        let mut vcpus = self.vcpus.lock();
        for index in 0..vm.vcpus() {
            let Some((id, task)) = vm.vcpu(index) else {
                continue;
            };
            let mut known = false;
            for old in vcpus.iter_mut().filter(|old| old.id == id) {
                if core::ptr::eq(old.task(), &*task) {
                    known |= !old.gone();
                } else {
                    // Another thread runs this vCPU now.
                    self.engine.remove_thread(old.task());
                    old.detach();
                }
            }
            if !known {
                let _ = self.attach(&mut vcpus, id, index, task);
            }
        }
        self.sweep(&mut vcpus);
    }

    fn attach(
        &self,
        vcpus: &mut KVec<Attachment<Vcpu>>,
        id: VcpuId,
        index: u32,
        task: ARef<Task>,
    ) -> Result {
        vcpus.reserve(1, GFP_KERNEL)?;
        let vcpu = Vcpu::new(self.engine.clone(), id, index)?;
        let cpus = self.engine.turns.cpus.clone();
        self.engine.add_thread(task.clone())?;
        match Attachment::attach(task.clone(), cpus, vcpu) {
            Ok(attachment) => Ok(vcpus.push(attachment, GFP_KERNEL)?),
            Err(error) => {
                self.engine.remove_thread(&task);
                Err(error)
            }
        }
    }

    /// Drops those that have nothing to do with their thread any more.
    fn sweep(&self, vcpus: &mut KVec<Attachment<Vcpu>>) {
        let mut index = 0;
        while let Some(vcpu) = vcpus.get_mut(index) {
            if vcpu.gone() {
                self.engine.remove_thread(vcpu.task());
                let _ = vcpus.remove(index);
            } else {
                index += 1;
            }
        }
    }

    /// Ends everything that sleepy does to the VM, but for vCPU threads that do not run: see
    /// [`finished`](Self::finished).
    pub(crate) fn close(&self, _rtnl: &Rtnl) {
        let links = core::mem::replace(&mut *self.links.lock(), KVec::new());
        drop(links);
        self.engine.close();
        self.vcpus.lock().iter().for_each(Attachment::detach);
    }

    /// After [`close`](Self::close): whether no thread has anything to do with the VM any more.
    pub(crate) fn finished(&self) -> bool {
        let mut vcpus = self.vcpus.lock();
        self.sweep(&mut vcpus);
        vcpus.is_empty()
    }

    /// Replaces the policy, which has been checked.
    pub(crate) fn set_policy(&self, policy: &uapi::Policy) {
        let mut current = self.policy.lock();
        *current = *policy;
        Engine::set_policy(&self.engine, policy);
    }

    /// Replaces the rules, in one step for each packet. `ENOMEM`.
    pub(crate) fn set_rules(&self, rules: Rules) -> Result {
        let rules = KBox::new(rules, GFP_KERNEL)?;
        drop(self.rules.replace(rules));
        Ok(())
    }

    /// Describes it.
    pub(crate) fn get(&self, out: &mut uapi::VmGet) {
        let state = self.engine.state();
        out.id = self.identity.id;
        out.name = self.identity.name;
        out.pid = self.identity.process.number();
        out.start_time = self.identity.start_time;
        out.state = if state.sleepy() {
            uapi::STATE_SLEEPY
        } else {
            uapi::STATE_AWAKE
        };
        out.in_flight = state.in_flight() as u32;
        out.policy = *self.policy.lock();
        out.n_vcpus = self.vcpus.lock().len() as u32;
        out.n_links = self.links.lock().len() as u32;
        out.n_rules = self.rules.read(&rcu::read_lock()).len() as u32;
        out.lost_links = self.lost_links.load(Relaxed);
    }

    /// Calls `f` with each of its vCPUs.
    pub(crate) fn each_vcpu(&self, mut f: impl FnMut(uapi::Vcpu)) {
        for vcpu in self.vcpus.lock().iter() {
            let Some(thread) = self.engine.thread_state(vcpu.task()) else {
                continue;
            };
            let flag = |set: bool, flag: u32| if set { flag } else { 0 };
            f(uapi::Vcpu {
                index: vcpu.index,
                tid: process::tid(vcpu.task()),
                nice: thread.nice,
                baseline: thread.baseline,
                flags: flag(vcpu.attached(), uapi::VCPU_ATTACHED)
                    | flag(vcpu.on_cpu(), uapi::VCPU_ON_CPU)
                    | flag(thread.foreign, uapi::VCPU_FOREIGN)
                    | flag(thread.moved, uapi::VCPU_MOVED),
                reserved: 0,
                oncpu: vcpu.oncpu_time(),
                preempted: vcpu.preempted.get(),
                halted: vcpu.halted.get(),
                blocked: vcpu.blocked.get(),
                yielded: vcpu.yielded.get(),
            });
        }
    }
}
