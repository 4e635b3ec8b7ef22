# SPDX-License-Identifier: GPL-2.0-only
"""What `sleepyctl probe` says of the levers on hosts that are really so.

The guests halt, and cost no CPU.
"""

import os
import re
import subprocess

import pytest

from lib import abi, cgroup, ctl, host, knobs
from lib.ask import HELPERS, add, check, probe

pytestmark = pytest.mark.usefixtures("nobody_else")


def test_group_for_each(vms, groups):
    made = vms(2)
    for name, vm in zip("ab", made):
        groups(name, vm.vmm.pid)
        add(vm, name)
    alone = ("no_effect", "between VMs: it is alone in its cgroup /vms/a")
    vm = check("a", auto="cgroup", nice=alone, idle=alone, cgroup=("yes", f"/vms/a counts in /vms; {HELPERS}"))
    assert (vm["name"], vm["pid"], vm["cgroup"]) == ("a", made[0].vmm.pid, "/vms/a")
    assert (vm["threads"], vm["vcpus_known"], vm["notes"]) == (made[0].tids, True, [])


def test_one_group_for_all(vms, groups):
    one, two = vms(2)
    groups("both", one.vmm.pid, two.vmm.pid)
    add(one, "a")
    other = f"process {two.vmm.pid} (python3)"
    shared = ("yes", f"with {other}, in its cgroup /vms/both")
    check("a", auto="nice", nice=shared, idle=shared,
          cgroup=("impossible", f"it has no cgroup of its own: it shares /vms/both with {other}; start each in one of "
                                "its own, or take the lever park"))
    add(two, "b")
    shared = ("yes", "with VM b, in its cgroup /vms/both")
    check("a", nice=shared, idle=shared)


def test_group_for_some(vms, groups):
    one, two, three = vms(3)
    groups("both", one.vmm.pid, two.vmm.pid)
    groups("own", three.vmm.pid)
    for name, vm in zip("abc", (one, two, three)):
        add(vm, name)
    check("a", nice=("partly", "with VM b, in its cgroup /vms/both; not with 1 more elsewhere"))
    check("c", nice=("no_effect", "between VMs: it is alone in its cgroup /vms/own"))


def test_root_beside_groups(vms, groups):
    """What runs in the root is beside the groups there; what runs in a group is not."""
    one, two = vms(2)
    groups("b", two.vmm.pid)
    add(one, "a")
    add(two, "b")
    root = ("it is in the root cgroup, which has no weight; start it in one of its own (`systemd-run --scope ...`), "
            "or take the lever park")
    check("a", nice=("yes", "with VM b, in its cgroup /"), cgroup=("impossible", root))
    check("b", nice=("no_effect", "between VMs: it is alone in its cgroup /vms/b"))


def test_group_without_a_controller(vms, groups):
    """What the remedy says, helps."""
    one, two = vms(2)
    bare = [groups.all.path / name for name in "ab"]
    try:
        for path, vm in zip(bare, (one, two)):
            path.mkdir()
            (path / "cgroup.procs").write_text(str(vm.vmm.pid))
        add(one, "a")
        vm = check("a", nice=("yes", f"with process {two.vmm.pid} (python3), in its cgroup /vms"))
        why = next(verdict["why"] for verdict in vm["levers"] if verdict["lever"] == "cgroup")
        assert why.startswith("its cgroup /vms/a has no CPU controller; give it one: `")
        host.run("sh", "-c", re.search("`(.*)`", why)[1])
        check("a", cgroup=("yes", f"/vms/a counts in /vms; {HELPERS}"))
    finally:
        for path, vm in zip(bare, (one, two)):
            (cgroup.ROOT / "cgroup.procs").write_text(str(vm.vmm.pid))
            path.rmdir()


def test_nested_slices(vms, groups):
    for name, vm in zip("ab", vms(2)):
        groups(f"{name}.slice")
        groups(f"{name}.slice/vm", vm.vmm.pid)
        add(vm, name)
    vm = check("a", auto="nice", nice=("no_effect", "between VMs: it is alone in its cgroup /vms/a.slice/vm"),
               cgroup=("no_effect", "between VMs: /vms/a.slice/vm counts in /vms/a.slice, where no other VM is"))
    assert vm["auto"]["why"].endswith("; no effect between VMs: it is alone in its cgroup /vms/a.slice/vm")


