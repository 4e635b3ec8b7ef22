# SPDX-License-Identifier: GPL-2.0-only
"""A VM with a tap, and the test at both ends of it.

       test: packet socket  ->  tap's egress hook   ->  tap's queue  ->  test: the VMM's descriptor
       test: packet socket  <-  tap's ingress hook  <-------------------  (taken by pidfd_getfd)

No Linux guest and no network stack has a say in what is sent and when.
"""

import os
import struct
import time

from . import abi, actor, frames, host, kvm, net

UDP, TCP = 17, 6
UDP_PORT, TCP_PORT = 7, 80

RULES = [
    (abi.CLOSE, abi.TO_VM | abi.FROM_VM, frames.tcp_flag(frames.RST)),
    (abi.REQUEST, abi.TO_VM, frames.ipv4_port(UDP, True, UDP_PORT)),
    (abi.RESPONSE, abi.FROM_VM, frames.ipv4_port(UDP, False, UDP_PORT)),
    (abi.CLOSE, abi.FROM_VM, frames.tcp_flag(frames.FIN)),
    (abi.REQUEST, abi.TO_VM, frames.ipv4_port(TCP, True, TCP_PORT)),
    (abi.RESPONSE, abi.FROM_VM, frames.ipv4_port(TCP, False, TCP_PORT)),
]


