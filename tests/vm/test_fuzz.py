# SPDX-License-Identifier: GPL-2.0-only
"""Calls and packets that nobody would make, by tests/fuzz; see Documentation/fuzz.md.

How much, if not a little: FUZZ_MINUTES, or FUZZ_FULL (1: all, calls, packets); then from another seed each time, if FUZZ_SEED does
not say.
"""

import bisect
import errno
import fcntl
import itertools
import json
import os
import random
import signal
import struct
import subprocess
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from lib import abi, cgroup, ebpf, frames, host, kvm, net

pytestmark = pytest.mark.core

FUZZ = Path(os.environ.get("SLEEPYCTL", "")).with_name("sleepy-fuzz")
MINUTES, FULL = float(os.environ.get("FUZZ_MINUTES") or 0), os.environ.get("FUZZ_FULL")
SEED = int(os.environ.get("FUZZ_SEED") or (random.randrange(2**32) if MINUTES or FULL else 1))
CALLS = 1_000_000 if FULL in ("1", "calls") else 10_000 // host.SLOW
PACKETS = 10_000_000 if FULL in ("1", "packets") else 100_000 // host.SLOW
SOL_PACKET, PACKET_VNET_HDR = 263, 15
TUNSETCARRIER, TUNSETOFFLOAD, TUNSETVNETHDRSZ = 0x400454E2, 0x400454D0, 0x400454D8
# struct virtio_net_hdr_v1_hash_tunnel, and each TUN_F_*: what a VMM says that its guest may send.
TUNNEL_HEADER, OFFLOADS = 24, 0x1FF
GSO = {f"offload: {kind}" for kind in ("tcp4", "tcp6", "udp", "udp_l4", "ecn", "checksum")}
# What eBPF programs of a rule return: each class, none, and the number in some place, which the packet need not have.
PROGRAMS = [*map(ebpf.constant, (0, 1, 2, 6, 7, 99, -1)), *map(ebpf.half_at, (12, 36, 1500, 65535, -0x100000, -0x1FFFFE))]


class Fuzzer:
    """The program, at work."""

    def __init__(self, kind, count, seed, *arguments):
        # Each of the two tests has half of the time.
        amount = ["--seconds", int(30 * MINUTES)] if MINUTES and not FULL else ["--count", count]
        self.output = tempfile.TemporaryFile("w+")
        command = [FUZZ, kind, "--seed", seed, *amount, *arguments]
        self.child = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=self.output,
                                      stderr=subprocess.STDOUT)

    def stop(self):
        host.kill(self.child)

    def report(self):
        """What it has done, when it is done."""
        status = self.child.wait()
        self.output.seek(0)
        output = self.output.read()
        self.output.close()
        assert status == 0, output
        return json.loads(output)


@pytest.fixture
def programs():
    """Arguments for eBPF programs."""
    chance = random.Random(SEED)
    fds = [ebpf.load(program) for program in (*PROGRAMS, *(ebpf.anything(chance) for _ in PROGRAMS))]
    yield [f"--program={os.getpid()}:{fd}" for fd in fds]
    for fd in fds:
        os.close(fd)


@pytest.fixture
def say(report):
    host.mark(f"fuzz: seed {SEED}")

    def say(what):
        print(what)
        report.append(f"fuzz: {what}")

    say(f"seed {SEED}")
    return say


def covered(reports):
    """How much of the module the fuzzers' own threads have run through."""
    if reports[0]["pcs"] is None:
        return "no KCOV in this kernel"
    reached = set().union(*(report["pcs"] for report in reports))
    functions = {}
    for line in Path("/proc/kallsyms").read_text().splitlines():
        address, kind, name, *of = line.split()
        if of == ["[sleepy]"] and kind in "tT" and not name.startswith(("__pfx_", "__cfi_")):
            functions[int(address, 16)] = name
    starts = sorted(functions)
    found = {functions[starts[bisect.bisect(starts, pc) - 1]] for pc in reached}
    assert found, "KCOV shows nothing of the module"
    return f"{len(reached)} basic blocks, {len(found)} of {len(starts)} functions of the module"


