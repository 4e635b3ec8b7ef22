# SPDX-License-Identifier: GPL-2.0-only
"""vCPU threads that come, go, and change; and VMs that end while their threads live on."""

import os
import threading
import time
from pathlib import Path

import pytest

from lib import abi, host, sched

pytestmark = pytest.mark.core

MS = abi.MS
LONG = 60 * abi.SECOND


def tids(scene):
    return [vcpu.tid for vcpu in scene.device.vcpus(scene.id)]


def test_threads_are_those_that_kvm_names(scenes):
    """Not the VMM's other threads, whatever they are called and however busy they are."""
    scene = scenes(vcpus=2, linger=1 * MS, max_sleep=LONG)
    scene.attached()
    assert tids(scene) == scene.tids
    scene.wait_sleepy()
    others = set(host.threads(scene.vmm.pid)) - set(scene.tids)
    assert others
    assert all(host.nice_of(tid) == 0 for tid in others)


def test_vcpu_added_later(scenes):
    """It is found by itself, sleeps with the others, and is awake before the next request is delivered."""
    scene = scenes(linger=1 * MS, max_sleep=LONG)
    scene.wait_sleepy()
    late = scene.vmm.run(scene.vmm.vcpu(scene.kvm_fd, 1, "spin"))
    host.wait(lambda: tids(scene) == [*scene.tids, late], "the new vCPU is known", 3)
    scene.tids.append(late)
    scene.attached()
    scene.wait_sleepy()
    assert scene.nices() == [19, 19]
    scene.request()
    assert scene.nices() == [0, 0]
    scene.answer()
    scene.wait_sleepy()
    scene.device.remove(scene.id)
    assert scene.nices() == [0, 0]


def test_vcpu_added_later_while_in_flight(scenes):
    scene = scenes(linger=1 * MS, max_sleep=LONG, flags=abi.BOOST, boost_nice=-5, request_timeout=LONG)
    scene.wait_sleepy()
    scene.request()
    late = scene.vmm.run(scene.vmm.vcpu(scene.kvm_fd, 1, "spin"))
    host.wait(lambda: len(tids(scene)) == 2, "the new vCPU is known", 3)
    host.wait(lambda: host.nice_of(late) == -5, "it has a part in the boost")
    scene.tids.append(late)
    scene.attached()
    scene.answer()
    scene.wait_sleepy()
    scene.request()
    assert scene.nices() == [-5, -5]


def test_vcpu_that_nobody_runs(scenes):
    scene = scenes(linger=1 * MS, max_sleep=LONG)
    scene.vmm.vcpu(scene.kvm_fd, 1, "spin")
    time.sleep(1.5)
    assert tids(scene) == scene.tids
    scene.wait_sleepy()


def test_vcpu_that_is_halted_for_good(scenes):
    """As one that its guest has never started: it does not run when it is added, and yet lets go when it is removed."""
    scene = scenes(add=False, code="halt", irqchip=True)
    host.wait(lambda: Path(f"/proc/{scene.tids[0]}/wchan").read_text().startswith("kvm_"), "it has halted")
    scene.add()
    scene.device.remove(scene.id)
    scene.device.close()
    host.unload()


def test_thread_that_ends(scenes):
    """The vCPU's next thread is found, too."""
    scene = scenes(add=False, code="halt")
    vcpu = scene.vcpu_fd()
    scene.add(linger=1 * MS, max_sleep=LONG)
    scene.attached()
    scene.wait_sleepy()
    scene.vmm.halt(vcpu)
    assert not tids(scene) and not scene.get().n_vcpus, "nobody hears of a thread that has died"
    scene.request()
    scene.answer()
    scene.tids[:] = [scene.vmm.run(vcpu)]
    host.wait(lambda: tids(scene) == scene.tids, "its new thread is known", 3)
    scene.attached()
    scene.wait_sleepy()
    scene.request()
    assert scene.nices() == [0]


