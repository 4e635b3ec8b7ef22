// SPDX-License-Identifier: GPL-2.0-only

//! `/dev/sleepy`: decodes an ioctl, calls the registry.

use crate::{
    act::group::Group,
    registry::{Fault, Registry, Request, REGISTRY},
    rust::{
        capability::{capable, Capability},
        cgroup, kvm,
        periodic::Periodic,
        process::Process,
        series,
    },
    sense::{exit, packet::Rules},
    uapi,
    vm::{Name, Vm},
};
use core::mem::size_of;
use kernel::{
    fs::File,
    ioctl::{_IOC_NR, _IOC_SIZE, _IOC_TYPE},
    miscdevice::{MiscDevice, MiscDeviceRegistration},
    prelude::*,
    sync::{Arc, ArcBorrow},
    transmute::{AsBytes, FromBytes},
    uaccess::{UserPtr, UserSlice},
};

/// An open `/dev/sleepy`. What it refers to is the registry; it has nothing of its own.
pub(crate) struct Device;

fn permitted() -> Result {
    if capable(Capability::SysNice) && capable(Capability::NetAdmin) {
        Ok(())
    } else {
        Err(EPERM)
    }
}

#[vtable]
impl MiscDevice for Device {
    type Ptr = Arc<Periodic<Registry>>;

    fn open(_file: &File, _misc: &MiscDeviceRegistration<Self>) -> Result<Self::Ptr> {
        permitted()?;
        let registry = REGISTRY.get().ok_or(ENODEV)?;
        series::opened()?;
        Ok(registry)
    }

    fn release(registry: Self::Ptr, _file: &File) {
        drop(registry);
        series::released();
    }

    fn ioctl(
        registry: ArcBorrow<'_, Periodic<Registry>>,
        _file: &File,
        cmd: u32,
        arg: usize,
    ) -> Result<isize> {
        // The descriptor may have been given to somebody else since it was opened.
        permitted()?;
        if !uapi::CALLS.contains(&cmd) {
            let known = _IOC_TYPE(cmd) == _IOC_TYPE(uapi::IOC_INFO)
                && (_IOC_NR(cmd) as usize) < uapi::CALLS.len();
            return Err(if known { EMSGSIZE } else { ENOTTY });
        }
        let arg = Argument {
            address: UserPtr::from_addr(arg),
            size: _IOC_SIZE(cmd),
        };
        match cmd {
            uapi::IOC_INFO => arg.write(&info(&registry)),
            uapi::IOC_VM_ADD => vm_add(&registry, &arg),
            uapi::IOC_VM_REMOVE => {
                let remove: uapi::VmRemove = arg.read()?;
                zero(remove.reserved)?;
                Registry::remove(&registry, remove.id)
            }
            uapi::IOC_VM_SET => vm_set(&registry, &arg),
            uapi::IOC_VM_GET => vm_get(&registry, &arg),
            uapi::IOC_VM_STATS => vm_stats(&registry, &arg),
            uapi::IOC_VM_VCPUS => {
                let array: uapi::VmArray = arg.read()?;
                let vm = registry.get(array.id)?;
                let mut items = KVec::new();
                let mut result = Ok(());
                vm.each_vcpu(|vcpu| push(&mut items, vcpu, &mut result));
                result.and_then(|()| write_array(&arg, array, &items))
            }
            uapi::IOC_VM_RULES => vm_rules(&registry, &arg),
            _ => {
                let array: uapi::VmArray = arg.read()?;
                let vm = registry.get(array.id)?;
                let mut items = KVec::new();
                let mut result = Ok(());
                Registry::each_link(&vm, |link| push(&mut items, link, &mut result));
                result.and_then(|()| write_array(&arg, array, &items))
            }
        }?;
        Ok(0)
    }
}

/// The argument of a call, in user space.
struct Argument {
    address: UserPtr,
    size: usize,
}

impl Argument {
    fn read<T: FromBytes>(&self) -> Result<T> {
        UserSlice::new(self.address, self.size).reader().read()
    }

    fn write<T: AsBytes>(&self, value: &T) -> Result {
        UserSlice::new(self.address, self.size)
            .writer()
            .write(value)
    }
}

fn zero(reserved: u32) -> Result {
    if reserved == 0 {
        Ok(())
    } else {
        Err(EINVAL)
    }
}

fn push<T>(items: &mut KVec<T>, item: T, result: &mut Result) {
    if let Err(error) = items.push(item, GFP_KERNEL) {
        *result = Err(error.into());
    }
}

