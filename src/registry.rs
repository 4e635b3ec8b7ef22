// SPDX-License-Identifier: GPL-2.0-only

//! Every VM, by id and by name.

use crate::{
    act::{group::Group, Lever},
    engine::Engine,
    rust::{
        global::Global,
        kvm::{self, VmId},
        netdev::{DeviceId, Net, OnUnregister, Rtnl},
        periodic::{Periodic, Work},
        process::Process,
        series::{EALREADY, ENOTUNIQ, EOPNOTSUPP, ESTALE},
        worker::Worker,
    },
    sense::{exit::Exits, packet::Rules},
    turns::Turns,
    uapi,
    vm::{Identity, Name, Vm},
};
use kernel::{
    new_mutex,
    prelude::*,
    rbtree::{RBTree, RBTreeNode},
    sync::{Arc, Mutex},
    task::Task,
    time::{delay::fsleep, Delta},
};

/// Where `/dev/sleepy` finds the registry.
pub(crate) static REGISTRY: Global<Periodic<Registry>> = Global::new();

/// How often VMs are looked after: new vCPUs, VMs and processes that are gone. In milliseconds.
const SCAN_INTERVAL: u32 = 1000;
/// How soon a VM that was removed is looked at again, in milliseconds.
const LEAVE_INTERVAL: u32 = 20;
/// How long a removal waits for the VM's threads, in steps of a millisecond. Those that run need
/// microseconds; those that are stopped or frozen are not waited for.
const LEAVE_STEPS: u32 = 100;

/// What is wrong with a request: the error and where it is, for [`uapi::VmAdd`].
pub(crate) struct Fault {
    /// The error.
    pub(crate) error: Error,
    /// One of `FAULT_*`.
    pub(crate) what: u32,
    /// Index of the link or rule.
    pub(crate) index: u32,
}

impl Fault {
    /// At nothing with an index.
    pub(crate) fn at(what: u32) -> impl Fn(Error) -> Self {
        move |error| Self {
            error,
            what,
            index: 0,
        }
    }
}

impl<T: Into<Error>> From<T> for Fault {
    fn from(error: T) -> Self {
        Self::at(uapi::FAULT_NONE)(error.into())
    }
}

/// A request to add a VM, copied from the user and checked as far as it can be by itself.
pub(crate) struct Request {
    /// Its name.
    pub(crate) name: Name,
    /// The VMM.
    pub(crate) process: Process,
    /// When that started.
    pub(crate) start_time: u64,
    /// Which of its VMs; the only one, if none is named.
    pub(crate) kvm: Option<kvm::Vm>,
    /// How it sleeps and wakes.
    pub(crate) policy: uapi::Policy,
    /// Its links.
    pub(crate) links: KVec<uapi::Link>,
    /// Its rules.
    pub(crate) rules: Rules,
    /// Its control group, if the lever needs it.
    pub(crate) group: Option<Group>,
}

struct Inner {
    vms: RBTree<u32, Arc<Vm>>,
    names: RBTree<Name, u32>,
    machines: RBTree<VmId, u32>,
    count: u32,
    last_id: u32,
    /// Removed VMs, some of whose threads have not run since.
    leaving: KVec<Arc<Vm>>,
}

impl Inner {
    /// `EBUSY` if another VM than this has the group: of two who change its weight, none knows what to restore. Otherwise
    /// what the kernel says if its weight cannot be changed.
    fn check_group(&self, group: &Group, but: Option<&Arc<Vm>>) -> Result<(), Fault> {
        let others = self.vms.values().filter(|&vm| {
            let itself = but.is_some_and(|but| Arc::ptr_eq(but, vm));
            !itself
        });
        for vm in others {
            if vm.engine.later.has_group(group) {
                return Err(Fault::at(uapi::FAULT_GROUP)(EBUSY));
            }
        }
        // Its own is changed by others meanwhile.
        if but.is_some_and(|vm| vm.engine.later.has_group(group)) {
            return Ok(());
        }
        group.touch().map_err(Fault::at(uapi::FAULT_GROUP))
    }
}

/// Every VM.
///
/// Locks: `inner`, then RTNL, then `devices`, then those of a [`Vm`].
#[pin_data]
pub(crate) struct Registry {
    #[pin]
    inner: Mutex<Inner>,
    /// Whose link a device is.
    #[pin]
    devices: Mutex<RBTree<DeviceId, Arc<Vm>>>,
    turns: Arc<Turns>,
    exits: Arc<Exits>,
    worker: Arc<Worker>,
}

