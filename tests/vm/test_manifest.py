# SPDX-License-Identifier: GPL-2.0-only
"""Manifests: checked anywhere, applied all or not at all, applied again without a change, exported the same."""

import json
import os
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from lib import abi, caller, ctl, ebpf, host, net
from lib.ctl import show

RULES = """
[[vm.rule]]
class = "request"
filter = "udp dst port 7"
[[vm.rule]]
class = "response"
filter = "udp src port 7"
"""
TIMES = 'linger = "2ms"\nmax_sleep = "60s"\nrequest_timeout = "60s"\n'
CGROUPS = Path("/sys/fs/cgroup")
MS = abi.MS


@pytest.fixture
def manifest():
    """Writes manifests that anybody can read; hands out the last one's name."""
    with tempfile.TemporaryDirectory(prefix="sleepy-") as directory:
        os.chmod(directory, 0o755)

        def write(text, name="m.toml"):
            path = Path(directory) / name
            path.write_text("schema_version = 1\n" + text)
            os.chmod(path, 0o644)
            return path

        yield write


@pytest.fixture
def one(scenes):
    """A tiny VM that is not added."""
    return scenes(add=False, code="halt")


def vm_text(scene, name="a", more=TIMES + RULES):
    return f'[[vm]]\nname = "{name}"\npid = {scene.vmm.pid}\n{more}\n'


def apply(path, *options):
    """(names by what was done with them, the whole answer)"""
    answer = ctl.ctl("apply", path, *options)["apply"]
    done = {}
    for vm in answer["vms"]:
        done.setdefault(vm["action"], []).append(vm["name"])
    return done, answer


def refused(path, *options, command="apply"):
    """It must find something, and change nothing: [(line, column, message)]."""
    with abi.Device() as device:
        before = [(vm.id, bytes(vm.policy), vm.n_rules) for vm in device.vms()]
        code, output, text = ctl.run("-j", command, path, *options)
        after = [(vm.id, bytes(vm.policy), vm.n_rules) for vm in device.vms()]
    assert (code, after) == (ctl.FAILED, before), text
    answer = json.loads(output)
    assert answer["error"]["exit"] == ctl.FAILED and answer["error"]["message"] in text
    return [(found["line"], found["column"], found["message"]) for found in answer["findings"]
            if found["severity"] == "error"]


def added(scene, name="a"):
    """The scene, with the id that this VM has."""
    scene.id = next(vm.id for vm in scene.device.vms() if vm.name.decode() == name)
    return scene


def test_check_needs_nothing(manifest):
    """No rights, no module, none of what the manifest speaks of."""
    if host.loaded():
        host.unload()
    good = manifest('[[vm]]\nname = "a"\nunit = "nowhere"\nprofile = "http"\nports = [80]\n', "good.toml")
    bad = manifest('[[vm]]\nname = "a"\npid = 1\nlingr = "1ms"\n[[vm.rule]]\nclass = "wake"\nfilter = "tcp and udp"\n')

    program = shutil.copy(ctl.PROGRAM, good.parent)

    def body():
        caller.become_nobody()
        ctl.PROGRAM = program
        assert ctl.ctl("check", good)["findings"] == []
        assert ctl.run("check", good)[:2] == (0, "1 file, 1 VM: nothing wrong\n")
        code, output, _ = ctl.run("check", bad)
        assert code == ctl.FAILED
        return output.splitlines()

    lines = caller.in_child(body)
    assert len(lines) == 2, lines
    assert lines[0] == f"{bad}:5:1: error: there is no key `lingr`; did you mean `linger`?"
    assert lines[1].startswith(f"{bad}:8:10: error: `filter`: no packet on an Ethernet link can ever match")
    host.load()


def test_more_vms_than_descriptors(scenes, manifest):
    """A plan for many VMs has more descriptors open than a process may have that nobody has thought of."""
    path = manifest("".join(vm_text(scenes(add=False, code="halt"), f"vm{number}") for number in range(8)))
    few = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))}
    answer = ctl.ctl("apply", path, **few)["apply"]
    assert [vm["action"] for vm in answer["vms"]] == ["added"] * 8