def test_number_of_a_thread_used_again(scenes, vmm):
    """Whoever has the number of a vCPU's thread that has ended is nobody of sleepy's."""
    scene = scenes(add=False, code="halt")
    vcpu = scene.vcpu_fd()
    scene.add(linger=1 * MS, max_sleep=20 * MS)
    scene.attached()
    scene.wait_sleepy()
    scene.vmm.halt(vcpu)
    stranger = vmm(scene.tids[0])
    os.setpriority(os.PRIO_PROCESS, stranger.pid, 5)
    before = sched.get(stranger.pid)
    host.wait(lambda: not tids(scene), "its thread is gone", 3)
    stirs = scene.stats().wakes["stir"]
    for turn in range(20):
        scene.request(turn)
        scene.answer(turn)
        time.sleep(0.05)
        assert sched.get(stranger.pid) == before and tids(scene) == []
    assert scene.stats().wakes["stir"] > stirs
    scene.device.remove(scene.id)
    assert sched.get(stranger.pid) == before


def test_vcpu_that_moves_to_another_thread(scenes):
    """The old thread, which lives on, is given back what it had."""
    scene = scenes(add=False, code="halt")
    vcpu = scene.vcpu_fd()
    scene.vmm.halt(vcpu)
    assert scene.vmm.step(vcpu) == scene.vmm.pid
    scene.tids[:] = [scene.vmm.pid]
    scene.add(linger=1 * MS, max_sleep=LONG)
    scene.wait_sleepy()
    assert host.nice_of(scene.vmm.pid) == 19
    thread = scene.vmm.run(vcpu)
    scene.tids[:] = [thread]
    host.wait(lambda: tids(scene) == [thread], "the new thread is known", 3)
    assert host.nice_of(scene.vmm.pid) == 0
    scene.wait_sleepy()
    scene.device.remove(scene.id)
    assert host.nice_of(thread) == 0


@pytest.mark.parametrize("lever", [abi.NICE, abi.PARK], ids=["nice", "park"])
def test_threads_that_swap_their_vcpus(scenes, lever):
    """Both are taken for what they are now: they sleep, and wake by a request."""
    scene = scenes(vcpus=2, lever=lever, linger=1 * MS, max_sleep=LONG, park_max=3600 * abi.SECOND)
    scene.attached()
    vcpus = sorted(fd for fd, what in host.fds(scene.vmm.pid).items() if what.startswith("anon_inode:kvm-vcpu:"))
    for turn in range(6):
        scene.vmm.swap(*vcpus)
        scene.tids.reverse()
        host.wait(lambda: tids(scene) == scene.tids, f"known by their new vCPUs: {tids(scene)}", 5)
        scene.attached()
        scene.wait_low()
        scene.request(turn)
        assert scene.nices() == [0, 0]
        scene.wait_runs()
        scene.answer(turn)
    scene.wait_low()
    scene.device.remove(scene.id)
    assert scene.nices() == [0, 0]


def with_two_vcpus(scenes):
    """A VM, not added, of which one thread runs both vCPUs."""
    scene = scenes(code="halt", add=False)
    scene.vmm.also(scene.vcpu_fd(), scene.vmm.vcpu(scene.kvm_fd, 1, "halt"))
    runs, = Path("/sys/kernel/debug/kvm").glob(f"{scene.vmm.pid}-*/vcpu1/pid")
    host.wait(lambda: int(runs.read_text()) == scene.tids[0], "it has run the second one")
    return scene


@pytest.mark.parametrize("lever", [abi.NICE, abi.PARK], ids=["nice", "park"])
def test_thread_that_runs_two_vcpus(scenes, lever):
    """It has one nice value, whichever of its vCPUs is watched first."""
    scene = with_two_vcpus(scenes)
    with host.stopped(scene.vmm.pid):
        scene.add(lever=lever, linger=1 * MS, max_sleep=LONG, request_timeout=LONG, flags=abi.BOOST, boost_nice=-5)
        assert tids(scene) == scene.tids * 2
        scene.wait_sleepy()
        scene.request()
    for turn in range(5):
        host.wait(lambda: scene.nices() == [-5], f"boosted; {scene}")
        scene.answer()
        scene.wait_sleepy()
        scene.request()
    scene.device.remove(scene.id)
    assert scene.nices() == [0]


