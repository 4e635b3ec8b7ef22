# SPDX-License-Identifier: GPL-2.0-only
"""Linux guests: QEMU microVMs that serve HTTP on port 8080 and echo UDP on port 8081 (tests/guest)."""

import os
import subprocess
import tempfile
import time
from pathlib import Path

from . import client, host, net, plug

KERNEL = os.environ.get("SLEEPY_GUEST_KERNEL", "")
INITRAMFS = os.environ.get("SLEEPY_GUEST", "")
BOOTS = 3
PREFIX = "gt"  # of the guests' taps, which outlive a test


class Guest:
    """One guest. Its tap keeps its name wherever it is plugged in."""

    def __init__(self, number, vhost=False, vcpus=1, vlan=None, memory=96, busy=False,
                 storm=False):
        self.number, self.vhost, self.vcpus, self.vlan, self.memory = number, vhost, vcpus, vlan, memory
        self.busy = busy  # its servers ask again and again, and never halt
        self.storm = storm  # its vCPUs fight for a spinlock all the time
        self.tap = f"{PREFIX}{number}"
        self.host4, self.ip4 = f"10.9.{number}.1", f"10.9.{number}.2"
        self.host6, self.ip6 = f"fd09:{number}::1", f"fd09:{number}::2"
        # The guest shall find its gateway wherever the tap is: all its gateways have this address.
        self.gateway_mac = f"02:00:00:00:{number:02x}:01"
        self.mac = f"02:00:00:00:{number:02x}:02"
        self.port_mac = f"02:00:00:00:{number:02x}:03"
        self.process = None
        self.boots = 0

    @property
    def pid(self):
        return self.process.pid

    def boot(self):
        """Boots it. The emulator now and then loses a boot: that, and nothing else, is tried again."""
        assert KERNEL and INITRAMFS, "no guest: run this by tests/vm/run --guest FILE"
        if self.vhost:
            host.run("modprobe", "vhost_net")
        for _ in range(BOOTS):
            self.boots += 1
            if self._boot():
                return
            self.stop()
        raise AssertionError(f"{self.tap} did not boot in {BOOTS} attempts:\n{self.log.read_text()[-3000:]}")

    def _boot(self):
        if not net.exists(self.tap):
            net.tap(self.tap, vnet_hdr=True)
        handle, name = tempfile.mkstemp(prefix=f"{self.tap}.", suffix=".log")
        os.close(handle)
        self.log = Path(name)
        append = (f"console=ttyS0 quiet panic=-1 reboot=t no_timer_check tsc=reliable pci=off "
                  f"ip4={self.ip4}/24 gw4={self.host4} ip6={self.ip6}/64 gw6={self.host6}"
                  + (f" vlan={self.vlan}" if self.vlan else "") + (" wait=busy" if self.busy else "")
                  + (" load=storm" if self.storm else ""))
        self.process = subprocess.Popen([
            "qemu-system-x86_64", "-M", "microvm,accel=kvm,acpi=off,pic=off,pit=off,rtc=off",
            "-bios", "qboot.rom", "-cpu", "host", "-smp", str(self.vcpus),
            "-m", str(self.memory), "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
            "-run-with", "exit-with-parent=on",
            "-serial", f"file:{self.log}", "-kernel", KERNEL, "-initrd", INITRAMFS, "-append", append,
            "-netdev", f"tap,id=n,ifname={self.tap},script=no,downscript=no,vhost={'on' if self.vhost else 'off'}",
            "-device", f"virtio-net-device,netdev=n,mac={self.mac}",
        ], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            if "READY" in self.log.read_text(errors="replace"):
                return self._answers()
            time.sleep(0.1)
        return False

    def _answers(self):
        """One that has come up may be stuck all the same."""
        with plug.plug(self, "vlan" if self.vlan else "netns") as netns:
            try:
                return client.get(netns, self.ip4)[0] == 200
            except OSError:
                return False

    def tids(self):
        """Its vCPU threads, as KVM has them."""
        own = set(host.threads(self.pid))
        found = [int(path.read_text()) for path in Path("/sys/kernel/debug/kvm").glob("*/vcpu*/pid")]
        return sorted(tid for tid in found if tid in own)

    def stop(self):
        if self.process:
            host.kill(self.process)
            self.process = None
        if net.exists(self.tap):
            net.ip(f"link del {self.tap}")


class Guests:
    """The guests that the tests share."""

    def __init__(self):
        self.running = {}

    def get(self, number, **how):
        """The guest with this number, booted if it is not yet."""
        guest = self.running.get(number)
        if not guest or guest.process.poll() is not None:
            if guest:
                guest.stop()
            guest = Guest(number, **how)
            guest.boot()
            self.running[number] = guest
        return guest

    def drop(self, number):
        """Forgets a guest that a test has broken."""
        self.running.pop(number).stop()

    def stop(self):
        for guest in self.running.values():
            guest.stop()
        self.running = {}
