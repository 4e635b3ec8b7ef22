# SPDX-License-Identifier: GPL-2.0-only
"""A VMM that does as it is told: for what no sane VMM does.

A child process takes one command after another from a socket, so that a test can have two VMs in one
process, move a vCPU to another thread, or exec over a running one. The guest is a few instructions.
"""

import ctypes
import fcntl
import json
import mmap
import os
import resource
import signal
import socket
import struct
import threading
import time
import traceback
from pathlib import Path

from . import actor, caller, host, net

CREATE_VM, CREATE_IRQCHIP, CREATE_PIT2 = 0xAE01, 0xAE60, 0x4040AE77
CREATE_VCPU, SET_MEMORY, RUN = 0xAE41, 0x4020AE46, 0xAE80
IRQ_LINE, SET_ROUTING, IRQFD, IOEVENTFD, SIGNAL_MSI = 0x4008AE61, 0x4008AE6A, 0x4020AE76, 0x4040AE79, 0x4020AEA5
GET_SREGS, SET_SREGS, SET_REGS = 0x8138AE83, 0x4138AE84, 0x4090AE82
# How KVM_RUN ends of which no guest here is the cause: shutdown, failed entry, internal error. Where that is in kvm_run.
CRASHES, EXIT_REASON = (8, 9, 17), slice(8, 12)
HALT = b"\xf4"
# mov ecx, 2^22; dec ecx; jnz .-2; incl COUNT; cpuid; jmp to the start. CPUID makes the guest exit every few milliseconds: while
# one spun without any exit, its emulated CPU was once seen to take no interrupt for minutes.
SPIN = b"\x66\xb9\x00\x00\x40\x00\x66\x49\x75\xfc\x66\xff\x06\x00\x08\x0f\xa2\xeb\xed"
COUNT = 0x800

# Written by the children: a vCPU has crashed.
_crashed = mmap.mmap(-1, mmap.PAGESIZE)


def crashed():
    """Whether a vCPU of an actor has crashed since the last call.

    The emulator does that, once in some 600,000 exits: the guest goes on with registers of the host (its instruction
    pointer is behind kvm_amd's VMRUN).
    """
    seen, _crashed[0] = _crashed[0], 0
    return bool(seen)


