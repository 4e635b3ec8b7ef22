# SPDX-License-Identifier: GPL-2.0-only
"""The test host: modules, the kernel's log, and waiting."""

import ctypes
import errno
import glob
import os
import re
import select
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

KO = os.environ.get("SLEEPY_KO", "")
BUILD = os.environ.get("KBUILD_OUTPUT", "")
FLAVOUR = os.environ.get("SLEEPY_FLAVOUR", "base")
DEBUG = FLAVOUR not in ("base", "previous")
# All of KVM is built in.
KVM_STAYS = FLAVOUR == "rt"
# How much longer things take than on the base kernel; for bounds only, never for what must be exact.
SLOW = 4 if DEBUG else 1
EMULATED = os.environ.get("SLEEPY_ACCEL") == "tcg"
# All of it, however long it takes.
FULL = bool(os.environ.get("SLEEPY_FULL"))

_libc = ctypes.CDLL(None, use_errno=True)
SYS_FINIT_MODULE, SYS_DELETE_MODULE, SYS_CLONE3, SYS_PIDFD_GETFD = 313, 176, 435, 438


def syscall(nr, *args):
    """A system call that the standard library lacks."""
    result = _libc.syscall(nr, *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def turns(full):
    """How often to try what goes wrong now and then: so often in a full run, less elsewhere and on a debug kernel."""
    return max(3, full // (1 if FULL else 3) // (3 if DEBUG else 1))


def wait(condition, what, seconds=5, step=0.01):
    """Waits until `condition()` is true and returns what it returned."""
    deadline = time.monotonic() + seconds * SLOW
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds * SLOW} s still not so: {what}")
        time.sleep(step)


def run(*command, check=True, timeout=30):
    """Runs a command; its output goes into the failure."""
    done = subprocess.run(command, text=True, capture_output=True, timeout=timeout * SLOW, check=False)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done


# Modules


def load(path=None):
    """insmod; raises OSError."""
    fd = os.open(path or KO, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscall(SYS_FINIT_MODULE, fd, ctypes.c_char_p(b""), 0)
    finally:
        os.close(fd)


def unload_once(name="sleepy"):
    """rmmod, without waiting; raises OSError."""
    syscall(SYS_DELETE_MODULE, ctypes.c_char_p(name.encode()), os.O_NONBLOCK)


def unload(name="sleepy", seconds=5):
    """rmmod as soon as nothing uses the module any more."""
    def gone():
        try:
            unload_once(name)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EBUSY):
                raise
            return False
        return True

    wait(gone, f"{name} can be unloaded (references: {refcount(name)})", seconds)


def refused_unload(name="sleepy", seconds=10):
    """The errno of an rmmod that must fail, and must not hang; 0 if it did not fail."""
    pid = os.fork()
    if pid == 0:
        try:
            unload_once(name)
        except OSError as error:
            os._exit(error.errno)
        os._exit(0)
    pidfd = os.pidfd_open(pid)
    try:
        assert select.select([pidfd], [], [], seconds * SLOW)[0], f"rmmod {name} hangs"
    finally:
        os.close(pidfd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def loaded(name="sleepy"):
    return os.path.exists(f"/sys/module/{name}")


def refcount(name="sleepy"):
    """The module's references, -1 if it is not loaded."""
    try:
        return int(Path(f"/sys/module/{name}/refcnt").read_text())
    except FileNotFoundError:
        return -1


def module(name):
    """The file of one of the kernel's own modules."""
    pattern = re.sub("[-_]", "[-_]", name)
    found = glob.glob(f"{BUILD}/root/lib/modules/*/kernel/**/{pattern}.ko", recursive=True)
    assert found, f"no {name}.ko below {BUILD}/root (KBUILD_OUTPUT)"
    return found[0]


def need(*names):
    """Loads the kernel's own modules, in this order, where they are not there."""
    for name in names:
        if not loaded(name.replace("-", "_")):
            load(module(name))


def kvm_vendor():
    """The KVM module for this CPU, with an underscore."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    return "kvm_amd" if re.search(r"\bsvm\b", cpuinfo) else "kvm_intel"


def load_kvm():
    run("modprobe", kvm_vendor())


def unload_kvm(seconds=5):
    """All of it that is a module: what the processor needs, or more than that, or nothing."""
    for name in (kvm_vendor(), "kvm"):
        if refcount(name) >= 0:
            unload(name, seconds)


# The kernel's log


def panic_on_warn():
    """On the debug kernels; but where races are looked for, the kernel has some of its own."""
    if DEBUG and FLAVOUR != "race":
        Path("/proc/sys/kernel/panic_on_warn").write_text("1")


REPORT = re.compile(
    r"WARNING:|\bBUG:|\bOops\b|kernel BUG|KASAN|ODEBUG|general protection|unable to handle|"
    r"possible (circular|recursive) |inconsistent lock|bad unlock balance|suspicious RCU|"
    r"held lock freed|lock held when returning|sleeping function called|scheduling while atomic|"
    r"refcount_t:|list_(add|del) corruption|INFO: (rcu|task) |detected stall|soft lockup|hard LOCKUP|"
    r"unregister_netdevice: waiting|kobject .* is being destroyed|kmemleak: \d+ new|UBSAN|"
    r"sleepy: .*panicked|rust_kernel: panicked", re.IGNORECASE)


class Log:
    """The kernel's log from where it was last read."""

    def __init__(self):
        self.fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.lseek(self.fd, 0, os.SEEK_END)

    def read(self):
        """The new lines."""
        lines = []
        while True:
            try:
                record = os.read(self.fd, 8192).decode(errors="replace")
            except BlockingIOError:
                return lines
            except BrokenPipeError:  # overwritten before it was read: the next read goes on behind it
                lines.append("(lines were lost)")
                continue
            lines.append(record.partition(";")[2].rstrip("\n"))

    def close(self):
        os.close(self.fd)


RACE, RULER = re.compile(r"BUG: KCSAN: "), re.compile(r"={60}")


def own(lines):
    """Without the races in which no function of sleepy's has a part: the kernel has some of its own."""
    left, at = [], 0
    while at < len(lines):
        end = at + 1
        if RACE.search(lines[at]):
            while end < len(lines) and not RULER.match(lines[end]):
                end += 1
        if end == at + 1 or any("[sleepy]" in line for line in lines[at:end]):
            left += lines[at:end]
        at = end
    return left


def reports(lines):
    """The lines from the first report on, or nothing."""
    lines = own(lines)
    for at, line in enumerate(lines):
        if REPORT.search(line):
            return lines[max(0, at - 2):at + 60]
    return []


def mark(text):
    """Writes a line into the kernel's log, so that its reader sees which test it was."""
    Path("/dev/kmsg").write_text(f"tests: {text}\n")


# Processes


def threads(pid):
    return sorted(int(tid) for tid in os.listdir(f"/proc/{pid}/task"))


def nice_of(tid):
    return os.getpriority(os.PRIO_PROCESS, tid)


def getfd(pid, fd):
    """A copy of another process's descriptor."""
    pidfd = os.pidfd_open(pid)
    try:
        return syscall(SYS_PIDFD_GETFD, pidfd, fd, 0)
    finally:
        os.close(pidfd)


def fds(pid):
    """{descriptor: what it is} of a process."""
    found = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(fd)] = os.readlink(f"/proc/{pid}/fd/{fd}")
        except FileNotFoundError:
            continue
    return found


def vm_fds(pid):
    return sorted(fd for fd, what in fds(pid).items() if what == "anon_inode:kvm-vm")


def tap_fds(pid):
    """{name of the tap: descriptor} of a process."""
    found = {}
    for fd, what in fds(pid).items():
        if what == "/dev/net/tun":
            match = re.search(r"^iff:\s*(\S+)", Path(f"/proc/{pid}/fdinfo/{fd}").read_text(), re.MULTILINE)
            if match:
                found[match[1]] = fd
    return found


def state_of(pid):
    """The state letter in /proc/PID/stat."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def kill(process, how=signal.SIGKILL):
    """Ends a subprocess.Popen and waits for it."""
    if process.poll() is None:
        process.send_signal(how)
        process.send_signal(signal.SIGCONT)
    return process.wait(timeout=20 * SLOW)


@contextmanager
def other_time():
    """Gives a function that sets the time of day so many seconds ahead, or back; it is right again when this is over."""
    began, monotonic = time.time(), time.monotonic()
    try:
        yield lambda seconds: time.clock_settime(time.CLOCK_REALTIME, time.time() + seconds)
    finally:
        time.clock_settime(time.CLOCK_REALTIME, began + time.monotonic() - monotonic)


def kept():
    """Bytes that the kernel keeps for itself; not its threads' stacks: there are more workers of its own after much work."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    size = {key: int(value[0]) * 1024 for key, *value in lines}
    return size["SUnreclaim:"] + size["Percpu:"] + size["VmallocUsed:"] - size["KernelStack:"]


@contextmanager
def stopped(pid, seconds=5):
    """SIGSTOP; what the test does to it then must not need the process to run."""
    os.kill(pid, signal.SIGSTOP)
    threads = [int(tid) for tid in os.listdir(f"/proc/{pid}/task")]
    wait(lambda: all(state_of(tid) == "T" for tid in threads), "every thread has stopped", seconds)
    try:
        yield
    finally:
        if os.path.exists(f"/proc/{pid}"):  # a test may have killed it
            os.kill(pid, signal.SIGCONT)