def test_policy_of_a_thread_that_runs_two_vcpus(scenes):
    """It has one policy, too: one that an administrator gives it is left alone."""
    scene = with_two_vcpus(scenes)
    with host.stopped(scene.vmm.pid):
        scene.add(lever=abi.IDLE, linger=1 * MS, max_sleep=LONG)
        assert tids(scene) == scene.tids * 2
    tid, = scene.tids
    for turn in range(3):
        host.wait(lambda: sched.get(tid).policy == os.SCHED_IDLE, "lowered")
        scene.request(turn)
        host.wait(lambda: sched.get(tid).policy == os.SCHED_OTHER, "as before")
        scene.answer(turn)
    host.wait(lambda: sched.get(tid).policy == os.SCHED_IDLE, "lowered")
    sched.put(tid, os.SCHED_BATCH)
    for turn in range(3):
        scene.request(turn)
        scene.answer(turn)
        host.wait(lambda: scene.get().state == abi.SLEEPY, "asleep")
        time.sleep(0.1)
        assert sched.get(tid).policy == os.SCHED_BATCH
    scene.device.remove(scene.id)
    assert sched.get(tid).policy == os.SCHED_BATCH


@pytest.mark.flavour("base", "previous")
def test_more_vcpus_than_anything_is_done_to(scenes):
    """The others are left as they are."""
    scene = scenes(vcpus=abi.MAX_VCPUS + 2, code="halt", irqchip=True, linger=1 * MS, max_sleep=LONG)
    host.wait(lambda: scene.nices() == [19] * abi.MAX_VCPUS + [0, 0], "lowered", 20)
    assert scene.get().n_vcpus == abi.MAX_VCPUS
    scene.request()
    assert scene.nices() == [0] * len(scene.tids)
    scene.answer()
    host.wait(lambda: scene.nices() == [19] * abi.MAX_VCPUS + [0, 0], "lowered", 20)
    scene.device.remove(scene.id)
    assert scene.nices() == [0] * len(scene.tids)


def runs_in_its_first_thread(scene):
    """From now on, its VMM's first thread is that of its vCPU, and does what the VMM is told, too."""
    vcpu = scene.vcpu_fd()
    scene.vmm.halt(vcpu)
    scene.vmm.step(vcpu)
    scene.tids[:] = [scene.vmm.pid]
    os.setpriority(os.PRIO_PROCESS, scene.vmm.pid, 3)
    return vcpu


@pytest.mark.parametrize("lever", [abi.NICE, abi.IDLE], ids=["nice", "idle"])
def test_what_a_sleepy_thread_makes(scenes, lever):
    """A thread and a process: they are like their maker without sleepy, and nobody would give them anything back."""
    scene = scenes(add=False, code="halt")
    vcpu = runs_in_its_first_thread(scene)
    own = sched.get(scene.vmm.pid)
    scene.add(lever=lever, linger=1 * MS, max_sleep=LONG)
    scene.vmm.step(vcpu)  # a thread that waits for a command attaches when it has one
    scene.attached()
    host.wait(lambda: sched.get(scene.vmm.pid) != own, "lowered")
    made = [scene.vmm.thread(), scene.vmm.fork()]
    assert [sched.get(tid)[:2] for tid in made] == [(os.SCHED_OTHER, 3)] * 2
    assert sched.get(scene.vmm.pid) != own
    scene.request()
    host.wait(lambda: sched.get(scene.vmm.pid) == own, "it is given back")
    assert sched.get(scene.vmm.fork())[:2] == (os.SCHED_OTHER, 3)


