# SPDX-License-Identifier: GPL-2.0-only
"""Sleep of the whole host."""

from pathlib import Path


def suspend():
    """Suspends the host to RAM and resumes it, up to where the firmware would come in (scripts/suspend goes on from there): all CPUs
    but one are off, and KVM and the clocks too."""
    power = Path("/sys/power")
    before = int((power / "suspend_stats/success").read_text())
    Path("/sys/module/suspend/parameters/pm_test_delay").write_text("1")
    (power / "mem_sleep").write_text("deep")
    (power / "pm_test").write_text("core")
    (power / "state").write_text("mem")
    assert int((power / "suspend_stats/success").read_text()) == before + 1