def as_before(device):
    """Nothing is left, and the module can go."""
    assert device.vms() == [], "left behind"
    device.close()
    host.unload(seconds=20)


def listed(counts):
    return ", ".join(f"{key} {count}" for key, count in sorted(counts.items(), key=lambda item: -item[1]))


class Host:
    """VMMs, links and groups which calls may name. They come and go, always with the same numbers and names."""

    CODES = [("spin", 1), ("halt", 2), ("halt", 1)]

    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.taps = [net.tap(f"{net.PREFIX}f{number}") for number in range(3)]
        self.vmms = []
        for code, vcpus in self.CODES:
            self.vmms.append(self._vmm(0, code, vcpus))
        self.vmms[0].machine("halt")  # a process with two
        self.done = Counter()

    @staticmethod
    def _vmm(pid, code, vcpus):
        vmm = kvm.Vmm(pid)
        _, tids = vmm.machine(code, vcpus, irqchip=code == "halt")
        for tid in tids:
            os.setpriority(os.PRIO_PROCESS, tid, 10)
        return vmm

    def change(self):
        """Something happens to one of them."""
        what = self.chance.choices([self.replace, self.renew, self.pause, self.send], [2, 2, 1, 4])[0]
        what()
        self.done[what.__name__] += 1

    def replace(self):
        """A VMM is killed, and there is another one of its number."""
        which = self.chance.randrange(len(self.vmms))
        pid = self.vmms[which].pid
        self.vmms[which].stop()
        self.vmms[which] = self._vmm(pid, *self.CODES[which])

    def renew(self):
        """A link is removed, and there is another one of its name."""
        tap = self.chance.choice(self.taps)
        assert net.delete_tap(tap)
        if self.chance.random() < 0.5:
            time.sleep(0.05)
        net.tap(tap)

    def pause(self):
        pid = self.chance.choice(self.vmms).pid
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.1)
        os.kill(pid, signal.SIGCONT)

    def send(self):
        side = net.HostSide(self.chance.choice(self.taps))
        for flow in range(30):
            side.send(frames.udp(True, 10000 + flow, 7))
            side.send(frames.tcp(True, 20000 + flow, 80, self.chance.choice([frames.RST, frames.PSH, frames.ACK])))
        side.close()

    def close(self):
        for vmm in self.vmms:
            vmm.stop()