def test_add_change_nothing(one, manifest):
    path = manifest(vm_text(one))
    assert apply(path)[0] == {"added": ["a"]}
    added(one)
    shown = show("a")
    assert (shown["pid"], shown["policy"]["linger_ns"]) == (one.vmm.pid, 2_000_000)
    assert [link["name"] for link in shown["links"]] == [one.tap]
    host.wait(lambda: one.get().state == abi.SLEEPY, "asleep")
    wakes = sum(one.stats().wakes.values())
    assert apply(path)[0] == {"unchanged": ["a"]}
    assert ctl.run("apply", path)[1] == "1 VM: 1 unchanged\n"
    assert sum(one.stats().wakes.values()) == wakes, "it was not even woken"

    path = manifest(vm_text(one).replace('"2ms"', '"3ms"'))
    code, output, _ = ctl.run("apply", path)
    assert (code, output) == (0, "changed a: linger 2ms -> 3ms\n1 VM: 1 changed\n")
    assert (show("a")["id"], show("a")["policy"]["linger_ns"]) == (one.id, 3_000_000)


def test_new_rules_keep_what_is_in_flight(one, manifest):
    apply(manifest(vm_text(one)))
    added(one)
    one.request()
    assert one.get().in_flight == 1
    more = RULES + '[[vm.rule]]\nclass = "ignore"\nfilter = "icmp"\n'
    answer = apply(manifest(vm_text(one, more=TIMES.replace("2ms", "4ms") + more)))[1]
    assert [(change["key"], change["before"], change["after"]) for change in answer["vms"][0]["changes"]] == [
        ("linger", "2ms", "4ms"), ("rules", "2", "3")]
    assert (one.get().in_flight, one.get().n_rules, show("a")["id"]) == (1, 8, one.id)
    one.answer()
    assert (one.get().in_flight, one.stats().responses) == (0, 1)
    host.wait(lambda: one.get().state == abi.SLEEPY, "asleep")


def test_all_or_nothing(scenes, manifest):
    one, two = (scenes(add=False, code="halt") for _ in range(2))
    good = vm_text(one)
    path = manifest(good + '[[vm]]\nname = "b"\nlink = "nosuch0"\n' + RULES)
    (line, column, message), = refused(path)
    assert (column, "link nosuch0 matches no process" in message) == (8, True), message
    assert line == good.count("\n") + 4
    code, output, text = ctl.run("apply", path)
    assert (code, output) == (1, "") and message in text and "nothing was changed" in text
    apply(manifest(good))
    changed = good.replace('"2ms"', '"9ms"')
    with subprocess.Popen(["sleep", "1000"]) as stranger:
        for second, why in (
                (vm_text(two, "b", 'links = ["nosuch0"]\n' + RULES), "link nosuch0: there is no such device"),
                (vm_text(two, "b", "linger = 1\n" + RULES), "`linger`: this is a number"),
                (f'[[vm]]\nname = "b"\npid = {stranger.pid}\nprofile = "passthrough"\n', "no KVM virtual machine in"),
                (f'[[vm]]\nname = "b"\npid = {stranger.pid}\n{RULES}', "no link to see packets on"),
                ('[[vm]]\nname = "b"\npid = 4000000\n' + RULES, "there is no process 4000000"),
                ('[[vm]]\nname = "b"\npidfile = "/nosuch"\n' + RULES, "pidfile /nosuch: ")):
            found = refused(manifest(changed + second))
            assert len(found) == 1 and why in found[0][2], found
        stranger.kill()
    assert show("a")["policy"]["linger_ns"] == 2_000_000


def texts(scenes):
    """Two manifests of the same VMs, by what their `linger` is."""
    def text(linger, rules):
        return "".join(vm_text(scene, scene.tap, TIMES.replace("2ms", linger) + rules) for scene in scenes)

    return {2 * MS: text("2ms", RULES),
            3 * MS: text("3ms", RULES + '[[vm.rule]]\nclass = "ignore"\nfilter = "icmp"\n')}


