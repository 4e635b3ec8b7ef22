# SPDX-License-Identifier: GPL-2.0-only
"""A host on which nothing stays as it is: VMs, links, groups, CPUs, packets and callers that come, change and go.

Each operation is a method of Churn, takes a generator of random numbers and a VM, and draws the rest from that. It
returns False if there was nothing to do.
"""

import errno
import os
import random
import signal
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

from . import abi, actor, cgroup, ctl, ebpf, frames, host, net, traffic
from .machine import CPU1, NETNS, Link, Machine, online
from .scene import RULES

MS = abi.MS
VMS, LINKS, VCPUS = 5, 3, 4
# Nothing here has to be fast: the bound of each wait, in seconds.
PATIENCE = 60
LEVERS = {"observe": abi.OBSERVE, "nice": abi.NICE, "idle": abi.IDLE, "cgroup": abi.GROUP, "park": abi.PARK}

# How often each operation is drawn, and what the table calls it.
OPERATIONS = {
    "boot": (6, "VM started"), "kill": (3, "VMM killed"), "exec": (1, "VMM becomes another program"),
    "vcpu": (2, "vCPU more"), "rethread": (2, "vCPU in a new thread"), "interrupt": (6, "interrupt, timer, IPI, hint"),
    "stop": (3, "VMM stopped"), "freeze": (3, "VMM frozen"), "go": (4, "VMM goes on"),
    "enter": (3, "into a group of its own"), "leave": (2, "out of it; it is removed"),
    "tune": (2, "threads set by hand"), "pin": (2, "threads pinned"), "plug": (2, "CPU unplugged, plugged"),
    "add": (8, "VM added"), "remove": (5, "VM removed"), "set": (10, "policy set"), "rules": (5, "rules set"),
    "refused": (2, "call refused"), "look": (6, "all looked at"), "reader": (2, "reader comes, goes"),
    "tap": (3, "link more"), "delete": (2, "link deleted"), "rename": (2, "link renamed"),
    "move": (3, "link to another namespace"), "ask": (10, "request"), "answer": (8, "answer"),
    "garbage": (6, "garbage sent"), "flood": (2, "500 flows at once"), "drain": (3, "packets read by the VM"),
    "load": (3, "senders come, go"), "apply": (2, "apply"), "killed": (3, "apply killed"),
    "both": (2, "two applies at once"), "tool": (3, "sleepyctl asks"), "pause": (3, "pause"),
}


class Found(Exception):
    """Something is not as it has to be; `what` is one of soak.LOOKS."""

    def __init__(self, what, text):
        super().__init__(text)
        self.what = what


def controllers():
    """Those that groups below the root have."""
    return set((cgroup.ROOT / "cgroup.subtree_control").read_text().split())


def send(side, frame):
    """To a device that may be full, or gone."""
    try:
        side.send(frame)
    except OSError as error:
        if error.errno not in (errno.ENOBUFS, errno.EAGAIN, *traffic.GONE):
            raise