class Machine:
    """What happens in the child."""

    def __init__(self):
        self.kvm = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
        self.memory = {}
        self.stop = {}
        self.actors = set()

    def vm(self, irqchip=False):
        """Creates a VM. With an interrupt controller, a halted vCPU blocks inside of KVM."""
        vm = fcntl.ioctl(self.kvm, CREATE_VM, 0)
        if irqchip:
            fcntl.ioctl(vm, CREATE_IRQCHIP, 0)
            fcntl.ioctl(vm, CREATE_PIT2, bytes(64))
        return vm

    def vcpu(self, vm, number=0, code="spin"):
        """Creates a vCPU; nobody runs it yet."""
        if vm not in self.memory:
            page = mmap.mmap(-1, 4096, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
            page.write(actor.page() if code == "actor" else SPIN if code == "spin" else HALT * 4096)
            address = ctypes.addressof(ctypes.c_char.from_buffer(page))
            fcntl.ioctl(vm, SET_MEMORY, struct.pack("IIQQQ", 0, 0, 0, 4096, address))
            self.memory[vm] = page
        vcpu = fcntl.ioctl(vm, CREATE_VCPU, number)
        sregs = bytearray(312)
        fcntl.ioctl(vcpu, GET_SREGS, sregs, True)
        struct.pack_into("Q", sregs, 0, 0)   # cs.base
        struct.pack_into("H", sregs, 12, 0)  # cs.selector
        if code == "actor":
            struct.pack_into("QI", sregs, 48, 0xFEE00000, 0xFFFF)  # es: the local APIC
        fcntl.ioctl(vcpu, SET_SREGS, bytes(sregs))
        self.start(vcpu, code)
        if code == "actor":
            self.actors.add(vcpu)
        return vcpu

    @staticmethod
    def start(vcpu, code=None):
        """Sets the instruction pointer; an actor has a stack, too."""
        regs = [0] * 16 + [0, 2]
        if code == "actor":
            regs[6], regs[16] = 0xF00, actor.START
        fcntl.ioctl(vcpu, SET_REGS, struct.pack("18Q", *regs))

    def run(self, vcpu):
        """Runs a vCPU in a thread of its own until `halt`; returns the thread's id."""
        libc = ctypes.CDLL(None)
        stop = self.stop[vcpu] = threading.Event()
        stop.exec, stop.vcpu, stop.other, stop.errand = False, vcpu, None, None
        started = threading.Event()

        def body():
            thread.tid = threading.get_native_id()
            started.set()
            while not stop.is_set():
                if stop.errand:
                    errand, stop.errand = stop.errand, None
                    errand()
                vcpu = stop.vcpu
                if stop.other:
                    stop.vcpu, stop.other = stop.other, vcpu
                libc.ioctl(vcpu, ctypes.c_ulong(RUN), 0)
                if vcpu in self.actors:
                    if self.exit_reason(vcpu) in CRASHES:
                        _crashed[0] = 1
                        break
                    continue
                # A halt ends KVM_RUN at once: there is no interrupt controller.
                self.start(vcpu)
                time.sleep(0.005)
            if stop.exec:
                self.exec()

        thread = threading.Thread(target=body, daemon=True)
        stop.thread = thread
        thread.start()
        started.wait()
        return thread.tid

    @staticmethod
    def exit_reason(vcpu):
        """Why KVM_RUN has ended."""
        with mmap.mmap(vcpu, mmap.PAGESIZE, prot=mmap.PROT_READ) as state:
            return int.from_bytes(state[EXIT_REASON], "little")

    def halt(self, vcpu):
        """Ends the thread that runs a halting vCPU."""
        self.stop[vcpu].set()
        self.stop[vcpu].thread.join()

    def kick(self, tid):
        """Lets a thread's KVM_RUN return, by a signal."""
        signal.signal(signal.SIGUSR1, lambda *_: None)
        thread = next(thread for thread in threading.enumerate() if thread.native_id == tid)
        signal.pthread_kill(thread.ident, signal.SIGUSR1)

    def swap(self, one, other):
        """Has the threads that run two vCPUs run each the other's."""
        there = threading.Barrier(3)
        stops = self.stop[one], self.stop[other]
        for stop in stops:
            stop.errand = lambda: (there.wait(), there.wait())
            self.kick(stop.thread.tid)
        there.wait()
        stops[0].vcpu, stops[1].vcpu = other, one
        self.stop[one], self.stop[other] = stops[1], stops[0]
        there.wait()

    def also(self, vcpu, other):
        """Has the thread that runs a halting vCPU run another one, too, by turns."""
        self.stop[vcpu].other = other

    def renice(self, nice):
        """Sets the main thread's nice value without the right to raise it; returns what comes of it."""
        caller.without(caller.CAP_SYS_NICE)
        return caller.outcome(lambda: os.setpriority(os.PRIO_PROCESS, 0, nice))

    def thread(self):
        """Makes a thread that runs no vCPU, for a while; returns its id."""
        thread = threading.Thread(target=time.sleep, args=(10,), daemon=True)
        thread.start()
        return thread.native_id

    def fork(self):
        """Makes a process that does nothing, for a while; returns its id."""
        pid = os.fork()
        if pid == 0:
            os.closerange(3, 4096)
            time.sleep(10)
            os._exit(0)
        return pid

    def step(self, vcpu):
        """Runs a halting vCPU once in the main thread."""
        ctypes.CDLL(None).ioctl(vcpu, ctypes.c_ulong(RUN), 0)
        return os.getpid()

    def poke(self, vm, address, data):
        data = bytes.fromhex(data)
        self.memory[vm][address:address + len(data)] = data

    def peek(self, vm, address, size):
        return self.memory[vm][address:address + size].hex()

    # Interrupts

    def msi(self, vm, vector):
        """As a device does that the VMM emulates."""
        fcntl.ioctl(vm, SIGNAL_MSI, struct.pack("IIIII12x", 0xFEE00000, 0, vector, 0, 0))

    def irq_line(self, vm, gsi, level):
        fcntl.ioctl(vm, IRQ_LINE, struct.pack("II", gsi, level))

    def irqfd(self, vm, vector):
        """An eventfd that raises this vector; returns it."""
        fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        gsi = 24
        # One route: GSI, MSI, no flags; address, data.
        fcntl.ioctl(vm, SET_ROUTING, struct.pack("II", 1, 0) + struct.pack("IIIIIII20x", gsi, 2, 0, 0, 0xFEE00000, 0,
                                                                            vector))
        fcntl.ioctl(vm, IRQFD, struct.pack("IIII16x", fd, gsi, 0, 0))
        return fd

    def signal(self, fd):
        os.eventfd_write(fd, 1)

    def doorbell(self, vm, port, pid, fd):
        """What the guest writes to this port signals a descriptor of another VMM."""
        taken = host.getfd(pid, fd)
        fcntl.ioctl(vm, IOEVENTFD, struct.pack("QQIiI36x", 0, port, 0, taken, 1 << 1))

    @staticmethod
    def tap(name):
        """Opens a tap, as its owner."""
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(fd, net.TUNSETIFF, struct.pack("16sH22x", name.encode(), net.IFF_TAP | net.IFF_NO_PI))
        return fd

    def setsid(self):
        """Begins a session."""
        os.setsid()

    def close(self, fd):
        os.close(fd)

    def point(self, fd):
        """Its lowest descriptor only names the file of another one."""
        os.dup2(os.open(f"/proc/self/fd/{fd}", os.O_PATH), 0)

    def crowd(self, count, *fds):
        """Takes so many descriptors; those of these files come after them. Returns their numbers."""
        resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, count + 100))
        for _ in range(count):
            os.dup(0)
        moved = [os.dup(fd) for fd in fds]
        for fd in fds:
            os.close(fd)
        return moved

    def exec(self):
        """Becomes another program, which has none of KVM's descriptors: they are closed on exec."""
        os.execv("/bin/sleep", ["sleep", "1000"])

    def exec_by(self, vcpu):
        """The same, by the thread that runs a halting vCPU: it becomes the process's first and only one."""
        self.stop[vcpu].exec = True
        self.stop[vcpu].set()
        time.sleep(1000)


