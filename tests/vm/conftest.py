# SPDX-License-Identifier: GPL-2.0-only
"""What every test gets, and what is asked of the kernel after each."""

import os
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol

sys.path.insert(0, str(Path(__file__).parent))

from lib import abi, cgroup, guest, host, journal, knobs, kvm, layouts, net, scene, trace, traffic as load, tuned as tuning  # noqa: E402

# Cheap and narrow first. What needs the KVM module for itself comes before the guests are booted, and
# the look back at the whole run comes last.
ORDER = """
    abi caller add rules wake timing levers park worker layouts turns triggers vcpus events answers ebpf stats faults traffic upheaval
    malice fuzz stopped module allocation soak ctl manifest probe notes choice filters guests protocols profiles calls baselines
    floors after
""".split()
SHARES, REPORT = pytest.StashKey(), pytest.StashKey()
# A line when a test begins and one when it is over, so that a run whose test host is lost can go on in another.
JOURNAL = os.environ.get("SLEEPY_JOURNAL")


def pytest_collection_modifyitems(config, items):
    items.sort(key=lambda item: ORDER.index(item.path.stem.removeprefix("test_")))
    elsewhere = [item for item in items
                 if (mark := item.get_closest_marker("flavour")) and host.FLAVOUR not in mark.args
                 or host.KVM_STAYS and item.get_closest_marker("kvm_goes")]
    config.hook.pytest_deselected(items=elsewhere)
    done = journal.done(JOURNAL) if JOURNAL else {}
    items[:] = [item for item in items if item not in elsewhere and item.nodeid not in done]


def pytest_runtest_protocol(item, nextitem):
    """A test that fails when the emulator has crashed a guest is run again: that, and nothing else."""
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    if JOURNAL:
        journal.begin(JOURNAL, item.nodeid)
    for left in reversed(range(3)):
        kvm.crashed()
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        if not left or not host.EMULATED or not kvm.crashed() or all(report.passed for report in reports):
            break
        print(f"{item.nodeid}: the emulator has crashed its guest; once more", file=sys.stderr)
        item._initrequest()
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    if JOURNAL:
        outcomes = {report.outcome for report in reports}
        journal.end(JOURNAL, item.nodeid, next(name for name in ("failed", "skipped", "passed") if name in outcomes),
                    "\n".join(report.longreprtext for report in reports if report.failed))
    return True


def pytest_terminal_summary(terminalreporter, config):
    rows = config.stash.get(SHARES, [])
    if rows:
        terminalreporter.write_line("")
        for line in layouts.table(rows):
            terminalreporter.write_line(line)
        if config.option.xmlpath:
            layouts.save(rows, Path(config.option.xmlpath).with_name("levers.json"))
    for line in config.stash.get(REPORT, []):
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def shares(pytestconfig):
    """Rows of layouts.measure(), to be printed."""
    return pytestconfig.stash.setdefault(SHARES, [])


@pytest.fixture(scope="session")
def report(pytestconfig):
    """Lines to be printed when all tests are done."""
    return pytestconfig.stash.setdefault(REPORT, [])


@pytest.fixture(scope="session", autouse=True)
def test_host():
    assert os.getuid() == 0 and host.KO and host.BUILD, "run this by tests/vm/run, in the test host"
    host.load_kvm()
    host.panic_on_warn()
    leaks = Path("/sys/kernel/debug/kmemleak")
    if leaks.exists():
        leaks.write_text("clear")
    net.clean()
    yield
    net.clean()


@pytest.fixture(scope="session")
def guests(test_host):
    """Linux guests, each booted when the first test wants it."""
    guests = guest.Guests()
    yield guests
    guests.stop()


@pytest.fixture(scope="session")
def log(test_host):
    log = host.Log()
    yield log
    log.close()


@pytest.fixture(scope="session")
def tracer(test_host):
    tracer = trace.Trace()
    yield tracer
    tracer.close()


@pytest.fixture(autouse=True)
def aftermath(request, log):
    """After each test: no report in the kernel's log, no VM left, nothing that keeps the module."""
    host.mark(request.node.nodeid)
    yield
    left = []
    if os.path.exists(abi.DEVICE):
        with abi.Device() as device:
            left = [vm.name.decode() for vm in device.vms()]
            device.clear()
        try:
            host.wait(lambda: host.refcount() <= 0, "the module's references are gone")
        except AssertionError as error:
            left.append(str(error))
    net.clean()
    found = host.reports(log.read())
    assert not found, "the kernel reports:\n" + "\n".join(found)
    assert not left, f"left behind: {left}"