/// Copies an array from the user; `E2BIG` for more than `max` items.
fn read_array<T: FromBytes>(address: u64, count: u32, max: u32) -> Result<KVec<T>> {
    if count > max {
        return Err(E2BIG);
    }
    let address = UserPtr::from_addr(usize::try_from(address).map_err(|_| EFAULT)?);
    let count = count as usize;
    let mut reader = UserSlice::new(address, count * size_of::<T>()).reader();
    let mut items = KVec::with_capacity(count, GFP_KERNEL)?;
    for _ in 0..count {
        items.push(reader.read()?, GFP_KERNEL)?;
    }
    Ok(items)
}

/// Writes as many items as there is room for, and how many there are.
fn write_array<T: AsBytes>(arg: &Argument, mut array: uapi::VmArray, items: &[T]) -> Result {
    let address = UserPtr::from_addr(usize::try_from(array.items).map_err(|_| EFAULT)?);
    let room = items.len().min(array.count as usize);
    let mut writer = UserSlice::new(address, room * size_of::<T>()).writer();
    for item in &items[..room] {
        writer.write(item)?;
    }
    array.count = items.len() as u32;
    arg.write(&array)
}

fn info(registry: &Registry) -> uapi::Info {
    let (sleep_on, wake_on) = exit::seen();
    uapi::Info {
        version: uapi::ABI_VERSION,
        max_vms: uapi::MAX_VMS,
        max_links: uapi::MAX_LINKS,
        max_rules: uapi::MAX_RULES,
        max_insns: uapi::MAX_INSNS,
        vms: registry.count(),
        levers: [
            uapi::LEVER_OBSERVE,
            uapi::LEVER_NICE,
            uapi::LEVER_IDLE,
            uapi::LEVER_GROUP,
            uapi::LEVER_PARK,
        ]
        .iter()
        .fold(0, |bits, lever| bits | 1 << lever),
        sleep_on,
        wake_on,
        reserved: [0; 4],
    }
}

fn vm_get(registry: &Registry, arg: &Argument) -> Result {
    let mut get: uapi::VmGet = arg.read()?;
    let vm = match get.flags {
        0 => registry.get(get.id)?,
        uapi::GET_NEXT => registry.next(get.id)?,
        _ => return Err(EINVAL),
    };
    vm.get(&mut get);
    arg.write(&get)
}

fn vm_stats(registry: &Registry, arg: &Argument) -> Result {
    // They are large for a stack.
    let mut bytes = KVec::from_elem(0, arg.size, GFP_KERNEL)?;
    let user = || UserSlice::new(arg.address, arg.size);
    user().reader().read_slice(&mut bytes)?;
    let stats = uapi::VmStats::from_bytes_mut(&mut bytes).ok_or(EINVAL)?;
    zero(stats.reserved)?;
    let vm = registry.get(stats.id)?;
    vm.engine.touch();
    vm.engine.stats.fill(stats);
    vm.engine.later.effect.fill(&mut stats.effect);
    user().writer().write_slice(&bytes)
}

fn vm_add(registry: &Periodic<Registry>, arg: &Argument) -> Result {
    let mut add: uapi::VmAdd = arg.read()?;
    let result = match request(&add).and_then(|request| Registry::add(registry, request)) {
        Ok(id) => {
            add.id = id;
            add.fault = uapi::FAULT_NONE;
            Ok(())
        }
        Err(fault) => {
            add.fault = fault.what;
            add.fault_index = fault.index;
            Err(fault.error)
        }
    };
    let written = arg.write(&add);
    if let (Ok(()), Err(error)) = (result, written) {
        // The caller cannot know the id: as if nothing had been. It may be gone already.
        let _ = Registry::remove(registry, add.id);
        return Err(error);
    }
    result
}

fn request(add: &uapi::VmAdd) -> Result<Request, Fault> {
    let name = check_name(&add.name).map_err(Fault::at(uapi::FAULT_NAME))?;
    check_policy(&add.policy).map_err(Fault::at(uapi::FAULT_POLICY))?;
    let links =
        read_array(add.links, add.n_links, uapi::MAX_LINKS).map_err(Fault::at(uapi::FAULT_LINK))?;
    let rules = read_rules(add.rules, add.n_rules)?;
    let group = group(add.policy.lever, add.group_fd)?;
    let handle = Fault::at(uapi::FAULT_HANDLE);
    let kvm = match add.vm_fd {
        -1 => None,
        fd => Some(kvm::Vm::from_fd(fd).map_err(&handle)?),
    };
    Ok(Request {
        name,
        process: Process::find(add.pid).map_err(handle)?,
        start_time: add.start_time,
        kvm,
        policy: add.policy,
        links,
        rules,
        group,
    })
}

/// The control group that a lever needs.
fn group(lever: u32, fd: i32) -> Result<Option<Group>, Fault> {
    let at = Fault::at(uapi::FAULT_GROUP);
    match (lever == uapi::LEVER_GROUP, fd) {
        (false, -1) => Ok(None),
        (true, fd) if fd != -1 => {
            let files = cgroup::Group::from_fd(fd).map_err(&at)?;
            Ok(Some(Group::new(files).map_err(at)?))
        }
        _ => Err(at(EINVAL)),
    }
}