impl Registry {
    /// Without VMs.
    pub(crate) fn new(
        turns: Arc<Turns>,
        exits: Arc<Exits>,
        worker: Arc<Worker>,
    ) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            inner <- new_mutex!(Inner {
                vms: RBTree::new(),
                names: RBTree::new(),
                machines: RBTree::new(),
                count: 0,
                last_id: 0,
                leaving: KVec::new(),
            }),
            devices <- new_mutex!(RBTree::new()),
            turns,
            exits,
            worker,
        })
    }

    /// How many VMs there are.
    pub(crate) fn count(&self) -> u32 {
        self.inner.lock().count
    }

    /// The VM with this id. `ENOENT` if there is none.
    pub(crate) fn get(&self, id: u32) -> Result<Arc<Vm>> {
        self.inner.lock().vms.get(&id).cloned().ok_or(ENOENT)
    }

    /// The VM with the lowest id that is `id` or above. `ENOENT` if there is none.
    pub(crate) fn next(&self, id: u32) -> Result<Arc<Vm>> {
        let inner = self.inner.lock();
        let cursor = inner.vms.cursor_lower_bound(&id).ok_or(ENOENT)?;
        Ok(cursor.current().1.clone())
    }

    /// Replaces a VM's policy with the control group that it needs, and its rules: see [`Vm::set`].
    pub(crate) fn set(
        &self,
        vm: &Arc<Vm>,
        policy: Option<&uapi::Policy>,
        group: Option<Group>,
        rules: Option<Rules>,
    ) -> Result<(), Fault> {
        // Held as long as somebody else could take the same group.
        let inner = group.is_some().then(|| self.inner.lock());
        if let (Some(inner), Some(group)) = (&inner, &group) {
            inner.check_group(group, Some(vm))?;
        }
        vm.set(policy, group, rules).map_err(|error| {
            let of_policy = error == EOPNOTSUPP;
            let what = if of_policy {
                uapi::FAULT_POLICY
            } else {
                uapi::FAULT_NONE
            };
            Fault::at(what)(error)
        })
    }

    /// Adds a VM, wholly or not at all; returns its id.
    pub(crate) fn add(this: &Periodic<Self>, request: Request) -> Result<u32, Fault> {
        let handle = Fault::at(uapi::FAULT_HANDLE);
        // Before all others have to wait: how many descriptors it goes through is up to the VMM.
        let kvm = which_vm(&request).map_err(&handle)?;
        let mut inner = this.inner.lock();
        // A VM that is gone may still hold the name, or even the address, until the next scan.
        let taken =
            [inner.names.get(&request.name), inner.machines.get(&kvm)].map(Option::<&u32>::copied);
        for id in taken.into_iter().flatten() {
            let gone = inner.vms.get(&id).is_some_and(|vm| !vm.scan());
            if gone {
                this.remove_locked(&mut inner, id);
            }
        }
        if inner.names.get(&request.name).is_some() {
            return Err(Fault::at(uapi::FAULT_NAME)(EEXIST));
        }
        if inner.machines.get(&kvm).is_some() {
            return Err(handle(EALREADY));
        }
        if inner.count >= uapi::MAX_VMS {
            return Err(ENOSPC.into());
        }
        let id = inner.last_id.checked_add(1).ok_or(ENOSPC)?;
        // What may fail comes first, so that nothing needs to be taken back but the links.
        let identity = Identity {
            id,
            name: request.name,
            process: request.process,
            start_time: request.start_time,
            kvm,
        };
        if let Some(group) = &request.group {
            inner.check_group(group, None)?;
        }
        let host = (this.turns.clone(), this.exits.clone(), this.worker.clone());
        let vm = Vm::new(identity, &request.policy, request.rules, host)?;
        let lever = Lever::new(&request.policy);
        vm.engine.later.set_lever(lever, request.group);
        let nodes = (
            RBTreeNode::new(id, vm.clone(), GFP_KERNEL)?,
            RBTreeNode::new(request.name, id, GFP_KERNEL)?,
            RBTreeNode::new(kvm, id, GFP_KERNEL)?,
        );
        let most = inner.count as usize + 1;
        inner.leaving.reserve(most, GFP_KERNEL)?;
        vm.watch().map_err(Fault::at(uapi::FAULT_POLICY))?;
        // Packets may have come to those that were there for a moment.
        this.add_links(&vm, &request.links)
            .inspect_err(|_| vm.end())?;
        inner.vms.insert(nodes.0);
        inner.names.insert(nodes.1);
        inner.machines.insert(nodes.2);
        inner.count += 1;
        inner.last_id = id;
        vm.scan();
        Engine::start(&vm.engine);
        drop(inner);
        this.kick(SCAN_INTERVAL);
        Ok(id)
    }

    fn add_links(&self, vm: &Arc<Vm>, links: &[uapi::Link]) -> Result<(), Fault> {
        let rtnl = Rtnl::lock();
        for (index, link) in (0..).zip(links) {
            if let Err(error) = self.add_link(vm, link, &rtnl) {
                self.close(vm, &rtnl);
                return Err(Fault {
                    error,
                    what: uapi::FAULT_LINK,
                    index,
                });
            }
        }
        Ok(())
    }

    fn add_link(&self, vm: &Arc<Vm>, link: &uapi::Link, rtnl: &Rtnl) -> Result {
        let device = Net::from_fd(link.netns_fd)?.device(link.ifindex, rtnl)?;
        if !device.is_ethernet() {
            return Err(EOPNOTSUPP);
        }
        let id = device.id();
        let node = RBTreeNode::new(id, vm.clone(), GFP_KERNEL)?;
        let mut devices = self.devices.lock();
        if devices.get(&id).is_some() {
            return Err(EBUSY);
        }
        vm.add_link(device, rtnl)?;
        devices.insert(node);
        Ok(())
    }

    /// Ends what is done to the VM and its links.
    fn close(&self, vm: &Vm, rtnl: &Rtnl) {
        let mut devices = self.devices.lock();
        vm.each_link(|device| {
            devices.remove(&device.id());
        });
        drop(devices);
        vm.close(rtnl);
    }

    fn remove_locked(&self, inner: &mut Inner, id: u32) -> Option<Arc<Vm>> {
        let vm = inner.vms.remove(&id)?;
        inner.names.remove(&vm.identity.name);
        inner.machines.remove(&vm.identity.kvm);
        inner.count -= 1;
        self.close(&vm, &Rtnl::lock());
        vm.end();
        if !vm.finished() {
            // Room was made when it was added.
            let _ = inner.leaving.push_within_capacity(vm.clone());
        }
        Some(vm)
    }

    /// Removes a VM and waits until its threads have let go, unless they do not run.
    pub(crate) fn remove(this: &Periodic<Self>, id: u32) -> Result {
        let vm = {
            let mut inner = this.inner.lock();
            this.remove_locked(&mut inner, id).ok_or(ENOENT)?
        };
        for _ in 0..LEAVE_STEPS {
            if vm.finished() {
                break;
            }
            fsleep(Delta::from_millis(1));
        }
        this.sweep(&mut this.inner.lock());
        this.kick(LEAVE_INTERVAL);
        Ok(())
    }

    /// Forgets removed VMs that no thread has anything to do with any more; true if there was one.
    fn sweep(&self, inner: &mut Inner) -> bool {
        let before = inner.leaving.len();
        inner.leaving.retain(|vm| !vm.finished());
        inner.leaving.len() < before
    }

    /// Calls `f` with each link of a VM, and RTNL.
    pub(crate) fn each_link(vm: &Vm, mut f: impl FnMut(uapi::VmLink)) {
        let rtnl = Rtnl::lock();
        vm.each_link(|device| {
            f(uapi::VmLink {
                ifindex: device.ifindex(),
                reserved: 0,
                netns: device.netns(&rtnl),
                name: device.name(&rtnl),
            })
        });
    }
}