def test_what_a_boosted_thread_makes(scenes):
    """It has no part in the boost, whatever the thread has made of that by itself."""
    scene = scenes(add=False, code="halt")
    vcpu = runs_in_its_first_thread(scene)
    scene.add(linger=1 * MS, max_sleep=LONG, request_timeout=LONG, flags=abi.BOOST, boost_nice=-20)
    scene.vmm.step(vcpu)
    scene.attached()
    scene.request()
    assert host.nice_of(scene.vmm.pid) == -20
    assert host.nice_of(scene.vmm.fork()) == 3
    os.setpriority(os.PRIO_PROCESS, scene.vmm.pid, -19)
    assert host.nice_of(scene.vmm.fork()) == 3


def test_boost_is_not_kept(scenes):
    """A thread may take a part of its boost back, as any may make itself less: the rest does not stay."""
    scene = scenes(add=False, code="halt")
    vcpu = runs_in_its_first_thread(scene)
    scene.add(linger=1 * MS, max_sleep=LONG, request_timeout=LONG, flags=abi.BOOST, boost_nice=-20)
    scene.request()
    assert scene.nices() == [3], "what it makes is not watched yet"
    scene.vmm.step(vcpu)
    scene.attached()
    scene.answer()
    scene.wait_sleepy()
    scene.request()
    assert scene.nices() == [-20]
    assert scene.vmm.renice(-19) == "done"
    assert scene.vmm.renice(-20) == "EACCES"
    scene.answer()
    host.wait(lambda: scene.get().state == abi.SLEEPY, "asleep")
    assert scene.nices() == [3], "left alone, but for the boost"
    os.setpriority(os.PRIO_PROCESS, scene.vmm.pid, -18)  # as one that was allowed to before, and is late
    scene.request(1)
    assert scene.nices() == [3]
    scene.device.remove(scene.id)
    assert scene.nices() == [3]


def test_thread_of_many_vcpus(scenes):
    """Eight of them are watched: each is looked at whenever the thread gets or loses its CPU."""
    scene = scenes(add=False, code="halt")
    vcpus = [scene.vmm.vcpu(scene.kvm_fd, number, "halt") for number in range(1, 21)]
    for vcpu in vcpus:
        scene.vmm.step(vcpu)
    scene.add(linger=1 * MS, max_sleep=LONG)
    assert sum(vcpu.tid == scene.vmm.pid for vcpu in scene.device.vcpus(scene.id)) == 8
    scene.vmm.step(vcpus[0])  # a thread that waits for a command attaches when it has one
    host.wait(lambda: host.nice_of(scene.vmm.pid) == 19, "it is lowered")
    scene.request()
    assert host.nice_of(scene.vmm.pid) == 0
    scene.device.remove(scene.id)
    scene.vmm.step(vcpus[0])


def program(pid):
    """What the process runs; nothing for the moment in which exec() has taken its old memory away."""
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except FileNotFoundError:
        return ""


@pytest.mark.parametrize("by", ["the process's first thread", "another thread"])
def test_exec_over_a_vcpu(scenes, by):
    """The VM ends, a thread that ran it becomes another program: with its old weight and no notifier."""
    scene = scenes(add=False, code="halt")
    vcpu = scene.vcpu_fd()
    command = ["exec_by", vcpu]
    if by != "another thread":
        scene.vmm.halt(vcpu)
        scene.vmm.step(vcpu)
        scene.tids[:] = [scene.vmm.pid]
        command = ["exec"]
    scene.add(linger=1 * MS, max_sleep=LONG)
    if by != "another thread":
        scene.vmm.step(vcpu)  # a thread that waits for a command attaches when it has one
    scene.attached()
    scene.wait_sleepy()
    scene.vm.close()
    scene.vmm.send(*command)
    host.wait(lambda: program(scene.vmm.pid).endswith("sleep"), "another program")
    host.wait(lambda: not scene.device.vms(), "the VM is gone", 3)
    assert host.nice_of(scene.vmm.pid) == 0
    os.sched_setaffinity(scene.vmm.pid, {0})  # whatever the thread still had, it has been switched since
    # The notifier may not outlive the VM: the open device is the last reference.
    host.wait(lambda: host.refcount() == 1, "the notifier is gone")