def test_calls(device, programs, say):
    """From several threads of two processes, about VMs that are and were not, while VMMs and links come and go."""
    with ExitStack() as stack:
        groups = [stack.enter_context(cgroup.group(f"fuzz{number}")) for number in range(2)]
        surroundings = Host(SEED)
        stack.callback(surroundings.close)
        arguments = [*programs, *(f"--vmm={vmm.pid}" for vmm in surroundings.vmms),
                     *(f"--link={tap}" for tap in surroundings.taps), *(f"--group={group.path}" for group in groups)]
        reports, seeds = [], itertools.count(SEED)
        # On a fast machine they may be through before anything has happened.
        while not (surroundings.done["replace"] and surroundings.done["renew"]):
            fuzzers = [Fuzzer("calls", CALLS // 2, next(seeds), "--threads=3", *arguments) for _ in range(2)]
            for fuzzer in fuzzers:
                stack.callback(fuzzer.stop)
            while any(fuzzer.child.poll() is None for fuzzer in fuzzers):
                surroundings.change()
                time.sleep(0.1)
            reports += [fuzzer.report() for fuzzer in fuzzers]
        device.clear()
    outcomes = {}
    for report in reports:
        for call, counts in report["outcomes"].items():
            outcomes.setdefault(call, Counter()).update(
                {errno.errorcode.get(int(code), "done"): count for code, count in counts.items()})
    calls, seconds = sum(report["calls"] for report in reports), sum(report["seconds"] for report in reports) / 2
    say(f"{calls} calls in {seconds:.0f} s: {calls / seconds:.0f} per second")
    for call, counts in sorted(outcomes.items()):
        say(f"{call:9} {listed(counts)}")
    say(f"{listed(surroundings.done)}; {covered(reports)}")
    assert sum(sum(counts.values()) for counts in outcomes.values()) == calls
    assert calls >= CALLS or MINUTES and not FULL
    assert set(outcomes) == {*abi.CALLS, "unknown"} and set(outcomes["unknown"]) == {"ENOTTY", "EMSGSIZE"}
    assert all(outcomes[call]["done"] for call in abi.CALLS), "there was none that the module would do"
    assert outcomes["VM_ADD"]["done"] == sum(report["added"] for report in reports)
    findings = list(itertools.chain(*(report["findings"] for report in reports)))
    assert not findings, "\n".join(findings[:20])
    as_before(device)


def test_packets(device, vmm, programs, say):
    """To and from VMs at once, with rules that change: none is counted twice, and none that did not come."""
    arguments = list(programs)
    with ExitStack() as stack:
        for number, (code, vcpus) in enumerate([("spin", 1), ("spin", 1), ("halt", 2)]):
            tap = net.tap(f"{net.PREFIX}p{number}", vnet_hdr=True)
            fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            fcntl.ioctl(fd, net.TUNSETIFF,
                        struct.pack("16sH22x", tap.encode(), net.IFF_TAP | net.IFF_NO_PI | net.IFF_VNET_HDR))
            fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", TUNNEL_HEADER))
            fcntl.ioctl(fd, TUNSETOFFLOAD, OFFLOADS)
            # What the host sends ends behind the hook: there is nobody to read it.
            fcntl.ioctl(fd, TUNSETCARRIER, struct.pack("i", 0))
            host.wait(lambda path=Path(f"/sys/class/net/{tap}/operstate"): path.read_text().strip() == "down", "no carrier")
            side = net.HostSide(tap)
            stack.callback(side.close)
            side.socket.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
            one = vmm()
            _, tids = one.machine(code, vcpus)
            for tid in tids:
                os.setpriority(os.PRIO_PROCESS, tid, 10)
            with open("/proc/self/ns/net", "rb") as netns:
                vm = device.add(tap, one.pid, links=[(netns.fileno(), net.ifindex(tap))])
            arguments += ["--vm", vm, f"--host={os.getpid()}:{side.socket.fileno()}", f"--tap={os.getpid()}:{fd}"]
        fuzzer = Fuzzer("packets", PACKETS, SEED, *arguments)
        stack.callback(fuzzer.stop)
        report = fuzzer.report()
        sleeps = sum(sum(device.stats(vm.id).sleeps.values()) for vm in device.vms())
        device.clear()
    packets, seconds = report["packets"], report["seconds"]
    say(f"{packets} packets in {seconds:.0f} s: {packets / seconds:.0f} per second; {report['rounds']} rounds")
    for way in "to_vm", "from_vm":
        say(f"{way:9} {listed(report[way])}")
    say(f"counted   {listed(report['counted'])}; {report['exact']} of them exactly")
    refused = {errno.errorcode[int(code)]: count for code, count in report["refused"].items()}
    say(f"refused by the kernel: {listed(refused)}; asleep {sleeps} times, parked {report['parked']} times; "
        f"seen {listed(report['states'])}")
    say(covered([report]))
    assert not report["findings"], "\n".join(report["findings"][:20])
    assert GSO <= set(report["to_vm"]) and {*GSO, "offload: tunnel"} <= set(report["from_vm"])
    assert set(refused) <= {"EINVAL", "EMSGSIZE"} and sleeps and all(report["counted"].values()) and report["exact"]
    as_before(device)
