# SPDX-License-Identifier: GPL-2.0-only
"""The ioctl ABI as such: sizes, numbers, padding, pointers. No KVM, no packets."""

import ctypes
import errno
import mmap
import os
import re
import stat
from pathlib import Path

import pytest

from lib import abi, host, net

HEADER = Path(__file__).parents[2] / "userspace/include/sleepy.h"


def test_device_node(sleepy):
    mode = os.stat(abi.DEVICE)
    assert stat.S_ISCHR(mode.st_mode) and stat.S_IMODE(mode.st_mode) == 0o600
    assert (mode.st_uid, mode.st_gid) == (0, 0)


def test_sizes():
    for struct, size in abi.SIZES.items():
        assert ctypes.sizeof(struct) == size, struct.__name__


def test_header_has_the_same_layout():
    """Every structure of the C header has the fields that are expected here, in this order."""
    names = {"Policy": "policy", "Rule": "rule", "Link": "link", "Info": "info", "VmAdd": "vm_add",
             "VmRemove": "vm_remove", "VmSet": "vm_set", "VmGet": "vm_get", "Vcpu": "vcpu",
             "VmLink": "vm_link", "VmArray": "vm_array", "Last": "last", "VmStats": "vm_stats",
             "VmRule": "vm_rule"}
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)
    for struct in abi.SIZES:
        body = re.search(rf"struct sleepy_{names[struct.__name__]} \{{(.*?)\}}", text, re.DOTALL)
        assert body, struct.__name__
        fields = re.findall(r"(\w+)(?:\[\w+\])?;", body[1])
        assert [field.rstrip("_") for field in fields] == [name.rstrip("_") for name, _ in struct._fields_]


def test_info(device):
    info = device.info()
    assert (info.version, info.max_vms, info.max_links, info.max_rules, info.max_insns) == (
        abi.VERSION, abi.MAX_VMS, abi.MAX_LINKS, abi.MAX_RULES, abi.MAX_INSNS)
    assert info.vms == 0
    assert info.levers == (1 << 5) - 1
    assert info.sleep_on == abi.sleep_on(*abi.SLEEP_EVENTS) and info.wake_on == abi.wake_on(*abi.WAKE_EVENTS)
    assert list(info.reserved) == [0] * 4


@pytest.mark.parametrize("call", abi.CALLS)
def test_wrong_size(device, call):
    cmd, struct = abi.CALLS[call]
    size = ctypes.sizeof(struct)
    for other in (0, 1, size - 4, size + 8, 4095):
        with abi.raises(errno.EMSGSIZE):
            device.raw(abi.number(cmd >> 30, cmd & 0xFF, other), 0)


def test_unknown_calls(device):
    for cmd in (abi.number(abi.R, 9, 72), abi.number(abi.W, 255, 8), abi.number(abi.R, 100, 0),
                abi.number(abi.R, 0, 72, kind=0xB8), 0x5401, 0, 0xFFFFFFFF):
        with abi.raises(errno.ENOTTY):
            device.raw(cmd, 0)


def test_not_for_reading_and_writing(device):
    with pytest.raises(OSError):
        os.read(device.fd, 1)
    with pytest.raises(OSError):
        os.write(device.fd, b"x")


@pytest.mark.parametrize("call", abi.CALLS)
@pytest.mark.parametrize("address", [0, 8, 0xFFFF_8000_0000_0000, 0xFFFF_FFFF_FFFF_FF00])
def test_bad_pointer(device, call, address):
    with abi.raises(errno.EFAULT):
        device.raw(abi.CALLS[call][0], address)