/// The KVM VM that a request means, after all checks that its process is who it says.
fn which_vm(request: &Request) -> Result<VmId> {
    if request.process.start_ticks().ok_or(ESRCH)? != request.start_time {
        return Err(ESTALE);
    }
    request.process.ask(|thread| which_vm_of(request, thread))
}

fn which_vm_of(request: &Request, thread: &Task) -> Result<VmId> {
    if let Some(vm) = &request.kvm {
        return if vm.belongs_to(thread) {
            Ok(vm.id())
        } else {
            Err(EXDEV)
        };
    }
    let mut found = None;
    let several = kvm::Vm::find(thread, &mut 0, u32::MAX, |vm| {
        // An inherited descriptor is no VM of this process.
        if !vm.belongs_to(thread) {
            return None;
        }
        match found.replace(vm.id()) {
            Some(first) if first != vm.id() => Some(()),
            _ => None,
        }
    });
    if several.is_ok() {
        return Err(ENOTUNIQ);
    }
    found.ok_or(ENODEV)
}

impl Work for Registry {
    /// Takes up new vCPUs, and removes VMs that are gone.
    fn run(this: &Periodic<Self>) -> Option<u32> {
        let mut inner = this.inner.lock();
        let mut next = 0;
        let mut progress = false;
        while let Some(cursor) = inner.vms.cursor_lower_bound(&next) {
            let (&id, vm) = cursor.current();
            if !vm.clone().scan() {
                this.remove_locked(&mut inner, id);
                progress = true;
            }
            next = id + 1;
        }
        progress |= this.sweep(&mut inner);
        if inner.leaving.is_empty() {
            (inner.count > 0).then_some(SCAN_INTERVAL)
        } else {
            Some(if progress {
                LEAVE_INTERVAL
            } else {
                SCAN_INTERVAL
            })
        }
    }
}

impl OnUnregister for Periodic<Registry> {
    fn on_unregister(&self, device: DeviceId, rtnl: &Rtnl) {
        let vm = self.devices.lock().remove(&device);
        if let Some(vm) = vm {
            vm.lose_link(device, rtnl);
        }
    }
}
