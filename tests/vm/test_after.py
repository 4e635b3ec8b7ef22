# SPDX-License-Identifier: GPL-2.0-only
"""What is left when all the other tests have run, and the module is gone."""

import re
from pathlib import Path

import pytest

from lib import host, trace

pytestmark = pytest.mark.core

LEAKS = Path("/sys/kernel/debug/kmemleak")
# Out-of-tree and unsigned modules are what we are; anything else is a report that was made meanwhile.
TAINT_CPU, TAINT_OUT_OF_TREE, TAINT_UNSIGNED, TAINT_TEST = 1 << 2, 1 << 12, 1 << 13, 1 << 18


@pytest.fixture(scope="module")
def unloaded(shared, guests):
    shared.stop()
    guests.stop()
    if host.loaded():
        host.unload()


def notifiers():
    """The count of static key `preempt_notifier_key`, as a kprobe sees it."""
    trace.define("p:st/count do_sys_openat2 count=@preempt_notifier_key:s32")
    seen, enable = trace.TRACEFS / "trace", trace.TRACEFS / "events/st/count/enable"
    try:
        seen.write_text("")
        enable.write_text("1")
        Path("/dev/null").read_bytes()
        enable.write_text("0")
        return int(re.search(r"\bcount=(-?\d+)", seen.read_text())[1])
    finally:
        trace.define("-:st/count")


@pytest.mark.flavour("lock")
def test_lockdep_is_still_on(unloaded):
    """It turns itself off when it reports something, and when it runs out of memory."""
    assert re.search(r"debug_locks:\s+1\b", Path("/proc/lockdep_stats").read_text())


@pytest.mark.flavour("memory")
def test_nothing_leaked(unloaded):
    for _ in range(2):  # an object must be found unreferenced twice
        LEAKS.write_text("scan")
    found = LEAKS.read_text()
    assert not found, found[:8000]


def test_kernel_is_not_tainted(unloaded):
    taint = int(Path("/proc/sys/kernel/tainted").read_text())
    allowed = TAINT_OUT_OF_TREE | TAINT_UNSIGNED | TAINT_TEST
    if host.FLAVOUR == "rt":  # scripts/vm says something of the CPU that it does not say itself
        allowed |= TAINT_CPU
    assert taint & ~allowed == 0


@pytest.mark.kvm_goes
def test_kvm_goes_and_comes(unloaded, log):
    host.unload(host.kvm_vendor(), seconds=10)
    host.need(host.kvm_vendor())
    assert not host.reports(log.read())


@pytest.mark.flavour("lock")  # it has the addresses of data
def test_preempt_notifiers_are_off(unloaded, vmm):
    """Each VM has them on, and whoever else needs them: the kernel's count is 0 without."""
    assert notifiers() == 0
    one = vmm()
    one.machine("halt")
    assert notifiers() == 1
    one.stop()
    host.wait(lambda: notifiers() == 0, "off again")
