# SPDX-License-Identifier: GPL-2.0-only
"""The ioctl ABI of /dev/sleepy, written down a second time and by hand.

Nothing is taken from src/uapi.rs or from the header made of it, so that a change of the ABI shows here.
"""

import ctypes
import errno
import fcntl
import os
from contextlib import contextmanager
from ctypes import c_char, c_int32, c_uint32, c_uint64

DEVICE = "/dev/sleepy"
VERSION = 1
NAME_SIZE = 32
MAX_VMS, MAX_LINKS, MAX_RULES, MAX_VCPUS, MAX_INSNS = 16384, 16, 64, 256, 4096
MAX_TEXT = 1024
MAX_TIME = 3600 * 10**9
MIN_TIMEOUT = 10**6

OBSERVE, NICE, IDLE, GROUP, PARK = range(5)
BOOST = 1
REQUEST, RESPONSE, CLOSE, IGNORE, WAKE, SLEEP, PROGRAM = range(7)
TO_VM, FROM_VM = 1, 2
AWAKE, SLEEPY = 0, 1
FAULT_NONE, FAULT_NAME, FAULT_HANDLE, FAULT_POLICY, FAULT_LINK, FAULT_RULE, FAULT_GROUP = range(7)
GET_NEXT = 1
VM_GROUP_FOREIGN, VM_GROUP_LEFT = 1, 2
ATTACHED, ON_CPU, FOREIGN, MOVED = 1, 2, 4, 8
WAKES = ("request", "stir", "admin", "packet", "rule", "interrupt", "timer", "ipi", "doorbell", "hint", "answer")
SLEEPS = ("response", "close", "timeout", "rest", "idle", "spin", "quiet", "hint", "rule", "call")
WAKE_EVENTS = ("request", "packet", "interrupt", "timer", "ipi", "doorbell", "hint")
SLEEP_EVENTS = ("response", "idle", "spin", "quiet", "hint")
HINT_HYPERCALL, HINT_SLEEP, HINT_WAKE, HINT_RATE = 0x51EE9000, 0, 1, 1000
SET_POLICY, SET_RULES = 1, 2
PHASES = ("in_flight", "idle", "sleepy")
BUCKETS = 160

MS = 10**6
SECOND = 10**9


class Struct(ctypes.Structure):
    """A structure that can be changed while it is copied."""

    def but(self, **changes):
        other = type(self).from_buffer_copy(self)
        for field, value in changes.items():
            setattr(other, field, value)
        return other


class Policy(Struct):
    _fields_ = [
        ("linger", c_uint64), ("request_timeout", c_uint64), ("max_sleep", c_uint64), ("quiet", c_uint64),
        ("spin", c_uint64), ("timer_slack", c_uint64), ("park_max", c_uint64), ("stir_run", c_uint64),
        ("boost_period", c_uint64), ("boost_budget", c_uint64), ("lever", c_uint32), ("sleepy_nice", c_int32),
        ("boost_nice", c_int32), ("flags", c_uint32), ("sleep_on", c_uint32), ("wake_on", c_uint32),
        ("sleepy_weight", c_uint32), ("reserved", c_uint32),
    ]


class Insn(Struct):
    _fields_ = [("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", c_uint32)]


class Rule(Struct):
    _fields_ = [
        ("class_", c_uint32), ("direction", c_uint32), ("len", c_uint32), ("tag", c_uint32),
        ("insns", c_uint64), ("text", c_uint64), ("text_len", c_uint32), ("prog_fd", c_int32),
    ]


class VmRule(Struct):
    _fields_ = [
        ("class_", c_uint32), ("direction", c_uint32), ("tag", c_uint32), ("prog_id", c_uint32),
        ("text_len", c_uint32), ("reserved", c_uint32), ("text", c_char * MAX_TEXT),
    ]


class Link(Struct):
    _fields_ = [("netns_fd", c_int32), ("ifindex", c_uint32)]


class Info(Struct):
    _fields_ = [
        ("version", c_uint32), ("max_vms", c_uint32), ("max_links", c_uint32), ("max_rules", c_uint32),
        ("max_insns", c_uint32), ("vms", c_uint32), ("levers", c_uint64), ("sleep_on", c_uint32),
        ("wake_on", c_uint32), ("reserved", c_uint64 * 4),
    ]


class VmAdd(Struct):
    _fields_ = [
        ("name", c_char * NAME_SIZE), ("pid", c_uint32), ("vm_fd", c_int32), ("start_time", c_uint64),
        ("policy", Policy), ("links", c_uint64), ("rules", c_uint64), ("n_links", c_uint32),
        ("n_rules", c_uint32), ("id", c_uint32), ("fault", c_uint32), ("fault_index", c_uint32),
        ("group_fd", c_int32),
    ]


class VmRemove(Struct):
    _fields_ = [("id", c_uint32), ("reserved", c_uint32)]