def test_some_beside_it(vms, groups):
    for name, place, vm in zip("abc", ("one/a", "one/b", "two"), vms(3)):
        if name == "a":
            groups("one")
        groups(place, vm.vmm.pid)
        add(vm, name)
    check("a", auto="cgroup",
          cgroup=("partly", f"/vms/one/a counts in /vms/one, where 1 of 2 other VMs are; {HELPERS}"))


@pytest.mark.parametrize("vcpus", [1, 2])
def test_libvirt(vms, groups, vcpus):
    """A group for each vCPU, within a scope of the VM's own: that is the one that counts beside other VMs."""
    one, two = vms(vcpus=vcpus) + vms()
    groups("a.scope")
    inner = groups("a.scope/libvirt", one.vmm.pid)
    groups("b.scope", two.vmm.pid)
    add(two, "b")
    with knobs.threaded(inner, one.tids):
        add(one, "a")
        own = "/vms/a.scope/libvirt/vcpu0" if vcpus == 1 else "/vms/a.scope/libvirt"
        said = check("a", nice=("no_effect", f"between VMs: it is alone in its cgroup {own}"))
        assert next(one for one in said["levers"] if one["lever"] == "cgroup")["works"] == "yes"


def test_from_inside_of_a_container(vms, groups):
    """Where the host's groups are not to be seen, nothing is said that depends on them; and nothing is noted."""
    one, two = vms(2)
    groups("a", one.vmm.pid)
    groups("b", two.vmm.pid)
    unseen = "its cgroup /../a is not mounted here; run sleepyctl in the host's own namespaces"

    def inside():
        assert add(one, "a") == ""
        check("a", auto="nice", cgroup=("impossible", unseen),
              nice=("partly", f"with VMs beside it, if there are any: {unseen}"))
        return "done"

    assert knobs.in_container(groups("tool"), inside) == "done"


def test_autogroup(vms):
    one, two = vms(2)
    for name, vm in zip("ab", (one, two)):
        vm.vmm.setsid()
        add(vm, name)
    together = ("yes", "with VM b, in its cgroup /")
    check("a", nice=together, idle=together)
    with knobs.setting(knobs.AUTOGROUP, 1):
        alone = ("no_effect", "between VMs: it is alone in its session; autogroup makes each session a group "
                              "(`sysctl kernel.sched_autogroup_enabled=0` ends that)")
        check("a", nice=alone, idle=alone)
        text, answer = probe()
        assert answer["host"]["autogroup"]
        assert " nice works between VMs of one cgroup; in the root cgroup, of one session (autogroup is on) " in text


def test_autogroup_is_for_the_root_alone(vms, groups):
    one, two = vms(2)
    groups("both", one.vmm.pid, two.vmm.pid)
    for name, vm in zip("ab", (one, two)):
        vm.vmm.setsid()
        add(vm, name)
    with knobs.setting(knobs.AUTOGROUP, 1):
        check("a", nice=("yes", "with VM b, in its cgroup /vms/both"))


def test_version_1(vms):
    """The weight is in cpu.shares, and is what it was when the VM is removed."""
    one, two = vms(2)
    with knobs.legacy() as root, knobs.legacy_group(root, "a") as group, knobs.legacy_group(root, "b") as other:
        group.take(one.vmm.pid)
        other.take(two.vmm.pid)
        group.write("cpu.cfs_quota_us", 50000)
        add(one, "a", "--lever", "cgroup", "--sleepy-weight", "7")
        host.wait(lambda: group.read("cpu.shares") == "7", "sleepy")
        vm = check("a", nice=("no_effect", "between VMs: it is alone in its cgroup /a"),
                   cgroup=("yes", f"/a counts in /; {HELPERS}"))
        assert vm["notes"] == [
            "cgroup /a may use 50ms of each 100ms (cpu.max): a VM that is woken may still be throttled"]
        assert probe("a")[0].startswith("host: cgroup version 1 ")
        assert ctl.show("a")["cgroup"]["path"] == str(group.path)
        one.request()
        host.wait(lambda: group.read("cpu.shares") == "1024", "awake")
        one.answer()
        host.wait(lambda: group.read("cpu.shares") == "7", "sleepy")
        ctl.ctl("vm", "set", "a", "--sleepy-weight", "idle")
        host.wait(lambda: group.read("cpu.idle") == "1", "idle")
        ctl.ctl("vm", "remove", "a")
        assert (group.read("cpu.shares"), group.read("cpu.idle")) == ("1024", "0")


