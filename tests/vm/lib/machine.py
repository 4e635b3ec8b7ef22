# SPDX-License-Identifier: GPL-2.0-only
"""What is churned: VMs and their links, each with what it shall be like when sleepy has let go of it."""

import os
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

from . import abi, actor, cgroup, kvm, net, sched

NETNS = net.PREFIX + "ns"
CPU1 = Path("/sys/devices/system/cpu/cpu1/online")


def online():
    return CPU1.read_text() == "1\n"


class Link:
    """A tap of a VM, with the test at both ends."""

    def __init__(self, vmm, name):
        self.name, self.netns = net.tap(name), None
        vmm.tap(name)
        self.vm, self.host = net.VmSide(vmm.pid, name), net.HostSide(name)

    def there(self, make):
        """Calls it with the link's name, in the link's namespace."""
        with net.inside(self.netns) if self.netns else nullcontext():
            return make(self.name)

    @contextmanager
    def handle(self):
        """What the kernel knows it by."""
        with open(f"/run/netns/{self.netns}" if self.netns else "/proc/self/ns/net", "rb") as netns:
            yield netns.fileno(), net.ifindex(self.name, self.netns)

    def up(self):
        """After it was down: a packet socket knows that, and says so once."""
        self.host.close()
        self.there(net.set_up)
        self.host = self.there(net.HostSide)

    def rename(self, name):
        net.ip(f"link set {self.name} down", f"link set {self.name} name {name}", netns=self.netns)
        self.name = name
        self.up()

    def move(self):
        other = None if self.netns else NETNS
        net.ip(f"link set {self.name} netns {other or 1}", netns=self.netns)
        self.netns = other
        self.up()

    def delete(self):
        net.ip(f"link del {self.name}", netns=self.netns)
        self.close()

    def close(self):
        self.host.close()
        self.vm.close()


class Machine:
    """A VM, its VMM, and what its threads and its group shall have when sleepy has let go of them."""

    def __init__(self, name, draw):
        self.name, self.id = name, 0
        self.code = draw.choice(("halt", "halt", "spin", "actor"))
        self.vmm = kvm.Vmm()
        os.setpriority(os.PRIO_PROCESS, self.vmm.pid, 0)
        self.kvm_fd, self.tids = self.vmm.machine(self.code, draw.randint(1, 2), self.code == "actor")
        self.guest = actor.Actor(self.vmm, self.kvm_fd)
        self.links, self.loads, self.threads, self.cpus = [], [], {}, {}
        self.group, self.weight = None, 0
        self.held, self.place = ExitStack(), ExitStack()
        self.tune(draw)

    def alive(self):
        """Its vCPU threads: the emulator may have crashed a guest, see kvm.py."""
        return [tid for tid in self.tids if os.path.exists(f"/proc/{self.vmm.pid}/task/{tid}")]

    def tune(self, draw):
        for tid in self.alive():
            sched.put(tid, draw.choice((os.SCHED_OTHER, os.SCHED_BATCH)), draw.randint(-5, 5), draw.randint(1, 5) * abi.MS)
            self.threads[tid] = sched.get(tid)

    def thread(self, tid):
        """A new one has what the VMM's first thread has; sleepy may have seen it already."""
        self.tids.append(tid)
        self.threads[tid] = sched.get(self.vmm.pid)._replace(slice=0)

    def pin(self):
        for tid in self.alive():
            if tid in self.cpus:
                os.sched_setaffinity(tid, self.cpus[tid])

    def unlike(self):
        """Threads that do not have what they shall have. A slice that nobody set depends on how many CPUs there are."""
        found = []
        for tid in self.alive():
            want, got = self.threads[tid], sched.get(tid)
            if got != (want if want.slice else want._replace(slice=got.slice)):
                found.append(f"thread {tid} of {self.name}: {got} instead of {want}")
            if tid in self.cpus and online() and os.sched_getaffinity(tid) != self.cpus[tid]:
                found.append(f"thread {tid} of {self.name}: on {os.sched_getaffinity(tid)} instead of {self.cpus[tid]}")
        return found

    def ran(self):
        """How long each of its threads has run, in nanoseconds, if its guest never waits."""
        return {tid: int(Path(f"/proc/{tid}/schedstat").read_text().split()[0]) for tid in self.alive() if self.code == "spin"}

    def weights(self):
        return {"cpu.weight": self.group.read("cpu.weight"), "cpu.idle": self.group.read("cpu.idle")}

    def enter(self, draw):
        self.group = self.place.enter_context(cgroup.group(self.name))
        self.group.take(self.vmm.pid)
        self.weight = draw.randint(2, 500)
        self.group.write("cpu.weight", self.weight)

    def leave(self):
        self.group = None
        self.place.close()

    def stop(self):
        """Kills the VMM, whatever state it is in, and removes what was its own."""
        self.vmm.stop()
        self.held.close()
        for load in self.loads:
            load.stop()
        for link in self.links:
            link.close()
            if link.netns or not net.delete_tap(link.name):
                net.ip(f"link del {link.name}", netns=link.netns)
        self.leave()
