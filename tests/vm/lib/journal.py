# SPDX-License-Identifier: GPL-2.0-only
"""Which tests have begun, and how they ended: a file that outlives the test host."""

import json
import os


def _add(file, **line):
    with open(file, "a", encoding="utf-8") as journal:
        journal.write(json.dumps(line) + "\n")
        journal.flush()
        os.fsync(journal.fileno())


def begin(file, test):
    _add(file, test=test)


def end(file, test, outcome, why=""):
    _add(file, test=test, outcome=outcome, why=why)


def _lines(file):
    try:
        with open(file, encoding="utf-8") as journal:
            return [json.loads(line) for line in journal if line.endswith("\n")]
    except FileNotFoundError:
        return []


def done(file):
    """The tests that are over: {name: "passed", "failed" or "skipped"}."""
    return {line["test"]: line["outcome"] for line in _lines(file) if "outcome" in line}


def failures(file):
    """The tests that failed, and why: [(name, text)]."""
    return [(line["test"], line["why"]) for line in _lines(file) if line.get("outcome") == "failed"]


def lost(file):
    """The test that was under way when the file's last line was written, or None."""
    last = _lines(file)[-1:]
    return last[0]["test"] if last and "outcome" not in last[0] else None