# What is around


def test_others_in_its_group(vms, groups):
    """What is no VM is lowered with it."""
    one, = vms()
    group = groups("a", one.vmm.pid)
    add(one, "a")
    with subprocess.Popen(["sleep", "1000"]) as stranger:
        group.take(stranger.pid)
        try:
            vm = check("a", cgroup=("yes", f"/vms/a counts in /vms, where no other VM is yet; {HELPERS}"))
            assert vm["notes"] == ["the lever cgroup takes weight from 1 other process in /vms/a, too"]
        finally:
            stranger.kill()


def test_bandwidth_limits(vms, groups):
    """The group's own, and one above."""
    one, two = vms(2)
    group = groups("a", one.vmm.pid)
    add(one, "a")
    add(two, "b")
    assert check("a")["notes"] == []
    groups.all.write("cpu.max", "50000 100000")
    limit = "cgroup {} may use {} of each {} (cpu.max): a VM that is woken may still be throttled"
    assert check("a")["notes"] == [limit.format("/vms", "50ms", "100ms")]
    group.write("cpu.max", "1500 10000")
    assert check("a")["notes"] == [limit.format("/vms/a", "1ms500us", "10ms"), limit.format("/vms", "50ms", "100ms")]
    assert check("b")["notes"] == []


def test_halt_polling(vms):
    add(*vms(), "a")
    note = "halt polling: KVM spins for up to {} when a vCPU halts: CPU time that no guest has asked for " \
           "(kvm.halt_poll_ns)"
    for ns, shown in ((150000, "150us"), (0, None)):
        with knobs.setting(knobs.HALT_POLL, ns):
            text, answer = probe()
        assert answer["host"]["halt_poll_ns"] == ns
        assert answer["host"]["notes"] == ([note.format(shown)] if shown else [])
        assert ("halt polling" in text) == bool(shown)


def test_irqchip(vms):
    """Whether KVM itself halts vCPUs decides about `park`."""
    add(*vms(irqchip=True), "in")
    add(*vms(), "out")
    vm = check("in", auto="park", park=("yes", "whatever the layout; reaches zero"))
    assert vm["auto"]["why"] == "it works whatever the layout, and reaches zero"
    vm = check("out", auto="nice",
               park=("partly", "its VMM has the interrupt controller: no interrupt ends a park, only a signal does"))
    assert vm["auto"]["why"].startswith("its VMM has the interrupt controller, so that no interrupt would end a park; ")


def test_halts_that_nothing_tells_of(vms):
    """Without KVM's debugfs."""
    add(*vms(), "a")
    park = ("yes", "whatever the layout; nothing says whether KVM itself halts vCPUs, as it does for most VMMs")
    assert knobs.without_debugfs(lambda: check("a", auto="park", park=park)["vcpus_known"])


def test_some_real_time_threads(vms):
    one, = vms(vcpus=2)
    os.sched_setscheduler(one.tids[1], os.SCHED_FIFO, os.sched_param(1))
    add(one, "a", "--lever", "auto")
    vm = check("a", auto="observe")
    assert vm["lever"] == "auto (observe)"
    assert vm["notes"] == [f"real-time and deadline threads are never touched: {one.tids[1]}"]


def test_all_threads_are_real_time(vms):
    one, = vms(vcpus=2)
    for tid in one.tids:
        os.sched_setscheduler(tid, os.SCHED_RR, os.sched_param(1))
    why = "on real-time and deadline threads: they are never touched"
    assert add(one, "a") == f"vm add: note: lever nice: no effect {why}; `sleepyctl probe` says what works\n"
    never = ("no_effect", why)
    check("a", auto="observe", observe=("yes", "measures, changes nothing"), nice=never, idle=never, cgroup=never,
          park=never)


# Which VMs are meant