class Scene:
    """One VM."""

    def __init__(self, device, tracer, vmm, kvm_fd, tids, tap, nice=0):
        self.device, self.vmm, self.kvm_fd, self.tids, self.tap = device, vmm, kvm_fd, tids, tap
        self.baseline = nice
        for tid in self.tids:
            os.setpriority(os.PRIO_PROCESS, tid, nice)
        self.tracer = tracer
        self.tasks = tracer.learn(self.tids) if tracer else {}
        self.guest = actor.Actor(vmm, kvm_fd)
        self.host = net.HostSide(tap)
        self.vm = net.VmSide(vmm.pid, tap)
        self.id = 0
        self.policy = abi.policy()
        self.sent = {}  # by ports: where the last segment began, and where the next one does

    def add(self, rules=None, links=None, name=None, group_fd=-1, **policy):
        self.policy = abi.policy(**policy)
        with open("/proc/self/ns/net", "rb") as netns:
            self.id = self.device.add(
                name or self.tap, self.vmm.pid, vm_fd=-1, policy_=self.policy,
                links=[(netns.fileno(), net.ifindex(self.tap))] if links is None else links,
                rules=RULES if rules is None else rules, group_fd=group_fd)
        return self.id

    def set(self, group_fd=-1, **changes):
        self.policy = self.policy.but(**changes)
        self.device.set(self.id, self.policy, group_fd)

    def recording(self, *others):
        """Records this VM's threads and device, and those of the others."""
        scenes = (self, *others)
        tasks = {task: tid for one in scenes for task, tid in one.tasks.items()}
        return self.tracer.recording(tasks, [one.tap for one in scenes])

    def vcpu_fd(self):
        """The descriptor of its one vCPU, in its VMM."""
        return next(fd for fd, what in host.fds(self.vmm.pid).items() if what.startswith("anon_inode:kvm-vcpu:"))

    # Packets. A flow is a port of the client's.

    def request(self, flow=0, payload=b"?"):
        self.host.send(frames.udp(True, 10000 + flow, UDP_PORT, payload))

    def answer(self, flow=0, payload=b"!"):
        self.vm.send(frames.udp(False, 10000 + flow, UDP_PORT, payload))

    def tcp_to_vm(self, flags, payload=b"", flow=0):
        self.host.send(frames.tcp(True, 20000 + flow, TCP_PORT, flags, payload))

    def tcp_from_vm(self, flags, payload=b"", flow=0, **how):
        self.segment_from_vm(20000 + flow, TCP_PORT, flags, payload, **how)

    def segment_from_vm(self, client, server, flags, payload=b"", again=False, seq=1000):
        """The next one between these ports, or the last one `again`; the first has the sequence number `seq`."""
        ports = (client, server)
        if again:
            seq = self.sent[ports][0]
        elif ports in self.sent:
            seq = self.sent[ports][1]
        length = len(payload) + sum(bool(flags & flag) for flag in (frames.SYN, frames.FIN))
        self.sent[ports] = (seq, (seq + length) % 2**32)
        self.vm.send(frames.tcp(False, client, server, flags, payload, seq))

    # What the module says, and what the threads have.

    def get(self):
        return self.device.get(self.id)

    def stats(self):
        return self.device.stats(self.id)

    def nices(self):
        return [host.nice_of(tid) for tid in self.tids]

    def is_sleepy(self):
        want = self.baseline
        if self.policy.lever == abi.NICE:
            want = max(want, self.policy.sleepy_nice)
        return self.get().state == abi.SLEEPY and self.nices() == [want] * len(self.tids)

    def wait_sleepy(self, seconds=5):
        host.wait(self.is_sleepy, f"{self.tap} is sleepy; {self}", seconds, step=0.001)

    def wait_sleeps(self, cause, count=1, seconds=5):
        """Waits until it fell asleep so many times for this cause."""
        host.wait(lambda: self.stats().sleeps[cause] >= count, f"{count} x asleep by {cause}; {self}", seconds)

    def wait_wakes(self, cause, count=1, seconds=5):
        """Waits until it woke so many times for this cause."""
        host.wait(lambda: self.stats().wakes[cause] >= count, f"{count} x awake by {cause}; {self}", seconds)

    def oncpu(self):
        """How long its vCPUs have been on a CPU, in nanoseconds."""
        return sum(vcpu.oncpu for vcpu in self.device.vcpus(self.id))

    def wait_parked(self):
        """Waits until it is sleepy, and every vCPU has been parked, and has no CPU."""
        self.wait_sleepy()

        def parked():
            return all(vcpu.parked and not vcpu.flags & abi.ON_CPU for vcpu in self.device.vcpus(self.id))

        host.wait(parked, f"parked; {self}")

    def wait_low(self):
        """Waits until it is sleepy, and parked if that is its lever."""
        (self.wait_parked if self.policy.lever == abi.PARK else self.wait_sleepy)()

    def wait_runs(self):
        """Waits until each vCPU has had a CPU for a while from now on, longer than to see what is the matter."""
        def ran():
            return [vcpu.oncpu for vcpu in self.device.vcpus(self.id)]

        before = ran()
        host.wait(lambda: all(now - then > 5 * abi.MS for then, now in zip(before, ran())), f"all run; {self}")

    def share(self, seconds):
        """The share of a CPU that it takes."""
        before, began = self.oncpu(), time.monotonic()
        time.sleep(seconds)
        return (self.oncpu() - before) / 1e9 / (time.monotonic() - began)

    def share_beside(self, other, during=lambda: time.sleep(1)):
        """Its share of the time that it and another are on a CPU."""
        before = self.oncpu(), other.oncpu()
        during()
        mine, others = self.oncpu() - before[0], other.oncpu() - before[1]
        return mine / (mine + others)

    def progress(self):
        """How many of its loops one that spins has done."""
        return struct.unpack("I", bytes.fromhex(self.vmm.peek(self.kvm_fd, kvm.COUNT, 4)))[0]

    def attached(self, count=None):
        """Waits until every vCPU thread, or so many, has its notifier."""
        def all_attached():
            vcpus = self.device.vcpus(self.id)
            attached = sum(bool(vcpu.flags & abi.ATTACHED) for vcpu in vcpus)
            return len(vcpus) == len(self.tids) and attached == (count or len(self.tids))
        host.wait(all_attached, "all vCPU threads are attached")

    def __repr__(self):
        if not self.id:
            return f"{self.tap}: not added"
        vm, stats = self.get(), self.stats()
        return (f"{self.tap}: state {vm.state}, {vm.in_flight} in flight, nice {self.nices()}, wakes "
                f"{stats.wakes}, sleeps {stats.sleeps}")

    def close(self):
        self.host.close()
        self.vm.close()
