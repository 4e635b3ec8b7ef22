# SPDX-License-Identifier: GPL-2.0-only
"""sleepyctl, as a script would use it."""

import json
import os
import subprocess

from . import host

PROGRAM = os.environ.get("SLEEPYCTL", "")
FAILED, USAGE, NOT_LOADED, NOT_PERMITTED = 1, 2, 3, 4


class Failed(Exception):
    """sleepyctl ended with another status than 0."""

    def __init__(self, code, output, text):
        super().__init__(f"exit {code}: {text.strip()}")
        self.code, self.output, self.text = code, output, text


def run(*args, **how):
    """Runs it with these very arguments; returns (exit status, standard output, standard error)."""
    assert PROGRAM, "no sleepyctl: run this by tests/vm/run --ctl FILE"
    done = subprocess.run([PROGRAM, *map(str, args)], text=True, capture_output=True,
                          timeout=20 * host.SLOW, check=False, **how)
    return done.returncode, done.stdout, done.stderr


def ctl(*args, **how):
    """Runs it with -j; returns what it prints."""
    code, output, text = run("-j", *args, **how)
    if code:
        raise Failed(code, output, text)
    answer = json.loads(output)
    assert answer["schema_version"] == 1
    return answer


def refused(code, *args, **how):
    """Runs it with -j: it must fail with this status. Returns the message, which must also be on stderr."""
    got, output, text = run("-j", *args, **how)
    assert got == code, f"exit {got} instead of {code}: {text}"
    answer = json.loads(output)
    assert answer["schema_version"] == 1 and answer["error"]["exit"] == code
    assert answer["error"]["message"] in text
    return answer["error"]["message"]


def show(name):
    return ctl("vm", "show", name)["vm"]


def stats(name):
    return ctl("stats", name)["vms"][0]
