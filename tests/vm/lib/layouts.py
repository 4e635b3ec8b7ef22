# SPDX-License-Identifier: GPL-2.0-only
"""Where a host puts its VMs: the layouts that decide which lever reaches what.

All vCPU threads are on one CPU: one worker, whose guest has work all the time, and sleepers, which have none and spin.
What is measured is the worker's CPU time, beside what it has alone.

    flat        every VMM in the root group
    autogroup   the same, each in a session of its own: the scheduler makes a group for each
    per-vm      a control group for each VM:                       /vm-0  /vm-1 ...
    nested      the worker's slice beside that of the sleepers:    /work.slice/vm-0  /rest.slice/vm-1 ...
    cpuset      a cpuset for each VM, and no CPU controller:       /cpusets/vm-0  /cpusets/vm-1 ...
"""

import json
import os
import signal
import statistics
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

from . import abi, ctl, host, kvm

ROOT = Path("/sys/fs/cgroup")
AUTOGROUP = Path("/proc/sys/kernel/sched_autogroup_enabled")
CPU = 1
LEVERS = {"observe": abi.OBSERVE, "nice": abi.NICE, "idle": abi.IDLE, "cgroup": abi.GROUP, "park": abi.PARK}
SIZES = (5, 50)


def mount():
    if not (ROOT / "cgroup.controllers").exists():
        host.run("mount", "-t", "cgroup2", "none", ROOT)


class Layout:
    """One way to place VMs; `path` says where each goes, relative to the root group."""

    def __init__(self, name, path=None, controllers="", autogroup=False):
        self.name, self.path, self.controllers, self.autogroup = name, path, controllers, autogroup

    def group(self, number):
        """The group whose weight is this VM's alone, if there is one."""
        return ROOT / self.path(number) if self.path and "cpu " in f"{self.controllers} " else None

    def place(self, number, pid):
        if self.path:
            group = ROOT / self.path(number)
            for parent in reversed(group.relative_to(ROOT).parents):
                at = ROOT / parent
                at.mkdir(exist_ok=True)
                (at / "cgroup.subtree_control").write_text(
                    " ".join(f"+{name}" for name in self.controllers.split()))
            group.mkdir()
            if "cpuset" in self.controllers:
                (group / "cpuset.cpus").write_text(str(CPU))
            (group / "cgroup.procs").write_text(str(pid))

    def clean(self):
        groups = [path for path in ROOT.rglob("*") if path.is_dir()]
        for group in sorted(groups, key=lambda path: -len(path.parts)):
            host.wait(lambda: not (group / "cgroup.procs").read_text(), f"{group} is empty")
            group.rmdir()
        for name in self.controllers.split():
            (ROOT / "cgroup.subtree_control").write_text(f"-{name}")


LAYOUTS = {layout.name: layout for layout in (
    Layout("flat"),
    Layout("autogroup", autogroup=True),
    Layout("per-vm", lambda number: f"vm-{number}", "cpu"),
    Layout("nested", lambda number: f"rest.slice/vm-{number}" if number else "work.slice/vm-0", "cpu"),
    Layout("cpuset", lambda number: f"cpusets/vm-{number}", "cpuset"),
)}


