# SPDX-License-Identifier: GPL-2.0-only
"""Tiny KVM guests that do one thing over and over: in this process, and, for many, in processes of their own."""

import ctypes
import fcntl
import os
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lib import abi, actor, host, kvm, net

from programs import copied
from record import now

EXIT_IO = 2
VECTOR = 0x41
# movl $0x1ff, %es:0xf0: the local APIC is on; movl $0xb, %es:0x3e0 and $0x40, %es:0x320: its timer counts
# nanoseconds, once, and raises vector 0x40; sti
PROLOGUE = bytes.fromhex("2666c706f000ff010000 2666c706e0030b000000 2666c706200340000000 fb")
# inc %bx; movl $0, %es:0xb0 (end of interrupt); iret
HANDLER = bytes.fromhex("43 2666c706b00000000000 cf")

HALT = bytes.fromhex("f4 ebfd")                                # hlt; jmp to it
BODIES = {
    "hypercall": bytes.fromhex("66b8e8030000 0f01d9"),         # mov $1000, %eax (nobody's number); vmmcall
    "port": bytes.fromhex("e421"),                             # in $0x21, %al: KVM's own PIC
    "ipi": bytes.fromhex("2666c706000341000400"),              # movl $0x40041, %es:0x300: vector 0x41 to itself
    # xor %ebx, %ebx; movl $1, %es:0x380: the timer fires at once; until then: test %bx, %bx; jz
    "timer": bytes.fromhex("6631db 2666c706800301000000 85db 74fc"),
}


class Crashed(Exception):
    """The emulator has lost the guest's registers, see kvm.crashed()."""


def repeat(body, count):
    """`body` so many times, and then an exit to user space; and again."""
    code = b"\x66\xb9" + struct.pack("<I", count) + body + b"\x66\x49"               # mov $count, %ecx; ...; dec %ecx
    code += b"\x75" + struct.pack("b", -(len(body) + 4)) + b"\xba\x10\x05\xee"       # jnz; mov $0x510, %dx; out
    return code + b"\xeb" + struct.pack("b", -(len(code) + 2))


class Guest:
    """A VM of this process with one vCPU, whose thread does as it is told."""

    machine = None

    def __init__(self, code):
        Guest.machine = self.machine or kvm.Machine()
        self.id = 0
        self.vm = fcntl.ioctl(self.machine.kvm, kvm.CREATE_VM, 0)
        fcntl.ioctl(self.vm, kvm.CREATE_IRQCHIP, 0)
        self.vcpu = self.machine.vcpu(self.vm, 0, "actor")
        page = self.machine.memory[self.vm]
        page[actor.START:actor.START + len(PROLOGUE + code)] = PROLOGUE + code
        page[actor.HANDLER:actor.HANDLER + len(HANDLER)] = HANDLER
        self.thread = ThreadPoolExecutor(1)

    def enter(self):
        """Lets the guest run in its thread until its next exit to user space; returns how long that took."""
        return self.thread.submit(self._enter).result()

    def _enter(self):
        libc = ctypes.CDLL(None)
        began = now()
        while libc.ioctl(self.vcpu, ctypes.c_ulong(kvm.RUN), 0):
            pass
        took = now() - began
        reason = self.machine.exit_reason(self.vcpu)
        if reason != EXIT_IO:
            raise Crashed(f"the guest ended with exit reason {reason}")
        return took

    def start(self):
        """Lets it run until the end of the program; returns the thread's id."""
        return self.machine.run(self.vcpu)

    def interrupt(self, count):
        """So many interrupts, one after the other; returns how long that took."""
        message = struct.pack("IIIII12x", 0xFEE00000, 0, VECTOR, 0, 0)
        ioctl, vm = fcntl.ioctl, self.vm
        began = now()
        for _ in range(count):
            ioctl(vm, kvm.SIGNAL_MSI, message)
        return now() - began

    def register(self, device, name, policy, links=(), rules=()):
        """Adds it to sleepy."""
        self.id = device.add(name, os.getpid(), links=links, rules=rules, vm_fd=self.vm, policy_=policy)

    def attach(self, device):
        """Its thread links its notifier when it next enters the guest: so the guest, which has halted, is interrupted."""
        self.interrupt(1)
        host.wait(lambda: device.vcpus(self.id)[0].flags & abi.ATTACHED, "the notifier is linked")


def available():
    """Memory that can be had, in kB."""
    meminfo = Path("/proc/meminfo").read_text(encoding="ascii")
    return int(meminfo.partition("MemAvailable:")[2].split()[0])


class Fleet:
    """VMs in processes of their own, each with one halted vCPU and a tap, as many as are wanted by now."""

    TAP = "cost"

    def __init__(self, standin):
        self.command = copied(standin)
        self.pids, self.links = [], []
        self.netns = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.available = available()

    def most(self):
        """How many there can be, by what those that are here have taken, and with a tenth of the memory left."""
        return int(0.9 * self.available * len(self.pids) / (self.available - available()))

    def fits(self, count):
        """Whether there can be so many; of few, nothing can be said."""
        return len(self.pids) < 100 or count <= self.most()

    def grow(self, count):
        """Until there are so many."""
        while len(self.pids) < count:
            name = net.tap(f"{self.TAP}{len(self.pids)}")
            tap = kvm.Machine.tap(name)
            ready, done = os.pipe()
            actions = [(os.POSIX_SPAWN_DUP2, done, 1), (os.POSIX_SPAWN_DUP2, tap, 3)]
            self.pids.append(os.posix_spawn(self.command[0], self.command, os.environ, file_actions=actions))
            os.close(done)
            if not os.read(ready, 1):
                raise MemoryError(f"VM {len(self.pids)} of {count} could not be started")
            os.close(ready)
            os.close(tap)
            self.links.append((self.netns, net.ifindex(name)))
        time.sleep(1)  # all of them are in their guests, and have halted

    def register(self, device, count, rules):
        """Adds the first so many to sleepy."""
        policy = abi.policy()
        for number, (pid, link) in enumerate(zip(self.pids[:count], self.links)):
            device.add(f"fleet-{number}", pid, links=[link], rules=rules, policy_=policy)