def test_before_a_vm_is_added(vms, groups):
    one, two = vms(2)
    groups("a", one.vmm.pid)
    vm = check("--pid", one.vmm.pid, nice=("no_effect", "between VMs: it is alone in its cgroup /vms/a"))
    assert (vm["name"], vm["lever"], vm["threads"]) == (None, None, one.tids)
    text, answer = probe()
    assert answer["vms"] == [] and text.endswith("no VMs; `sleepyctl probe --pid PID` looks at one before it is added")
    add(two, "b")
    assert [vm["name"] for vm in probe()[1]["vms"]] == ["b"]


def test_several_vms_of_a_process(vms):
    one, = vms()
    fd, tids = one.vmm.machine("halt")
    assert check("--pid", one.vmm.pid, "--vm-fd", fd)["threads"] == tids
    assert check("--pid", one.vmm.pid, "--vm-fd", one.kvm_fd)["threads"] == one.tids


def test_vm_whose_vcpus_have_not_run(vms, vmm):
    idle = vmm()
    idle.vcpu(idle.vm(), 0, "halt")
    vm = check("--pid", idle.pid, nice=("no_effect", "between VMs: it is the only one"))
    assert (vm["vcpus_known"], vm["threads"]) == (False, host.threads(idle.pid))
    assert vm["notes"] == ["nothing says yet which threads run vCPUs (KVM's debugfs does, once they have run): all of "
                           "the process are looked at"]


def test_nobody_is_meant(vms):
    assert "no VM is named nosuch" in ctl.refused(ctl.FAILED, "probe", "nosuch")
    pid = os.getpid()
    assert f"no KVM virtual machine in process {pid} (" in ctl.refused(ctl.FAILED, "probe", "--pid", pid)
    assert "there is no process 4000000" in ctl.refused(ctl.FAILED, "probe", "--pid", 4000000)


def test_without_the_module(aftermath, vmm):
    if host.loaded():
        host.unload()
    one = vmm()
    _, tids = one.machine("halt")
    text, answer = probe()
    assert answer["host"]["module_levers"] is None and " note the module is not loaded (`modprobe sleepy`) " in text
    assert check("--pid", one.pid)["threads"] == tids
    assert "the module is not loaded" in ctl.refused(ctl.NOT_LOADED, "probe", "a")
    host.load()


def test_alike_vms_are_shown_together(vms, vmm, groups, device):
    """A few lines for any number of VMs; one that differs has its own."""
    names = [f"fn-{number}" for number in range(12)]
    for name in names:
        one = vmm()
        one.machine("halt")
        groups(name, one.pid)
        device.add(name, one.pid, policy_=abi.policy(lever=abi.NICE))
    other = vmm()
    other.machine("halt")
    groups("other", other.pid)
    groups.all.write("cpu.max", "50000 100000")
    device.add("other", other.pid, policy_=abi.policy(lever=abi.PARK))
    text, answer = probe()
    assert len(ctl.run("probe")[1].splitlines()) < 40
    assert " 12 VMs, lever nice: fn-0, fn-1, fn-2 and 9 more observe works " in text
    assert " nice no effect between VMs: each is alone in its cgroup /vms/* idle " in text
    assert f" cgroup works /vms/* counts in /vms; {HELPERS} park " in text
    assert text.count("fn-") == 3
    assert f" other (process {other.pid}), lever park observe works " in text
    assert " nice no effect between VMs: it is alone in its cgroup /vms/other idle " in text
    assert [vm["name"] for vm in answer["vms"]] == [*names, "other"]
    assert [vm["cgroup"] for vm in answer["vms"]] == [f"/vms/{name}" for name in [*names, "other"]]
    assert f"{names[7]} (process " in probe(names[7])[0]


def test_alike_vms_in_one_group(vms, groups):
    made = vms(5)
    groups("all", *(vm.vmm.pid for vm in made))
    for name, vm in zip("abcde", made):
        add(vm, name)
    text, answer = probe()
    assert " 5 VMs, lever nice: a, b, c and 2 more observe works " in text
    assert " nice works with 4 other VMs, in its cgroup /vms/all idle " in text
    assert " cgroup impossible it has no cgroup of its own: it shares /vms/all with 4 other VMs; start " in text
    assert {vm["levers"][1]["why"] for vm in answer["vms"]} >= {
        "with VM b, VM c, VM d and 1 more, in its cgroup /vms/all"}