def serve(channel):
    machine = Machine()
    with channel.makefile("rw") as file:
        for line in file:
            name, args = json.loads(line)
            try:
                answer = {"result": getattr(machine, name)(*args)}
            except Exception:  # whatever it is, the test is told
                answer = {"error": traceback.format_exc()}
            file.write(json.dumps(answer) + "\n")
            file.flush()


def fork_as(pid):
    """fork(), with this process id for the child; whoever had it has ended, or is about to."""
    wanted = ctypes.c_int(pid)
    # struct clone_args: the fifth field is the signal at exit, the ninth and tenth the ids and their number.
    args = (ctypes.c_uint64 * 11)(0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, ctypes.addressof(wanted), 1, 0)
    deadline = time.monotonic() + 5
    while True:
        try:
            return host.syscall(host.SYS_CLONE3, args, ctypes.sizeof(args))
        except FileExistsError:
            # A thread that is joined still has to leave its id.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.001)


class Vmm:
    """The child, seen from the test."""

    def __init__(self, pid=0):
        """`pid` chooses the child's process id."""
        ours, theirs = socket.socketpair()
        self.pid = fork_as(pid) if pid else os.fork()
        if self.pid == 0:
            try:
                # Nothing of the tests' own: a copy of /dev/sleepy here would keep the module.
                keep = theirs.fileno()
                os.closerange(3, keep)
                os.closerange(keep + 1, 4096)
                serve(theirs)
            finally:
                os._exit(0)
        theirs.close()
        self.channel = ours
        self.file = ours.makefile("rw")

    def send(self, name, *args):
        self.file.write(json.dumps([name, args]) + "\n")
        self.file.flush()

    def __getattr__(self, name):
        def call(*args):
            self.send(name, *args)
            line = self.file.readline()
            assert line, f"the VMM died in {name}"
            answer = json.loads(line)
            assert "error" not in answer, answer.get("error")
            return answer["result"]
        return call

    def machine(self, code="spin", vcpus=1, irqchip=False):
        """A VM with running vCPUs: (descriptor, thread ids)."""
        vm = self.vm(irqchip)
        tids = [self.run(self.vcpu(vm, number, code)) for number in range(vcpus)]
        host.wait(lambda: all(os.path.exists(f"/proc/{self.pid}/task/{tid}") for tid in tids), "vCPU threads")
        return vm, tids

    def disobeys(self):
        """Its guest does not look at its memory. If that is not for want of a CPU, the emulator has lost its registers."""
        def ran():
            tasks = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
            return sum(int(task.read_text().split()[0]) for task in tasks)

        before = ran()
        time.sleep(1)
        if ran() - before > 200_000_000:
            _crashed[0] = 1

    def stop(self):
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.kill(self.pid, signal.SIGCONT)
            os.waitpid(self.pid, 0)
            self.pid = 0
            self.file.close()
            self.channel.close()