class Churn:
    """The host."""

    def __init__(self, looks):
        self.device = abi.Device()
        self.looks = looks
        self.machines, self.serial, self.readers = [], 0, []
        self.controllers = controllers()
        # Guests that spin would leave little for what is done to them.
        os.setpriority(os.PRIO_PROCESS, 0, -10)
        net.ip(f"netns add {NETNS}")
        self.directory = tempfile.TemporaryDirectory(prefix="sleepy-")
        self.program = ebpf.load(ebpf.constant(0))

    def operation(self, number):
        """The one that this number stands for, and what is needed to do it: (its name, on which VM, a function)."""
        draw = random.Random(number)
        name = draw.choices(list(OPERATIONS), [weight for weight, _ in OPERATIONS.values()])[0]
        if not self.machines:
            name = "boot"
        machine = draw.choice(self.machines) if self.machines else None
        return name, machine.name if machine and name != "boot" else "", lambda: getattr(self, name)(draw, machine)

    def check(self, what, fine, text):
        self.looks[what] += 1
        if not fine:
            raise Found(what, text)

    def soon(self, what, condition, text):
        """The same, for what may take a while."""
        try:
            host.wait(condition, text, PATIENCE)
        except AssertionError as error:
            raise Found(what, str(error)) from None
        self.looks[what] += 1

    def fresh(self, kind):
        self.serial += 1
        return f"{kind}{self.serial}"

    # VMMs and their guests

    def boot(self, draw, _):
        if len(self.machines) == VMS:
            return False
        self.machines.append(Machine(self.fresh("vm"), draw))
        return self.tap(draw, self.machines[-1])

    def kill(self, _, machine):
        self.machines.remove(machine)
        machine.stop()

    def exec(self, _, machine):
        machine.held.close()
        machine.vmm.send("exec")
        self.soon("calls", lambda: Path(f"/proc/{machine.vmm.pid}/comm").read_text() == "sleep\n", "another program")
        self.kill(_, machine)

    def vcpu(self, _, machine):
        if len(machine.tids) == VCPUS:
            return False
        machine.held.close()
        vmm = machine.vmm
        machine.thread(vmm.run(vmm.vcpu(machine.kvm_fd, len(machine.tids), machine.code)))
        return True

    def rethread(self, draw, machine):
        """Only a guest that halts lets its thread go."""
        if machine.code != "halt":
            return False
        machine.held.close()
        fds = host.fds(machine.vmm.pid)
        fd = draw.choice([fd for fd in sorted(fds) if fds[fd].startswith("anon_inode:kvm-vcpu:")])
        machine.vmm.halt(fd)
        machine.tids = machine.alive()
        machine.thread(machine.vmm.run(fd))
        return True

    def interrupt(self, draw, machine):
        if machine.code != "actor":
            return False
        machine.held.close()
        if draw.random() < 0.3:
            machine.vmm.msi(machine.kvm_fd, actor.VECTOR)
        elif not machine.guest.ready():
            return False
        else:
            machine.guest.tell(*draw.choice((
                (actor.HYPERCALL, abi.HINT_HYPERCALL, draw.choice((abi.HINT_WAKE, abi.HINT_SLEEP))),
                (actor.TIMER, draw.randint(1, 5 * MS)), (actor.IPI,), (actor.OUT,), (actor.HLT,))))
        return True

    def stop(self, _, machine):
        machine.held.close()
        machine.held.enter_context(host.stopped(machine.vmm.pid, PATIENCE))

    def freeze(self, draw, machine):
        machine.held.close()
        self.enter(draw, machine)
        machine.held.enter_context(machine.group.frozen(PATIENCE))

    def go(self, _, machine):
        machine.held.close()

    # Control groups, threads, CPUs

    def enter(self, draw, machine):
        if machine.group:
            return False
        return machine.enter(draw)

    def leave(self, _, machine):
        if not machine.group:
            return False
        machine.held.close()
        return machine.leave()

    def tune(self, draw, machine):
        """Not while sleepy has a say in it: then it would be left alone from then on."""
        if machine.id:
            self.remove(draw, machine)
        machine.tune(draw)

    def pin(self, draw, machine):
        for tid in machine.alive():
            machine.cpus[tid] = {draw.choice(sorted(os.sched_getaffinity(0)))}
        machine.pin()

    def plug(self, _=None, __=None):
        """Who was pinned to a CPU that went is anywhere, and has to be pinned again."""
        CPU1.write_text("0" if online() else "1")
        for machine in self.machines if online() else ():
            machine.pin()

    # sleepy, by its calls

    def policy(self, draw, machine):
        lever = draw.choice([abi.OBSERVE, abi.NICE, abi.IDLE, abi.PARK] + [abi.GROUP] * 2 * bool(machine.group))
        boosts = lever != abi.IDLE and draw.random() < 0.3
        budget = {"boost_period": 20 * MS, "boost_budget": 2 * MS} if boosts and draw.random() < 0.5 else {}
        return abi.policy(
            lever=lever, sleepy_nice=draw.randint(0, 19), sleepy_weight=draw.choice((0, draw.randint(1, 1000))),
            flags=abi.BOOST * boosts, boost_nice=draw.randint(-20, 10) * boosts, linger=draw.randint(0, 5 * MS),
            request_timeout=draw.randint(1, 200) * MS, max_sleep=draw.randint(1, 100) * MS,
            quiet=draw.randint(1, 20) * MS, spin=draw.randint(1, 20) * MS, timer_slack=draw.randint(0, 5 * MS),
            park_max=draw.randint(2, 200) * MS, stir_run=draw.randint(50_000, 2 * MS),
            sleep_on=abi.sleep_on(*self.some(draw, abi.SLEEP_EVENTS)),
            wake_on=abi.wake_on(*self.some(draw, abi.WAKE_EVENTS)), **budget)

    @staticmethod
    def some(draw, items):
        return draw.sample(items, draw.randint(0, len(items)))

    def draw_rules(self, draw):
        more = [(draw.choice((abi.IGNORE, abi.WAKE, abi.SLEEP)), draw.randint(1, 3),
                 draw.choice((frames.EVERYTHING, frames.NOTHING)), b"text", draw.randint(0, 9)),
                (abi.PROGRAM, draw.randint(1, 3), self.program)]
        return self.some(draw, RULES + more)

    @contextmanager
    def group_for(self, policy, machine):
        """The descriptor of the group that the lever needs."""
        if policy.lever == abi.GROUP:
            with machine.group.fd() as fd:
                yield fd
        else:
            yield -1

    def add(self, draw, machine):
        if machine.id:
            self.remove(draw, machine)
        policy = self.policy(draw, machine)
        with ExitStack() as stack:
            links = [stack.enter_context(link.handle()) for link in machine.links]
            machine.id = self.device.add(machine.name, machine.vmm.pid, links=links, rules=self.draw_rules(draw),
                                         policy_=policy, group_fd=stack.enter_context(self.group_for(policy, machine)))

    def remove(self, draw, machine):
        if not machine.id:
            self.add(draw, machine)
            return
        self.device.remove(machine.id)
        machine.id = 0
        unlike = machine.unlike()
        self.check("threads", not unlike, "\n".join(unlike))

    def set(self, draw, machine):
        if not machine.id:
            self.add(draw, machine)
        policy = self.policy(draw, machine)
        with self.group_for(policy, machine) as fd:
            self.device.set(machine.id, policy, fd)

    def rules(self, draw, machine):
        if not machine.id:
            self.add(draw, machine)
        self.device.set_rules(machine.id, self.draw_rules(draw))

    def refused(self, draw, machine):
        """The module is in use, and who is here already is not added."""
        code = host.refused_unload(seconds=PATIENCE)
        self.check("calls", code in (errno.EBUSY, errno.EAGAIN), f"rmmod of a module in use: errno {code}")
        if machine.id:
            with abi.raises(errno.EEXIST):
                self.device.add(machine.name, machine.vmm.pid)
            with abi.raises(errno.EINVAL):
                self.device.set(machine.id, abi.policy(lever=99))

    def look(self, _=None, __=None):
        """All VMs: what the kernel says of them agrees with itself, and with what was done."""
        own = {machine.name: machine for machine in self.machines}
        for vm in self.device.vms():
            machine = own.get(vm.name.decode())
            try:
                links, vcpus = self.device.links(vm.id), self.device.vcpus(vm.id)
                self.device.stats(vm.id), self.device.rules(vm.id)
            except FileNotFoundError:
                self.check("states", not machine, f"{vm.name.decode()} is gone, and its VMM is not")
                continue
            flight = f"{vm.name.decode()}: state {vm.state}, {vm.in_flight} in flight, {vm.calls} calls"
            asleep = vm.state == abi.SLEEPY
            self.check("states", not asleep or vm.in_flight <= bool(vm.calls), f"asleep and asked: {flight}")
            self.check("states", vm.in_flight <= 65 and vm.calls <= 65, f"more flows than there can be: {flight}")
            self.check("states", not (asleep and vm.lost_links), f"asleep, and a link was lost: {flight}")
            if machine:
                names, known = {link.name.decode() for link in links}, {link.name for link in machine.links}
                self.check("states", names <= known, f"{machine.name} has {names}, its VMM {known}")
                tids, known = {vcpu.tid for vcpu in vcpus}, set(machine.threads)
                self.check("states", tids <= known, f"{machine.name} has threads {tids}, its VMM {known}")

    def reader(self, _=None, __=None):
        """Somebody who asks for everything all the time."""
        if self.readers:
            pid = self.readers.pop()
            os.kill(pid, signal.SIGKILL)
            status = os.waitpid(pid, 0)[1]
            self.check("calls", os.WIFSIGNALED(status), f"the reader ended with status {status}")
            return
        pid = os.fork()
        if pid == 0:
            try:
                read_all()
            finally:
                os._exit(1)
        self.readers.append(pid)

    # Links and packets

    def tap(self, _, machine):
        if len(machine.links) == LINKS:
            return False
        machine.held.close()
        machine.links.append(Link(machine.vmm, self.fresh(net.PREFIX)))
        return True

    def link(self, draw, machine):
        if not machine.links:
            self.tap(draw, machine)
        return draw.choice(machine.links)

    def delete(self, draw, machine):
        link = self.link(draw, machine)
        machine.links.remove(link)
        link.delete()

    def rename(self, draw, machine):
        self.link(draw, machine).rename(self.fresh(net.PREFIX))

    def move(self, draw, machine):
        self.link(draw, machine).move()

    def ask(self, draw, machine):
        link, flow = self.link(draw, machine), draw.randint(0, 9)
        send(link.host, draw.choice((
            frames.udp(True, 10000 + flow, draw.choice((7, 9))), frames.tcp(True, 20000 + flow, 80, frames.SYN),
            frames.tcp(True, 20000 + flow, 80, frames.PSH | frames.ACK, b"?"),
            frames.tcp(True, 20000 + flow, 80, frames.RST))))

    def answer(self, draw, machine):
        link, flow = self.link(draw, machine), draw.randint(0, 9)
        send(link.vm, draw.choice((
            frames.udp(False, 10000 + flow, 7), frames.tcp(False, 20000 + flow, 80, frames.PSH | frames.ACK, b"!"),
            frames.tcp(False, 20000 + flow, 80, frames.FIN | frames.ACK))))

    def garbage(self, draw, machine):
        """Bytes, and packets that are cut off or of another kind."""
        link = self.link(draw, machine)
        for side, to_vm in (link.host, True), (link.vm, False):
            whole = draw.choice((
                frames.tcp(to_vm, 20000, 80, draw.randint(0, 255), b"x"), frames.udp(to_vm, 10000, 7, ipv6=True),
                frames.udp(to_vm, 10000, 7, vlan=draw.randint(1, 4000)),
                frames.ethernet(to_vm, draw.randint(0, 0xFFFF), draw.randbytes(draw.randint(0, 1400)))))
            send(side, whole[:draw.randint(14, len(whole))])

    def flood(self, draw, machine):
        link = self.link(draw, machine)
        for flow in range(500):
            send(link.host, frames.udp(True, 10000 + flow, 7))

    def drain(self, draw, machine):
        try:
            self.link(draw, machine).vm.drain()
        except OSError as error:
            if error.errno not in traffic.GONE:
                raise

    def load(self, draw, machine):
        if machine.loads:
            self.check("calls", machine.loads.pop().stop(), "a sender met an error that is not the device's end")
        else:
            link = self.link(draw, machine)
            machine.loads.append(link.there(lambda name: traffic.Traffic(name, link.vm)))

    # sleepy, by its tool

    def manifest(self, draw):
        """One of all VMs; each has a link, or its rules would be a mistake."""
        text = "schema_version = 1\n"
        for machine in self.machines:
            self.link(draw, machine)
            lever = draw.choice(("auto", "observe", "nice", "idle", "park") + ("cgroup",) * bool(machine.group))
            text += (f'[[vm]]\nname = "{machine.name}"\npid = {machine.vmm.pid}\nlever = "{lever}"\n'
                     f'linger = "{draw.randint(0, 5000)}us"\nmax_sleep = "{draw.randint(1, 100)}ms"\n'
                     f'request_timeout = "{draw.randint(1, 200)}ms"\nwake_on = {self.some(draw, abi.WAKE_EVENTS)}\n')
            text += ('[[vm.rule]]\nclass = "request"\nfilter = "udp dst port 7"\n'
                     '[[vm.rule]]\nclass = "response"\nfilter = "udp src port 7"\n')
        path = Path(self.directory.name) / f"{self.fresh('m')}.toml"
        path.write_text(text)
        return path

    def applying(self, draw):
        return subprocess.Popen([ctl.PROGRAM, "-j", "apply", self.manifest(draw)], stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def applied(self, process, codes=(0,)):
        output, _ = process.communicate(timeout=PATIENCE * host.SLOW)
        self.check("tool", process.returncode in codes, f"apply: exit {process.returncode}\n{output}")

    def apply(self, draw, _):
        """Whatever was done before, it can be done; then all VMs are there."""
        self.applied(self.applying(draw))
        ids = {vm.name.decode(): vm.id for vm in self.device.vms()}
        for machine in self.machines:
            self.check("tool", machine.name in ids, f"apply has left out {machine.name}")
            machine.id = ids[machine.name]

    def killed(self, draw, machine):
        process = self.applying(draw)
        time.sleep(draw.random() / 4)
        process.kill()
        self.applied(process, (0, -signal.SIGKILL))
        self.look()
        self.apply(draw, machine)

    def both(self, draw, machine):
        """One of them may find that the other has added what it wants to add."""
        for process in [self.applying(draw) for _ in range(2)]:
            self.applied(process, (0, ctl.FAILED))
        self.look()
        self.apply(draw, machine)

    def tool(self, draw, machine):
        args = draw.choice((("vm", "list"), ("stats",), ("probe",), ("export",), ("vm", "show", machine.name)))
        code, _, text = ctl.run("-j", *args)
        allowed = (0,) if machine.id or args[-1] != machine.name else (ctl.FAILED,)
        self.check("tool", code in allowed, f"sleepyctl {' '.join(args)}: exit {code}: {text}")

    def pause(self, draw, _):
        time.sleep(draw.random() / 10)

    # The end

    def end(self):
        """All is removed, and as it was before."""
        for machine in self.machines:
            machine.held.close()
            while machine.loads:
                self.load(None, machine)
        if not online():
            self.plug()
        self.look()
        for machine in self.machines:
            if machine.id:
                self.soon("states", lambda: self.at_rest(machine.id), f"{machine.name}: nothing is in flight")
        self.device.clear()
        self.check("left", not self.device.vms(), "VMs are left when all were removed")
        for machine in self.machines:
            unlike = machine.unlike()
            self.check("threads", not unlike, "\n".join(unlike))
            before = machine.ran()
            self.soon("threads", lambda: all(now > before[tid] for tid, now in machine.ran().items()), f"{machine.name}: all run")
            if machine.group:
                want = {"cpu.weight": str(machine.weight), "cpu.idle": "0"}
                got = machine.weights()
                self.check("groups", got == want, f"{machine.name}: {got} instead of {want}")
        self.close()

    def at_rest(self, vm):
        got = self.device.get(vm)
        return got.in_flight == got.calls == 0

    def close(self):
        """Whatever state it is in."""
        while self.readers:
            self.reader()
        while self.machines:
            self.machines.pop().stop()
        CPU1.write_text("1")
        self.device.clear()
        self.device.close()
        os.close(self.program)
        self.directory.cleanup()
        os.setpriority(os.PRIO_PROCESS, 0, 0)
        for name in controllers() - self.controllers:
            (cgroup.ROOT / "cgroup.subtree_control").write_text(f"-{name}")
        net.clean()


def read_all():
    """Until it is killed."""
    with abi.Device() as device:
        while True:
            for vm in device.vms():
                try:
                    device.stats(vm.id), device.vcpus(vm.id), device.links(vm.id), device.rules(vm.id)
                except FileNotFoundError:
                    continue
            time.sleep(0.01)
