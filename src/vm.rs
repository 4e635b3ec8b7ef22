// SPDX-License-Identifier: GPL-2.0-only

//! One VM: who it is, its vCPUs and its links.

use crate::{
    act::{group::Group, park::Seat},
    engine::{Config, Engine},
    rust::{
        apart::apart,
        kvm::{self, VcpuId, VmId},
        module_ref::ModuleRef,
        netdev::{Device, DeviceId, Rtnl},
        netfilter::DeviceHooks,
        preempt_notifier::Attachment,
        process::{self, Process},
        rcu_cell::RcuCell,
        sched,
        timed::Timed,
        worker::Worker,
    },
    sense::{
        exit::{self, Exits, Watch},
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

struct Policy {
    policy: uapi::Policy,
    /// None after the VM was removed.
    watch: Option<Watch>,
}

type Link = Pin<KBox<DeviceHooks<LinkHook>>>;

/// So many descriptors of a VMM are looked at before others have their turn: it may have as many as it likes.
const MOST_LOOKS: u32 = 4096;

/// So many of a VM's vCPUs are watched in one thread: each is looked at whenever that gets or loses its CPU.
const MOST_SHARED: usize = 8;

/// So many attachments to a VM's threads may there be, with those that a thread has still to let go of.
const MOST_ATTACHED: usize = 2 * uapi::MAX_VCPUS as usize;

/// A VM.
///
/// Locks: `vcpus` and `links` are taken after the registry's lock and after RTNL, `policy` not within RTNL; never within
/// each other, and never by hooks, notifiers and probes, which have the engine alone.
#[pin_data]
pub(crate) struct Vm {
    /// Who it is.
    pub(crate) identity: Identity,
    /// Its hot half.
    pub(crate) engine: Arc<Timed<Engine>>,
    rules: Arc<RcuCell<Rules>>,
    #[pin]
    policy: Mutex<Policy>,
    #[pin]
    vcpus: Mutex<KVec<Attachment<Vcpu>>>,
    #[pin]
    links: Mutex<KVec<Link>>,
    lost_links: Atomic<u32>,
    /// Where to look for it among its process's descriptors: the number, shifted; and in the lowest bit whether all before that
    /// have been looked at.
    place: Atomic<u64>,
    _module: ModuleRef,
}

impl Vm {
    /// A VM without links and vCPUs; `policy` has been checked.
    pub(crate) fn new(
        identity: Identity,
        policy: &uapi::Policy,
        rules: Rules,
        (turns, exits, worker): (Arc<Turns>, Arc<Exits>, Arc<Worker>),
    ) -> Result<Arc<Self>> {
        let config = KBox::new(Config::new(policy), GFP_KERNEL)?;
        let engine = Engine::new(policy, config, turns, worker)?;
        let engine = Arc::pin_init(Timed::new(engine), GFP_KERNEL)?;
        let rules = RcuCell::new(KBox::new(rules, GFP_KERNEL)?);
        let rules = Arc::new(rules, GFP_KERNEL)?;
        let policy = Policy {
            policy: *policy,
            watch: Some(Watch::new(exits, engine.clone(), identity.kvm)),
        };
        Arc::pin_init(
            pin_init!(Self {
                identity,
                engine,
                rules,
                policy <- new_mutex!(policy),
                vcpus <- new_mutex!(KVec::new()),
                links <- new_mutex!(KVec::new()),
                lost_links: Atomic::new(0),
                place: Atomic::new(0),
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
        Engine::hold(&self.engine);
    }

    /// Calls `f` for each link.
    pub(crate) fn each_link(&self, mut f: impl FnMut(&Device)) {
        self.links.lock().iter().for_each(|link| f(link.device()));
    }

    /// Looks for the VM in its process, and takes up the vCPUs that have come since. False if the VM, or
    /// its process, is gone.
    pub(crate) fn scan(&self) -> bool {
        match self.look(MOST_LOOKS, |vm| self.adopt(vm)) {
            // It is left to the next look.
            Err(error) => error == EAGAIN,
            Ok(()) => true,
        }
    }

    /// Calls `f` with the VM in its process. `ESRCH` if either is gone, `EAGAIN` if it was not found among `most` descriptors, and
    /// as [`Process::ask`]. It is where it was the last time, or where the last look ended.
    fn look<R>(&self, most: u32, mut f: impl FnMut(&kvm::Vm) -> R) -> Result<R> {
        let mut own = |vm: &kvm::Vm| (vm.id() == self.identity.kvm).then(|| f(vm));
        self.identity.process.ask(|thread| {
            let place = self.place.load(Relaxed);
            let (mut fd, mut all) = ((place >> 1) as u32, place & 1 != 0 || place == 0);
            loop {
                let found = kvm::Vm::find(thread, &mut fd, most, &mut own);
                let gone = matches!(found, Err(error) if error == ESRCH);
                if gone && !all {
                    (fd, all) = (0, true);
                    continue;
                }
                let (place, all) = if gone {
                    (0, false)
                } else {
                    (fd, all && found.is_err())
                };
                self.place
                    .store(u64::from(place) << 1 | u64::from(all), Relaxed);
                return found;
            }
        })
    }

    /// Takes up the vCPU threads that KVM has, [`uapi::MAX_VCPUS`] at most, and lets go of those it has not any more. What
    /// memory does not suffice for is left for the next time.
    fn adopt(&self, vm: &kvm::Vm) {
        let mut vcpus = self.vcpus.lock();
        let now = || (0..vm.vcpus()).filter_map(|index| Some((index, vm.vcpu(index)?)));
        // First, lest a thread that has changed its vCPU be taken up with what it was given for the old one.
        for (_, (id, task)) in now() {
            let moved = |old: &&mut Attachment<Vcpu>| {
                old.id == id && old.stays() && !core::ptr::eq(old.task(), &*task)
            };
            for old in vcpus.iter_mut().filter(moved) {
                self.engine.remove_thread(old.pause.seat());
                old.detach();
            }
        }
        for (index, (id, task)) in now() {
            let same =
                |old: &&mut Attachment<Vcpu>| old.id == id && core::ptr::eq(old.task(), &*task);
            let known = vcpus.iter_mut().filter(same).any(|old| !old.gone());
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
        let mut own = vcpus.iter().filter(|old| core::ptr::eq(old.task(), &*task));
        if own.nth(MOST_SHARED - 1).is_some() || vcpus.len() >= MOST_ATTACHED {
            return Err(E2BIG);
        }
        vcpus.reserve(1, GFP_KERNEL)?;
        let seat = Seat::new()?;
        let cpus = self.engine.turns.cpus.clone();
        // First: most of those that cannot be taken on are too many.
        self.engine.add_thread(task.clone(), seat.clone())?;
        let vcpu = Vcpu::new(self.engine.clone(), id, index, seat.clone());
        match vcpu.and_then(|vcpu| Attachment::attach(task, cpus, vcpu)) {
            Ok(attachment) => Ok(vcpus.push(attachment, GFP_KERNEL)?),
            Err(error) => {
                self.engine.remove_thread(&seat);
                Err(error)
            }
        }
    }

    /// Drops those that have nothing to do with their thread any more.
    fn sweep(&self, vcpus: &mut KVec<Attachment<Vcpu>>) {
        let mut index = 0;
        while let Some(vcpu) = vcpus.get_mut(index) {
            if vcpu.gone() {
                self.engine.remove_thread(vcpu.pause.seat());
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

    /// Listens to KVM for what the policy wants. `EOPNOTSUPP` if this kernel does not show it, `ESRCH` if the VM is
    /// gone.
    pub(crate) fn watch(&self) -> Result {
        let mut current = self.policy.lock();
        let wanted = exit::wanted(&current.policy);
        let watch = current.watch.as_mut().ok_or(ENOENT)?;
        self.widen(watch, wanted)
    }

    /// After [`close`](Self::close), without RTNL: what is left to restore, and listens no more, whatever is wanted from
    /// now on.
    pub(crate) fn end(&self) {
        self.engine.later.close();
        let watch = self.policy.lock().watch.take();
        drop(watch);
    }

    fn widen(&self, watch: &mut Watch, wanted: u32) -> Result {
        if wanted == 0 {
            return Ok(());
        }
        watch.widen(wanted, self.look(u32::MAX, kvm::Vm::module))
    }

    /// Replaces the policy, which has been checked, and the rules, each unless there is none: all or nothing. What a
    /// packet meets is the old rules or the new ones. `ENOMEM`, `ENOENT` for a VM that is being removed, and as
    /// [`watch`](Self::watch).
    pub(crate) fn set(
        &self,
        policy: Option<&uapi::Policy>,
        group: Option<Group>,
        rules: Option<Rules>,
    ) -> Result {
        let rules = rules
            .map(|rules| KBox::new(rules, GFP_KERNEL))
            .transpose()?;
        let mut current = self.policy.lock();
        let watch = current.watch.as_mut().ok_or(ENOENT)?;
        if let Some(policy) = policy {
            let config = KBox::new(Config::new(policy), GFP_KERNEL)?;
            let wanted = exit::wanted(policy);
            self.widen(watch, wanted)?;
            Engine::set_policy(&self.engine, policy, config, group);
            watch.narrow(wanted);
            current.policy = *policy;
        }
        if let Some(rules) = rules {
            drop(self.rules.replace(rules));
        }
        Ok(())
    }

    /// Calls `f` with each rule.
    pub(crate) fn each_rule(&self, mut f: impl FnMut(KBox<uapi::VmRule>)) -> Result {
        let mut index = 0;
        loop {
            let mut rule = KBox::init(apart(uapi::VmRule::default), GFP_KERNEL)?;
            // Not across `f`, which may sleep: a rule that is replaced meanwhile is not there, or another.
            let described = self
                .rules
                .read(&rcu::read_lock())
                .describe(index, &mut rule);
            if described.is_none() {
                return Ok(());
            }
            f(rule);
            index += 1;
        }
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
        out.calls = state.calls() as u32;
        out.policy = self.policy.lock().policy;
        out.n_vcpus = self.vcpus.lock().iter().filter(lives).count() as u32;
        out.n_links = self.links.lock().len() as u32;
        out.n_rules = self.rules.read(&rcu::read_lock()).len() as u32;
        out.lost_links = self.lost_links.load(Relaxed);
        (out.group, out.flags_out) = self.engine.later.describe();
    }

    /// Calls `f` with each of its vCPUs.
    pub(crate) fn each_vcpu(&self, mut f: impl FnMut(uapi::Vcpu)) {
        for vcpu in self.vcpus.lock().iter().filter(lives) {
            let Some(thread) = self.engine.thread_state(vcpu.pause.seat()) else {
                continue;
            };
            let flag = |set: bool, flag: u32| if set { flag } else { 0 };
            f(uapi::Vcpu {
                index: vcpu.index,
                tid: process::tid(vcpu.task()),
                nice: thread.nice,
                baseline: thread.baseline,
                policy: sched::policy(vcpu.task()).number(),
                flags: flag(vcpu.attached(), uapi::VCPU_ATTACHED)
                    | flag(vcpu.on_cpu(), uapi::VCPU_ON_CPU)
                    | flag(thread.foreign, uapi::VCPU_FOREIGN)
                    | flag(thread.moved, uapi::VCPU_MOVED),
                oncpu: vcpu.oncpu_time(),
                preempted: vcpu.preempted.get(),
                halted: vcpu.halted.get(),
                blocked: vcpu.blocked.get(),
                yielded: vcpu.yielded.get(),
                parked: vcpu.pause.parked.get(),
            });
        }
    }
}

/// Its thread may have died since the last look.
fn lives(vcpu: &&Attachment<Vcpu>) -> bool {
    !process::is_exiting(vcpu.task())
}