fn read_rules(address: u64, count: u32) -> Result<Rules, Fault> {
    let rules: KVec<uapi::Rule> =
        read_array(address, count, uapi::MAX_RULES).map_err(Fault::at(uapi::FAULT_RULE))?;
    Rules::from_user(&rules).map_err(|(error, index)| Fault {
        error,
        what: uapi::FAULT_RULE,
        index,
    })
}

fn vm_set(registry: &Registry, arg: &Argument) -> Result {
    let mut set: uapi::VmSet = arg.read()?;
    if set.flags == 0 || set.flags & !(uapi::SET_POLICY | uapi::SET_RULES) != 0 {
        return Err(EINVAL);
    }
    let vm = registry.get(set.id)?;
    change(registry, &vm, &set).or_else(|fault| {
        set.fault = fault.what;
        set.fault_index = fault.index;
        arg.write(&set)?;
        Err(fault.error)
    })
}

fn change(registry: &Registry, vm: &Arc<Vm>, set: &uapi::VmSet) -> Result<(), Fault> {
    let rules = (set.flags & uapi::SET_RULES != 0)
        .then(|| read_rules(set.rules, set.n_rules))
        .transpose()?;
    let policy = (set.flags & uapi::SET_POLICY != 0).then_some(&set.policy);
    if let Some(policy) = policy {
        check_policy(policy).map_err(Fault::at(uapi::FAULT_POLICY))?;
    }
    let group = group(
        policy.map_or(uapi::LEVER_OBSERVE, |policy| policy.lever),
        set.group_fd,
    )?;
    registry.set(vm, policy, group, rules)
}

/// The rules are long: they are written one by one.
fn vm_rules(registry: &Registry, arg: &Argument) -> Result {
    let mut array: uapi::VmArray = arg.read()?;
    let vm = registry.get(array.id)?;
    let address = UserPtr::from_addr(usize::try_from(array.items).map_err(|_| EFAULT)?);
    let room = array.count.min(uapi::MAX_RULES) as usize;
    let mut writer = UserSlice::new(address, room * size_of::<uapi::VmRule>()).writer();
    let (mut count, mut result) = (0, Ok(()));
    vm.each_rule(|rule| {
        if count < room && result.is_ok() {
            result = writer.write(&*rule);
        }
        count += 1;
    })?;
    result?;
    array.count = count as u32;
    arg.write(&array)
}

fn check_name(name: &Name) -> Result<Name> {
    let end = name.iter().position(|&byte| byte == 0).ok_or(EINVAL)?;
    let (text, rest) = name.split_at(end);
    let graphic = text.iter().all(|&b| b.is_ascii_graphic() && b != b'/');
    if text.is_empty() || !graphic || rest.iter().any(|&byte| byte != 0) {
        return Err(EINVAL);
    }
    Ok(*name)
}

fn check_policy(policy: &uapi::Policy) -> Result {
    let floored = [
        policy.request_timeout,
        policy.max_sleep,
        policy.quiet,
        policy.spin,
    ];
    let times = [policy.linger, policy.timer_slack];
    let nice = -20..=19;
    let boosts = policy.flags & uapi::POLICY_BOOST != 0;
    let park = uapi::MIN_TIMEOUT..=uapi::MAX_TIME;
    let period = policy.boost_period;
    let fine = times.iter().all(|&time| time <= uapi::MAX_TIME)
        && floored
            .iter()
            .all(|time| (uapi::MIN_TIMEOUT..=uapi::MAX_TIME).contains(time))
        && policy.sleep_on & !uapi::SLEEP_EVENTS == 0
        && policy.wake_on & !uapi::WAKE_EVENTS == 0
        && park.contains(&policy.park_max)
        && (uapi::MIN_STIR..=policy.park_max).contains(&policy.stir_run)
        && matches!(
            policy.lever,
            uapi::LEVER_OBSERVE
                | uapi::LEVER_NICE
                | uapi::LEVER_IDLE
                | uapi::LEVER_GROUP
                | uapi::LEVER_PARK
        )
        && (period == 0 || (boosts && park.contains(&period)))
        && (period >> uapi::BOOST_SHIFT..=period).contains(&policy.boost_budget)
        && !(boosts && policy.lever == uapi::LEVER_IDLE)
        && policy.sleepy_weight <= uapi::MAX_WEIGHT
        && policy.reserved == 0
        && policy.flags & !(uapi::POLICY_BOOST | uapi::POLICY_AUTO) == 0
        && nice.contains(&policy.sleepy_nice)
        && nice.contains(&policy.boost_nice)
        && (boosts || policy.boost_nice == 0);
    if fine {
        Ok(())
    } else {
        Err(EINVAL)
    }
}