@pytest.fixture
def sleepy(aftermath):
    """The module, loaded."""
    if not host.loaded():
        host.load()


@pytest.fixture
def device(sleepy):
    with abi.Device() as device:
        yield device
        if device.fd >= 0:
            device.clear()


@pytest.fixture
def vmm(aftermath):
    """Makes VMMs that do as they are told."""
    made = []

    def make(pid=0):
        made.append(kvm.Vmm(pid))
        return made[-1]

    yield make
    for one in made:
        one.stop()


class Shared:
    """A VMM and a tap for tests that want any VM, and do nothing to it: it halts, and costs no CPU."""

    TAP = "shared0"

    def __init__(self):
        self.vmm = None

    def get(self):
        if not self.vmm:
            net.tap(self.TAP)
            self.vmm = kvm.Vmm()
            self.vmm.tap(self.TAP)
            self.kvm_fd, self.tids = self.vmm.machine("halt")
        return self

    def stop(self):
        if self.vmm:
            self.vmm.stop()
            self.vmm = None
            net.delete_tap(self.TAP)


@pytest.fixture(scope="session")
def shared(test_host):
    shared = Shared()
    yield shared
    shared.stop()


@pytest.fixture
def aside():
    """The test itself stays off CPU 1, where the VMs are."""
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {0})
    yield
    os.sched_setaffinity(0, cpus)


@pytest.fixture
def free_kvm(aftermath, shared, guests):
    """Nobody uses KVM's own modules."""
    shared.stop()
    guests.stop()
    host.wait(lambda: host.refcount(host.kvm_vendor()) <= 0, "KVM is free")


@pytest.fixture
def box(device, shared):
    """A VM that can be added, and that still can be when the test is over."""
    one = shared.get()
    box = scene.Scene(device, None, one.vmm, one.kvm_fd, one.tids, one.TAP)
    references = host.refcount()
    yield box
    if not device.vms():
        # Threads that have not run since the VM was removed still have theirs.
        host.wait(lambda: host.refcount() == references, "no reference to the module was leaked")
        box.add()  # neither name, VM nor link was kept
    box.close()


@pytest.fixture
def scenes(device, tracer, vmm):
    """Makes tiny VMs with a tap, added to sleepy, with the test at both ends of the tap."""
    made = []

    def make(vcpus=1, code="spin", irqchip=False, nice=0, add=True, **policy):
        name = f"{net.PREFIX}{len(made)}"
        net.tap(name)
        one = vmm()
        one.tap(name)
        kvm_fd, tids = one.machine(code, vcpus, irqchip)
        made.append(scene.Scene(device, tracer, one, kvm_fd, tids, name, nice))
        if code == "actor":
            made[-1].guest.up()
        if add:
            made[-1].add(**policy)
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def tuned(scenes):
    """A VM of two vCPUs, not added, in a group that is there until the VMM is gone."""
    with cgroup.group("vm") as group:
        made = tuning.Tuned(scenes(vcpus=2, add=False), group)
        yield made
        made.scene.vmm.stop()


@pytest.fixture
def traffic():
    """Starts traffic on a scene's tap, or on another device."""
    started = []

    def start(scene, answers=True, pauses=False, at=None):
        started.append(load.Traffic(at or scene.tap, scene.vm if answers else None, pauses))
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.fixture(scope="module")
def nobody_else(guests, shared):
    """Other VMs would be counted."""
    guests.stop()
    shared.stop()
    host.wait(lambda: not list(Path("/sys/kernel/debug/kvm").glob("*-*")), "no VM is left")


@pytest.fixture
def vms(scenes):
    """Makes so many VMs, which are in the root cgroup, and not added."""
    def make(count=1, **how):
        return [scenes(add=False, code="halt", **how) for _ in range(count)]

    with knobs.setting(knobs.AUTOGROUP, 0):
        yield make


@pytest.fixture
def groups():
    """Makes cgroups with the CPU controller, and puts processes there. Names are paths below /vms."""
    with ExitStack() as stack:
        made = {"": stack.enter_context(cgroup.group("vms"))}

        def make(name, *pids):
            above, _, own = name.rpartition("/")
            made[name] = group = stack.enter_context(cgroup.group(own, made[above].path))
            for pid in pids:
                group.take(pid)
            return group

        make.all = made[""]
        yield make