class VmSet(Struct):
    _fields_ = [
        ("id", c_uint32), ("flags", c_uint32), ("policy", Policy), ("rules", c_uint64), ("n_rules", c_uint32),
        ("fault", c_uint32), ("fault_index", c_uint32), ("group_fd", c_int32),
    ]


class VmGet(Struct):
    _fields_ = [
        ("id", c_uint32), ("flags", c_uint32), ("name", c_char * NAME_SIZE), ("pid", c_uint32),
        ("state", c_uint32), ("start_time", c_uint64), ("policy", Policy), ("in_flight", c_uint32),
        ("n_vcpus", c_uint32), ("n_links", c_uint32), ("n_rules", c_uint32), ("lost_links", c_uint32),
        ("calls", c_uint32), ("group", c_uint64), ("flags_out", c_uint32), ("reserved", c_uint32),
    ]


class Vcpu(Struct):
    _fields_ = [
        ("index", c_uint32), ("tid", c_uint32), ("nice", c_int32), ("baseline", c_int32),
        ("flags", c_uint32), ("policy", c_uint32), ("oncpu", c_uint64), ("preempted", c_uint64),
        ("halted", c_uint64), ("blocked", c_uint64), ("yielded", c_uint64), ("parked", c_uint64),
    ]


class VmLink(Struct):
    _fields_ = [("ifindex", c_uint32), ("reserved", c_uint32), ("netns", c_uint64), ("name", c_char * 16)]


class VmArray(Struct):
    _fields_ = [("id", c_uint32), ("count", c_uint32), ("items", c_uint64)]


class Last(Struct):
    _fields_ = [("request", c_uint64), ("ran", c_uint64), ("response", c_uint64)]


class VmStats(Struct):
    _fields_ = [
        ("id", c_uint32), ("reserved", c_uint32), ("requests", c_uint64), ("responses", c_uint64),
        ("closed", c_uint64), ("timeouts", c_uint64), ("overflows", c_uint64), ("calls", c_uint64),
        ("answers", c_uint64), ("hints_refused", c_uint64), ("wakes_", c_uint64 * 16),
        ("sleeps_", c_uint64 * 16), ("time_", c_uint64 * 3), ("oncpu_", c_uint64 * 3),
        ("trigger", c_uint64 * BUCKETS), ("exec_", c_uint64 * BUCKETS), ("effect", c_uint64 * BUCKETS),
        ("last", Last),
    ]

    wakes = property(lambda self: dict(zip(WAKES, self.wakes_)))
    sleeps = property(lambda self: dict(zip(SLEEPS, self.sleeps_)))
    time = property(lambda self: dict(zip(PHASES, self.time_)))
    oncpu = property(lambda self: dict(zip(PHASES, self.oncpu_)))


SIZES = {
    Policy: 112, Rule: 40, Link: 8, Info: 72, VmAdd: 200, VmRemove: 8, VmSet: 144, VmGet: 208, Vcpu: 72,
    VmLink: 32, VmArray: 16, Last: 24, VmStats: 4240, VmRule: 1048,
}


def number(direction, nr, size, kind=0xB9):
    return direction << 30 | size << 16 | kind << 8 | nr


W, R, RW = 1, 2, 3
INFO = number(R, 0, 72)
VM_ADD = number(RW, 1, 200)
VM_REMOVE = number(W, 2, 8)
VM_SET = number(RW, 3, 144)
VM_GET = number(RW, 4, 208)
VM_STATS = number(RW, 5, 4240)
VM_VCPUS = number(RW, 6, 16)
VM_LINKS = number(RW, 7, 16)
VM_RULES = number(RW, 8, 16)
CALLS = {
    "INFO": (INFO, Info), "VM_ADD": (VM_ADD, VmAdd), "VM_REMOVE": (VM_REMOVE, VmRemove),
    "VM_SET": (VM_SET, VmSet), "VM_GET": (VM_GET, VmGet), "VM_STATS": (VM_STATS, VmStats),
    "VM_VCPUS": (VM_VCPUS, VmArray), "VM_LINKS": (VM_LINKS, VmArray),
    "VM_RULES": (VM_RULES, VmArray),
}


def policy(**changes):
    """The tool's defaults, but for `changes`."""
    return Policy(linger=200_000, request_timeout=5 * SECOND, max_sleep=SECOND, lever=NICE,
                  sleepy_nice=19, quiet=50 * MS, spin=20 * MS, park_max=2 * SECOND, stir_run=500_000, sleep_on=sleep_on("response"),
                  wake_on=wake_on("request")).but(**changes)


def wake_on(*names):
    return sum(1 << WAKES.index(name) for name in names)


def sleep_on(*names):
    return sum(1 << SLEEPS.index(name) for name in names)