class Fleet:
    """VM 0 works; the others have nothing to do."""

    def __init__(self, device, layout, sleepers):
        self.device, self.layout, self.vmms, self.tids, self.ids = device, layout, [], [], []
        for number in range(sleepers + 1):
            vmm = kvm.Vmm()
            self.vmms.append(vmm)
            if layout.autogroup:
                vmm.setsid()
            layout.place(number, vmm.pid)
            _, tids = vmm.machine("spin", irqchip=True)
            self.tids += tids
            for tid in tids:
                os.sched_setaffinity(tid, {CPU})

    def add(self):
        """Adds them all; nobody is touched."""
        policy = abi.policy(lever=abi.OBSERVE, max_sleep=abi.MAX_TIME)
        awake = policy.but(linger=abi.MAX_TIME, sleep_on=0)
        self.ids = [self.device.add(f"vm-{number}", vmm.pid, policy_=policy.but(linger=1) if number else awake)
                    for number, vmm in enumerate(self.vmms)]

    def set(self, lever):
        """Has everybody but the worker sleep by this lever; false if it cannot be used here."""
        if lever == abi.GROUP and not self.layout.group(1):
            return False
        policy = abi.policy(lever=lever, linger=1, max_sleep=abi.MAX_TIME)
        for number, vm in enumerate(self.ids[1:], 1):
            if lever == abi.GROUP:
                fd = os.open(self.layout.group(number), os.O_RDONLY | os.O_DIRECTORY)
                self.device.set(vm, policy, fd)
                os.close(fd)
            else:
                self.device.set(vm, policy)
        self.wait_sleepy()
        return True

    def set_auto(self):
        """The same, by the lever that sleepyctl chooses."""
        with NamedTemporaryFile("w", suffix=".toml") as file:
            file.write('schema_version = 1\n[defaults]\nlever = "auto"\nlinger = "1us"\nmax_sleep = "1h"\n')
            for number, vmm in enumerate(self.vmms[1:], 1):
                file.write(f'[[vm]]\nname = "vm-{number}"\npid = {vmm.pid}\n')
            file.flush()
            ctl.ctl("apply", file.name)
        self.wait_sleepy()

    def wait_sleepy(self):
        host.wait(lambda: all(self.device.get(vm).state == abi.SLEEPY for vm in self.ids[1:]), "asleep")

    def run(self, sleepers):
        """Lets the worker run, and so many of the others; all others are stopped."""
        for number, vmm in enumerate(self.vmms):
            os.kill(vmm.pid, signal.SIGCONT if number <= sleepers else signal.SIGSTOP)

    def share(self, seconds):
        """What the worker gets of the CPU."""
        def time_of():
            return int(Path(f"/proc/{self.vmms[0].pid}/task/{self.tids[0]}/schedstat").read_text().split()[0])

        before, began = time_of(), time.monotonic_ns()
        time.sleep(seconds)
        return (time_of() - before) / (time.monotonic_ns() - began)

    def stop(self):
        self.device.clear()
        for vmm in self.vmms:
            vmm.stop()
        self.layout.clean()


@contextmanager
def fleet(device, layout, sleepers):
    """The VMs of a layout."""
    mount()
    AUTOGROUP.write_text(str(int(layout.autogroup)))
    made = Fleet(device, layout, sleepers)
    try:
        yield made
    finally:
        made.stop()


def measure(device, layout, seconds, rounds):
    """The rows of this layout: what the worker has by each lever, in turn, of what it has alone; the median of the rounds."""
    found = defaultdict(list)
    with fleet(device, layout, max(SIZES)) as made:
        made.run(0)
        made.add()
        for _ in range(rounds):
            made.run(0)
            alone = made.share(seconds)
            for lever in (*LEVERS, "auto"):
                if lever == "auto":
                    made.set_auto()
                elif not made.set(LEVERS[lever]):
                    continue
                for sleepers in SIZES:
                    made.run(sleepers)
                    time.sleep(seconds / 4)
                    found[lever, sleepers].append(made.share(seconds) / alone)
    return [{"layout": layout.name, "lever": lever, "sleepers": sleepers, "worker_share": round(statistics.median(shares), 3),
             "ideal_share": 1.0} for (lever, sleepers), shares in found.items()]


def table(rows):
    """The lines of a table of these rows."""
    levers = (*LEVERS, "auto")
    yield "A worker's share of its CPU, of what it has alone (1.000), beside sleepy VMs that spin:"
    yield ""
    yield f"{'layout':10} {'sleepy':>6} " + "".join(f"{lever:>9}" for lever in levers)
    shares = {(row["layout"], row["sleepers"], row["lever"]): row["worker_share"] for row in rows}
    for layout, sleepers in dict.fromkeys((layout, sleepers) for layout, sleepers, _ in shares):
        cells = (shares.get((layout, sleepers, lever)) for lever in levers)
        yield f"{layout:10} {sleepers:6} " + "".join("        -" if cell is None else f"{cell:9.3f}" for cell in cells)
    yield ""
    yield "- : the VM has no control group of its own that has a weight."


def save(rows, path):
    path.write_text(json.dumps({"schema_version": 1, "rows": rows}, indent=1) + "\n")