@pytest.mark.core
@pytest.mark.parametrize("call", abi.CALLS)
def test_argument_across_the_end_of_memory(device, call):
    """The last byte of the argument is not there."""
    cmd, struct = abi.CALLS[call]
    memory = mmap.mmap(-1, 2 * mmap.PAGESIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    assert libc.mprotect(start + mmap.PAGESIZE, mmap.PAGESIZE, 0) == 0
    with abi.raises(errno.EFAULT):
        device.raw(cmd, start + mmap.PAGESIZE - ctypes.sizeof(struct) + 1)
    assert device.info().vms == 0


def test_32_bit_callers_have_the_same_layout():
    """No field moves when 64-bit integers are aligned to 4 bytes: there is no compat handler."""
    for struct in abi.SIZES:
        offset = 0
        for name, kind in struct._fields_:
            assert getattr(struct, name).offset == offset, f"{struct.__name__}.{name}: hidden padding"
            offset += ctypes.sizeof(kind)
        assert offset == ctypes.sizeof(struct)


@pytest.mark.parametrize("reserved", [1, 1 << 31])
def test_padding_must_be_zero(box, reserved):
    scene, device = box, box.device
    scene.add()
    with abi.raises(errno.EINVAL):
        device.call(abi.VM_REMOVE, abi.VmRemove(id=scene.id, reserved=reserved))
    with abi.raises(errno.EINVAL):
        device.call(abi.VM_SET, abi.VmSet(id=scene.id, flags=abi.SET_POLICY, reserved=reserved, policy=scene.policy))
    for flags in 0, 4, 1 << 31:
        with abi.raises(errno.EINVAL):
            device.call(abi.VM_SET, abi.VmSet(id=scene.id, flags=flags, policy=scene.policy))
    with abi.raises(errno.EINVAL):
        device.call(abi.VM_STATS, abi.VmStats(id=scene.id, reserved=reserved))
    with abi.raises(errno.EINVAL):
        device.get(scene.id, flags=2)
    assert device.get(scene.id).n_links == 1


@pytest.mark.core
def test_no_such_vm(device):
    for vm in (0, 1, 0xFFFFFFFF):
        for cmd, arg in ((abi.VM_REMOVE, abi.VmRemove(id=vm)), (abi.VM_GET, abi.VmGet(id=vm)),
                         (abi.VM_SET, abi.VmSet(id=vm, flags=abi.SET_POLICY, policy=abi.policy())),
                         (abi.VM_STATS, abi.VmStats(id=vm)), (abi.VM_VCPUS, abi.VmArray(id=vm)),
                         (abi.VM_LINKS, abi.VmArray(id=vm)), (abi.VM_RULES, abi.VmArray(id=vm))):
            with abi.raises(errno.ENOENT):
                device.call(cmd, arg)


@pytest.mark.core
def test_list_of_all(scenes):
    made = [scenes() for _ in range(3)]
    device = made[0].device
    assert [vm.name for vm in device.vms()] == [b"st0", b"st1", b"st2"]
    assert device.info().vms == 3
    ids = [scene.id for scene in made]
    assert ids == sorted(ids) and len(set(ids)) == 3
    device.remove(ids[1])
    assert [vm.id for vm in device.vms()] == [ids[0], ids[2]]
    with abi.raises(errno.ENOENT):
        device.get(ids[1])
    made[1].add()
    assert made[1].id > ids[2], "an id was used twice"


def test_get_tells_what_was_added(scenes):
    scene = scenes(vcpus=2, linger=7, request_timeout=8 * abi.MS, max_sleep=9 * abi.MS, sleepy_nice=11,
                   boost_nice=-3, flags=abi.BOOST)
    vm = scene.get()
    assert (vm.name, vm.pid, vm.start_time) == (b"st0", scene.vmm.pid, abi.start_time(scene.vmm.pid))
    assert bytes(vm.policy) == bytes(scene.policy)
    assert (vm.n_links, vm.n_rules, vm.n_vcpus, vm.lost_links) == (1, 6, 2, 0)
    link, = scene.device.links(scene.id)
    assert link.name == b"st0" and link.netns == os.stat("/proc/self/ns/net").st_ino
    vcpus = scene.device.vcpus(scene.id)
    assert [(vcpu.index, vcpu.tid) for vcpu in vcpus] == list(enumerate(scene.tids))


@pytest.mark.core
def test_arrays_with_too_little_room(scenes):
    """As much as there is room for, and how much there is."""
    scene = scenes(vcpus=2)
    items = (abi.Vcpu * 2)()
    items[1].tid = 0xDEADBEEF
    array = abi.VmArray(id=scene.id, count=1, items=ctypes.addressof(items))
    scene.device.call(abi.VM_VCPUS, array)
    assert array.count == 2
    assert items[0].tid == scene.tids[0] and items[1].tid == 0xDEADBEEF
    for cmd in (abi.VM_VCPUS, abi.VM_LINKS):
        array = abi.VmArray(id=scene.id)
        scene.device.call(cmd, array)
        assert array.count == (2 if cmd == abi.VM_VCPUS else 1)
        with abi.raises(errno.EFAULT):
            scene.device.call(cmd, abi.VmArray(id=scene.id, count=1, items=8))
    huge = abi.VmArray(id=scene.id, count=0xFFFFFFFF, items=ctypes.addressof(items))
    scene.device.call(abi.VM_VCPUS, huge)
    assert huge.count == 2


@pytest.mark.core
def test_result_that_cannot_be_written(box, device):
    """VM_ADD whose id cannot be given back: as if nothing had been."""
    with open("/proc/self/ns/net", "rb") as netns:
        add = device.request("x", box.vmm.pid, links=[(netns.fileno(), net.ifindex(box.tap))])
        memory = mmap.mmap(-1, mmap.PAGESIZE)
        memory.write(bytes(add))
        start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        assert libc.mprotect(start, mmap.PAGESIZE, mmap.PROT_READ) == 0
        with abi.raises(errno.EFAULT):
            device.raw(abi.VM_ADD, start)
    assert device.vms() == []
    # The open device is the one reference that is left.
    host.wait(lambda: host.refcount() == 1, "the VM's references are gone")