def check_whole(device, names, wanted):
    """Each VM that is there is as one of the manifests says, whole."""
    rules = {2 * MS: set(), 3 * MS: set()}
    for vm in device.vms():
        assert vm.name.decode() in names
        rules[vm.policy.linger].add(vm.n_rules)
        assert len(device.links(vm.id)) == 1
    assert all(len(counts) <= 1 for counts in rules.values()), rules
    assert not wanted or {vm.name.decode() for vm in device.vms()} == wanted


def test_apply_killed(scenes, device, manifest):
    """At any time: no VM is half configured, and the next `apply` does what is left."""
    several = [scenes(add=False, code="halt") for _ in range(5)]
    names = {scene.tap for scene in several}
    paths = [manifest(text, f"{linger}.toml") for linger, text in texts(several).items()]
    apply(paths[0])
    began = time.monotonic()
    apply(paths[1])
    takes, killed = time.monotonic() - began, 0
    for turn in range(24):
        if turn % 4 == 0:
            device.clear()
        process = subprocess.Popen([ctl.PROGRAM, "apply", paths[turn % 2]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(takes * (turn % 12) / 12)
        killed += process.poll() is None
        process.kill()
        process.wait()
        check_whole(device, names, None)
    assert killed >= 4, "most were over before"
    apply(paths[0])
    check_whole(device, names, names)
    assert apply(paths[0])[0] == {"unchanged": sorted(names)}


def test_two_at_once(scenes, device, manifest):
    """Each says what it did, or why it did not; whoever comes last is right, VM by VM."""
    several = [scenes(add=False, code="halt") for _ in range(4)]
    names = {scene.tap for scene in several}
    paths = [manifest(text, f"{linger}.toml") for linger, text in texts(several).items()]
    for turn in range(8):
        if turn % 2 == 0:
            device.clear()
        both = [subprocess.Popen([ctl.PROGRAM, "apply", path], text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
                for path in paths]
        for process in both:
            _, error = process.communicate(timeout=20 * host.SLOW)
            assert process.returncode in (0, ctl.FAILED), error
            assert bool(error) == bool(process.returncode), error
            assert "panicked" not in error
        check_whole(device, names, names)
    apply(paths[1])
    assert {vm.policy.linger for vm in device.vms()} == {3 * MS}


def test_selectors_that_match_two(scenes, manifest):
    one, two = (scenes(add=False, code="halt") for _ in range(2))
    (line, column, message), = refused(manifest('[[vm]]\nname = "a"\nlink = "st*"\n' + RULES))
    assert (line, column) == (4, 8)
    assert "matches 2 processes" in message and str(one.vmm.pid) in message and str(two.vmm.pid) in message


def test_two_vms_one_link(scenes, manifest):
    one, two = (scenes(add=False, code="halt") for _ in range(2))
    same = manifest(vm_text(one, "a") + vm_text(two, "b", f'links = ["/proc/self/ns/net/{one.tap}"]\n' + RULES))
    (_, _, message), = refused(same)
    assert f"link /proc/self/ns/net/{one.tap} belongs to `a`" in message
    same = manifest(vm_text(one, "a") + vm_text(one, "b"))
    (_, _, message), = refused(same, command="check")
    assert f"pid {one.vmm.pid} is claimed by `a` already" in message
    same = manifest(vm_text(one, "a") + f'[[vm]]\nname = "b"\nlink = "{one.tap}"\n' + RULES)
    (_, _, message), = refused(same)
    assert f"process {one.vmm.pid} is that of `a` already" in message


def test_links_of_a_vm_that_is_not_named(scenes, manifest):
    one, two = (scenes(add=False, code="halt") for _ in range(2))
    apply(manifest(vm_text(one, "old")))
    path = manifest(vm_text(two, "new", f'links = ["{one.tap}"]\n' + TIMES + RULES))
    (_, _, message), = refused(path)
    assert f"link {one.tap} belongs to VM old" in message and "--prune" in message
    assert apply(path, "--prune")[0] == {"removed": ["old"], "added": ["new"]}
    assert {link["name"] for link in show("new")["links"]} == {one.tap, two.tap}


def test_other_links_or_process(scenes, manifest):
    one, two = (scenes(add=False, code="halt") for _ in range(2))
    apply(manifest(vm_text(one)))
    first = show("a")["id"]
    net.ip("link add stv type veth peer name stw")
    path = manifest(vm_text(one, more='links = ["stv"]\n' + TIMES + RULES))
    answer = apply(path)[1]
    assert answer["changed"] == 1 and answer["vms"][0]["replaced"]
    assert show("a")["id"] != first and len(show("a")["links"]) == 2
    assert apply(path)[0] == {"unchanged": ["a"]}
    output = ctl.run("apply", manifest(vm_text(two)))[1]
    assert f"process {one.vmm.pid} -> {two.vmm.pid}" in output and "removed and added again" in output
    assert show("a")["pid"] == two.vmm.pid and one.nices() == [0]


def test_dry_run(one, manifest):
    path = manifest(vm_text(one))
    code, output, _ = ctl.run("apply", path, "--dry-run")
    assert code == 0 and output.startswith(f"would be added a: process {one.vmm.pid}")
    assert one.device.vms() == []
    apply(path)
    changed = manifest(vm_text(one).replace('"2ms"', '"3ms"'))
    assert ctl.run("apply", changed, "--dry-run")[1].startswith("would be changed a: linger 2ms -> 3ms\n")
    assert show("a")["policy"]["linger_ns"] == 2_000_000
    other = manifest("vm = []\n")
    assert "would be removed a\n" in ctl.run("apply", other, "--dry-run", "--prune")[1]
    assert len(one.device.vms()) == 1


def test_prune(scenes, manifest):
    one, two = (scenes(add=False, code="halt") for _ in range(2))
    apply(manifest(vm_text(one, "a") + vm_text(two, "b")))
    only = manifest(vm_text(two, "b"))
    assert apply(only)[0] == {"unchanged": ["b"]}
    assert len(one.device.vms()) == 2
    assert apply(only, "--prune")[0] == {"removed": ["a"], "unchanged": ["b"]}
    assert one.nices() == [0]


def test_prune_by_one_who_cannot_look(scenes, manifest):
    """What is not seen may be wanted: nobody removes a VM for that."""
    one = scenes(add=False, code="halt")
    path = manifest(f'[[vm]]\nname = "a-{{}}"\nlink = "{net.PREFIX}*"\neach = true\n' + TIMES + RULES)
    name, = apply(path)[0]["added"]
    blind = {"preexec_fn": lambda: caller.lose(caller.CAP_SYS_PTRACE)}
    message = ctl.refused(ctl.NOT_PERMITTED, "apply", path, "--prune", **blind)
    assert f"VM {name} may be wanted" in message and "CAP_SYS_PTRACE" in message
    assert [vm.name.decode() for vm in one.device.vms()] == [name]
    assert apply(path, "--prune")[0] == {"unchanged": [name]}


def test_link_that_can_be_none(scenes, manifest):
    """That is found before the VM is removed, to be added with it."""
    one = scenes(add=False, code="halt")
    apply(manifest(vm_text(one)))
    before = show("a")["id"]
    (_, _, message), = refused(manifest(vm_text(one, more='links = ["lo"]\n' + TIMES + RULES)))
    assert message.startswith("link lo: it has no Ethernet header")
    assert show("a")["id"] == before


def test_a_directory(scenes, manifest):
    one, two = (scenes(add=False, code="halt") for _ in range(2))
    manifest(vm_text(one, "a"), "1.toml")
    manifest("this is no manifest", "notes.txt")
    directory = manifest(vm_text(two, "b"), "2.toml").parent
    assert apply(directory)[0] == {"added": ["a", "b"]}


def test_a_failure_does_not_stop_the_others(scenes, manifest):
    """The kernel's own no, which nothing can foresee: this VM is here already, under a name that is not in the file."""
    one, two = (scenes(add=False, code="halt") for _ in range(2))
    ctl.ctl("vm", "add", "--pid", one.vmm.pid, "--name", "other", "--no-auto-link")
    path = manifest(vm_text(one, "a") + vm_text(two, "b"))
    code, output, text = ctl.run("-j", "apply", path)
    answer = json.loads(output)
    assert code == ctl.FAILED and answer["error"]["message"] in text
    assert [(vm["name"], vm["action"]) for vm in answer["apply"]["vms"]] == [("a", "failed"), ("b", "added")]
    assert "is here already, as other" in answer["apply"]["vms"][0]["error"]


def test_export_and_back(scenes, manifest):
    one, two = (scenes(add=False, code="halt") for _ in range(2))
    net.ip("netns add stns", f"link set {two.tap} netns stns")
    more = ('lever = "observe"\nsleepy_nice = 7\nboost_nice = -3\nsleep_on = ["response", "idle"]\n'
            'wake_on = ["request", "timer"]\ntimer_slack = "3ms"\nnoise = false\n')
    profile = 'profile = "grpc"\nports = [50051, 50052]\ntcp_defaults = false\n'
    apply(manifest(vm_text(one, "a", more + TIMES + RULES) + vm_text(two, "b", profile)))
    before = {name: show(name) for name in "ab"}
    code, text, _ = ctl.run("export")
    assert code == 0 and f'links = ["stns/{two.tap}"]' in text, text
    path = manifest("", "exported.toml")
    path.write_text(text)
    assert ctl.ctl("check", path)["findings"] == []
    assert apply(path)[0] == {"unchanged": ["a", "b"]}
    ctl.ctl("vm", "remove", "--all")
    assert apply(path)[0] == {"added": ["a", "b"]}
    for name, old in before.items():
        new = show(name)
        for key in ("pid", "policy", "rules"):
            assert new[key] == old[key], f"{key} of {name}"
    assert ctl.run("export")[1] == text
    assert ctl.run("export", "b")[1].count("[[vm]]") == 1


def test_each_by_a_template(scenes, manifest):
    """Any number of VMs in ten lines, and a new one whenever it is applied again."""
    first = [scenes(add=False, code="halt") for _ in range(3)]
    path = manifest(f'[template.t]\n{TIMES}profile = "udp"\nports = [7]\n[[vm]]\nname = "fn-{{}}"\ntemplate = "t"\n'
                    'link = "st*"\neach = true\n')
    assert apply(path)[0] == {"added": ["fn-0", "fn-1", "fn-2"]}
    for number, scene in enumerate(first):
        assert show(f"fn-{number}")["pid"] == scene.vmm.pid
        added(scene, f"fn-{number}").request()
        assert scene.get().in_flight == 1
    fourth = scenes(add=False, code="halt")
    assert apply(path)[0] == {"unchanged": ["fn-0", "fn-1", "fn-2"], "added": ["fn-3"]}
    assert show("fn-3")["pid"] == fourth.vmm.pid
    assert apply(manifest('[[vm]]\nname = "x-{}"\nlink = "no*"\neach = true\n' + RULES))[1]["vms"] == []


def test_unit_cgroup_and_pidfile(one, manifest):
    if not (CGROUPS / "cgroup.procs").exists():
        host.run("mount", "-t", "cgroup2", "none", str(CGROUPS))
    group = CGROUPS / "st.slice" / "stvm.service"
    group.mkdir(parents=True)
    pidfile = manifest("", "vmm.pid")
    pidfile.write_text(f"{one.vmm.pid}\n")
    try:
        (group / "cgroup.procs").write_text(str(one.vmm.pid))
        for selector in ('unit = "stvm"', 'unit = "stv*.service"', 'cgroup = "/st.slice"', f'cgroup = "{group}"',
                         f'pidfile = "{pidfile}"'):
            path = manifest(f'[[vm]]\nname = "a"\n{selector}\n{TIMES}{RULES}')
            assert apply(path)[0] in ({"added": ["a"]}, {"unchanged": ["a"]}), selector
            assert show("a")["pid"] == one.vmm.pid
        (_, _, message), = refused(manifest(f'[[vm]]\nname = "a"\nunit = "stvm2"\n{RULES}'))
        assert "unit stvm2.service matches no process" in message
    finally:
        (CGROUPS / "cgroup.procs").write_text(str(one.vmm.pid))
        host.wait(lambda: not (group / "cgroup.procs").read_text(), "the cgroup is empty")
        group.rmdir()
        group.parent.rmdir()


def test_command_line_of_a_real_vmm(guests, sleepy, manifest):
    """A shell with the same words is not meant."""
    guest = guests.get(1)
    words = ["-netdev", f"tap,id=n,ifname={guest.tap},script=no,downscript=no,vhost=off"]
    with subprocess.Popen(["sh", "-c", "read line", *words], stdin=subprocess.PIPE) as shell:
        try:
            pattern = " ".join(words).replace(guest.tap, "*")
            done, _ = apply(manifest(f'[[vm]]\nname = "{{}}"\ncmdline = "{pattern}"\neach = true\n'
                                     'profile = "http"\nports = [8080]\n'))
            assert guest.tap in done["added"]
            assert show(guest.tap)["pid"] == guest.pid
            ctl.ctl("vm", "remove", "--all")
            alone = f'[[vm]]\nname = "a"\ncmdline = "-netdev {words[1].replace("off", "*")}"\nprofile = "opaque"\n'
            assert apply(manifest(alone))[0] == {"added": ["a"]}
            assert show("a")["pid"] == guest.pid
            ctl.ctl("vm", "remove", "--all")
        finally:
            shell.kill()


@pytest.fixture
def pinned():
    """Pins programs that return a number for every packet; unpins them."""
    paths = set()

    def pin(name, number, kind=ebpf.SOCKET_FILTER):
        fd = ebpf.load(ebpf.constant(number), kind)
        paths.add(ebpf.pin(fd, name))
        os.close(fd)
        return ebpf.FS / name

    yield pin
    for path in paths:
        path.unlink(missing_ok=True)


def test_pinned_program(one, manifest, pinned):
    program = pinned("st-classify", abi.REQUEST + 1)
    path = manifest(vm_text(one, more=f'{TIMES}[[vm.rule]]\nbpf = "{program}"\ndirection = "to-vm"\n'))
    assert apply(path)[0] == {"added": ["a"]}
    rule, = [rule for rule in show("a")["rules"] if rule["class"] == "program"]
    assert (rule["text"], rule["direction"]) == (str(program), "to-vm") and rule["prog_id"] > 0
    added(one).request()
    assert one.get().in_flight == 1
    assert apply(path)[0] == {"unchanged": ["a"]}
    assert f'bpf = "{program}"' in ctl.run("export")[1]
    program.unlink()
    (_, _, message), = refused(path)
    assert f"{program}: there is no such file" in message
    pinned("st-classify", abi.REQUEST + 1)
    assert apply(path)[0] == {"changed": ["a"]}, "another program by the same name"
    assert one.get().in_flight == 1
    other = pinned("st-other", 2, ebpf.XDP)
    for wrong, why in ((other, "a program of type Xdp; load one of type SocketFilter"),
                       ("/dev/null", "this is no pinned eBPF program")):
        (_, _, message), = refused(manifest(vm_text(one, more=f'[[vm.rule]]\nbpf = "{wrong}"\n')))
        assert f"{wrong}: {why}" in message


def test_profiles_are_taken(one, manifest):
    """What a profile says is what the kernel is told; an event that is not shown is named, and nothing is changed."""
    info = ctl.ctl()["module"]
    for profile in ("http", "grpc", "udp", "opaque", "passthrough", "batch"):
        ports = "ports = [7]\n" if profile in ("http", "grpc", "udp") else ""
        path = manifest(vm_text(one, more=f'profile = "{profile}"\n{ports}'))
        wanted = ctl.ctl("check", path)
        assert wanted["findings"] == []
        done, _ = apply(path)
        assert done in ({"added": ["a"]}, {"changed": ["a"]}), profile
        policy = show("a")["policy"]
        assert set(policy["wake_on"]) <= set(info["wake_on"]) and set(policy["sleep_on"]) <= set(info["sleep_on"])
    assert (policy["spin_ns"], policy["max_sleep_ns"]) == (5_000_000, 10_000_000_000)


def test_schema_is_printed(aftermath):
    code, output, _ = ctl.run("schema")
    assert code == 0 and json.loads(output)["title"] == "sleepy manifest"