def test_machine_closed_by_its_vmm(scenes):
    """The VM ends, the VMM and the vCPU's thread live on."""
    scene = scenes(add=False, code="halt")
    vcpu = scene.vcpu_fd()
    scene.vmm.halt(vcpu)
    scene.vmm.step(vcpu)
    scene.tids[:] = [scene.vmm.pid]
    scene.add(linger=1 * MS, max_sleep=LONG)
    scene.wait_sleepy()
    scene.vmm.close(scene.kvm_fd)
    time.sleep(1.5)
    assert [vm.id for vm in scene.device.vms()] == [scene.id], "a vCPU's descriptor keeps a VM"
    scene.vmm.close(vcpu)
    host.wait(lambda: not scene.device.vms(), "the VM is gone", 3)
    assert host.nice_of(scene.vmm.pid) == 0
    host.wait(lambda: host.refcount() == 1, "the notifier is gone")


def test_vmm_that_exits(scenes):
    scene = scenes(linger=1 * MS, max_sleep=LONG)
    scene.wait_sleepy()
    name = f"{scene.vmm.pid}-{scene.kvm_fd}"
    assert any(entry.startswith(f"{scene.vmm.pid}-") for entry in os.listdir("/sys/kernel/debug/kvm")), name
    pid = scene.vmm.pid
    scene.vm.close()
    scene.vmm.stop()
    # KVM's own folder for it goes with the VM itself.
    host.wait(lambda: not any(entry.startswith(f"{pid}-") for entry in os.listdir("/sys/kernel/debug/kvm")),
              "KVM has let go of the VM")
    host.wait(lambda: not scene.device.vms(), "the VM is gone", 3)
    assert scene.device.info().vms == 0


def test_handle_keeps_nothing_alive(scenes):
    """VM_ADD by descriptor: that descriptor is not kept, and so neither is the VM."""
    scene = scenes(add=False)
    copy = host.getfd(scene.vmm.pid, scene.kvm_fd)
    scene.id = scene.device.add("x", scene.vmm.pid, vm_fd=copy)
    os.close(copy)
    pid = scene.vmm.pid
    scene.vm.close()
    scene.vmm.stop()
    host.wait(lambda: not any(entry.startswith(f"{pid}-") for entry in os.listdir("/sys/kernel/debug/kvm")),
              "KVM has let go of the VM", 1)


def test_name_is_free_at_once(scenes, vmm):
    """The name of a VM that died need not wait for the next look."""
    scene = scenes(linger=1 * MS)
    other = vmm()
    other.machine()
    scene.vm.close()
    scene.vmm.stop()
    vm = scene.device.add(scene.tap, other.pid)
    assert [one.id for one in scene.device.vms()] == [vm]


def test_adding_and_removing_over_and_over(scenes):
    """Each time all is as before, also for the thread of the test that looks on meanwhile."""
    scene = scenes(vcpus=2, add=False)
    stop = threading.Event()
    seen = []

    def look():
        with abi.Device() as device:
            while not stop.is_set():
                for vm in device.vms():
                    try:
                        device.vcpus(vm.id)
                        device.links(vm.id)
                        seen.append(device.stats(vm.id).id)
                    except FileNotFoundError:
                        pass
                time.sleep(0.001)

    looker = threading.Thread(target=look)
    looker.start()
    try:
        for turn in range(host.turns(30)):
            scene.add(linger=0, max_sleep=1 * MS)
            scene.request(turn)
            scene.answer(turn)
            if turn % 2:
                scene.set(linger=turn * 1000)
            scene.device.remove(scene.id)
            assert scene.nices() == [0, 0]
    finally:
        stop.set()
        looker.join()
    assert seen