def start_time(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        return int(file.read().rpartition(")")[2].split()[19])


class Refused(OSError):
    """A call that failed, with what the kernel says of it."""

    def __init__(self, error, fault, index):
        super().__init__(error.errno, error.strerror)
        self.fault, self.fault_index = fault, index


class Device:
    """An open /dev/sleepy."""

    def __init__(self, fd=None):
        self.fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC) if fd is None else fd

    def close(self):
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def call(self, cmd, arg):
        fcntl.ioctl(self.fd, cmd, arg, True)  # True: the kernel's changes are to be seen in arg
        return arg

    def raw(self, cmd, address):
        """An ioctl whose argument is a bare number."""
        libc = ctypes.CDLL(None, use_errno=True)
        libc.ioctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong]
        if libc.ioctl(self.fd, cmd, address) < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    def info(self):
        return self.call(INFO, Info())

    def request(self, name, pid, links=(), rules=(), vm_fd=-1, policy_=None, start=None,
                group_fd=-1):
        """The argument of VM_ADD. `links` are (netns fd, ifindex), `rules` (class, direction, program)."""
        add = VmAdd(name=name.encode() if isinstance(name, str) else name, pid=pid, vm_fd=vm_fd,
                    start_time=start_time(pid) if start is None else start,
                    policy=policy_ or policy(), n_links=len(links), group_fd=group_fd)
        link_array = (Link * len(links))(*[Link(*link) for link in links])
        add.links = ctypes.addressof(link_array) if links else 0
        add.link_array = link_array
        self._put_rules(add, rules)
        return add

    @staticmethod
    def _put_rules(arg, rules):
        """Each rule is (class, direction, instructions or descriptor of an eBPF program[, text[, tag]])."""
        arg.kept, arg.rule_array = [], (Rule * len(rules))()
        for made, rule in zip(arg.rule_array, rules):
            made.class_, made.direction = rule[:2]
            if isinstance(rule[2], int):
                made.prog_fd = rule[2]
            else:
                program = (Insn * len(rule[2]))(*[Insn(*insn) for insn in rule[2]])
                made.len, made.insns = len(program), ctypes.addressof(program)
                arg.kept.append(program)
            if len(rule) > 3:
                text = ctypes.create_string_buffer(rule[3], len(rule[3]))
                made.text, made.text_len = ctypes.addressof(text), len(rule[3])
                arg.kept.append(text)
            made.tag = rule[4] if len(rule) > 4 else 0
        arg.rules = ctypes.addressof(arg.rule_array) if rules else 0
        arg.n_rules = len(rules)

    def add(self, *args, **kwargs):
        """Adds a VM; returns its id."""
        return self.submit(self.request(*args, **kwargs))

    def submit(self, add):
        return self._faulty(VM_ADD, add).id

    def _faulty(self, cmd, arg):
        try:
            return self.call(cmd, arg)
        except OSError as error:
            raise Refused(error, arg.fault, arg.fault_index) from None

    def remove(self, vm):
        self.call(VM_REMOVE, VmRemove(id=vm))

    def set(self, vm, new, group_fd=-1):
        self._faulty(VM_SET, VmSet(id=vm, flags=SET_POLICY, policy=new, group_fd=group_fd))

    def set_rules(self, vm, rules, policy_=None):
        arg = VmSet(id=vm, flags=SET_RULES | (SET_POLICY if policy_ else 0), policy=policy_ or Policy(),
                    group_fd=-1)
        self._put_rules(arg, rules)
        self._faulty(VM_SET, arg)

    def get(self, vm, flags=0):
        return self.call(VM_GET, VmGet(id=vm, flags=flags))

    def stats(self, vm):
        return self.call(VM_STATS, VmStats(id=vm))

    def _array(self, cmd, vm, item, room):
        items = (item * room)()
        array = self.call(cmd, VmArray(id=vm, count=room, items=ctypes.addressof(items)))
        return list(items[:min(array.count, room)])

    def vcpus(self, vm, room=64):
        return self._array(VM_VCPUS, vm, Vcpu, room)

    def links(self, vm, room=MAX_LINKS):
        return self._array(VM_LINKS, vm, VmLink, room)

    def rules(self, vm, room=MAX_RULES):
        return self._array(VM_RULES, vm, VmRule, room)

    def vms(self):
        """Every VM."""
        found, vm = [], 0
        while True:
            try:
                found.append(self.get(vm, GET_NEXT))
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
                return found
            vm = found[-1].id + 1

    def clear(self):
        for vm in self.vms():
            try:
                self.remove(vm.id)
            except OSError as error:
                if error.errno != errno.ENOENT:  # its VMM has just gone
                    raise


@contextmanager
def raises(code, fault=None, index=None):
    """The body fails with this errno, and with this fault."""
    try:
        yield
    except OSError as error:
        expected, got = errno.errorcode[code], errno.errorcode.get(error.errno, error.errno)
        assert got == expected, f"{got} instead of {expected}"
        if fault is not None:
            assert error.fault == fault, f"fault {error.fault} instead of {fault}"
        if index is not None:
            assert error.fault_index == index, f"fault index {error.fault_index} instead of {index}"
    else:
        raise AssertionError(f"done, instead of {errno.errorcode[code]}")
