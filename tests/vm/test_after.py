# SPDX-License-Identifier: GPL-2.0-only
"""What is left when all the other tests have run, and the module is gone."""

import re
from pathlib import Path

import pytest

from lib import host

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
def test_preempt_notifiers_are_off(unloaded, log):
    """The module left no notifier behind: KVM warns of those that remain when it looks next."""
    host.unload(host.kvm_vendor(), seconds=10)
    host.need(host.kvm_vendor())
    assert not host.reports(log.read())
