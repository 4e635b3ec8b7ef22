# SPDX-License-Identifier: GPL-2.0-only
"""What an administrator may have set on a host; each of it for as long as a test wants it."""

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

from . import caller, cgroup, host

AUTOGROUP = Path("/proc/sys/kernel/sched_autogroup_enabled")
HALT_POLL = Path("/sys/module/kvm/parameters/halt_poll_ns")


@contextmanager
def setting(path, value):
    """A file of the kernel's with this in it."""
    before = path.read_text()
    path.write_text(str(value))
    try:
        yield
    finally:
        path.write_text(before)


@contextmanager
def threaded(group, tids):
    """A group with a part for each of its threads, as libvirt makes them for vCPUs: vcpu0, vcpu1 and so on."""
    parts = [group.path / f"vcpu{number}" for number in range(len(tids))]
    for part in parts:
        part.mkdir()
        (part / "cgroup.type").write_text("threaded")
    group.write("cgroup.subtree_control", "+cpu")
    for part, tid in zip(parts, tids):
        (part / "cgroup.threads").write_text(str(tid))
    try:
        yield
    finally:
        for part, tid in zip(parts, tids):
            group.write("cgroup.threads", tid)
            part.rmdir()


@contextmanager
def legacy():
    """The CPU controller in a hierarchy of version 1; hands out its root."""
    (cgroup.ROOT / "cgroup.subtree_control").write_text("-cpu")
    with tempfile.TemporaryDirectory(prefix="sleepy-") as directory:
        def mounted():
            # Groups of version 2 that were removed just now may still have the controller.
            return not host.run("mount", "-t", "cgroup", "-o", "cpu", "none", directory, check=False).returncode

        host.wait(mounted, "version 1 has the CPU controller")
        try:
            yield Path(directory)
        finally:
            host.run("umount", directory)
    host.wait(lambda: "cpu" in (cgroup.ROOT / "cgroup.controllers").read_text().split(),
              "version 2 has the CPU controller again")


@contextmanager
def legacy_group(root, name):
    """A group of such a hierarchy."""
    made = cgroup.Group(root / name)
    made.path.mkdir()
    try:
        yield made
    finally:
        for pid in made.pids():
            (root / "cgroup.procs").write_text(str(pid))
        host.wait(lambda: not made.pids(), f"{name} is empty")
        made.path.rmdir()


def in_container(group, body):
    """Runs `body` where this group is the root of all, and no other is to be seen; returns what it returns."""
    def child():
        group.take(os.getpid())
        os.unshare(os.CLONE_NEWCGROUP | os.CLONE_NEWNS)
        host.run("mount", "--make-rprivate", "/")
        host.run("umount", str(cgroup.ROOT))
        host.run("mount", "-t", "cgroup2", "none", str(cgroup.ROOT))
        return body()

    return caller.in_child(child)


def without_debugfs(body):
    """Runs `body` where KVM's debugfs is not to be seen; returns what it returns."""
    def child():
        os.unshare(os.CLONE_NEWNS)
        host.run("mount", "--make-rprivate", "/")
        host.run("mount", "-t", "tmpfs", "none", "/sys/kernel/debug")
        return body()

    return caller.in_child(child)
