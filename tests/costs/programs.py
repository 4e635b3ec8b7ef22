# SPDX-License-Identifier: GPL-2.0-only
"""Programs in memory."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path


def copied(program):
    """The command of a copy of a program, with all that it needs in a directory of its own.

    The host's files come over 9p, and a wait for the host takes any time by the clock that counts instructions.
    """
    here = Path(tempfile.mkdtemp(prefix="sleepy-"))
    needed = subprocess.run(["ldd", program], stdout=subprocess.PIPE, text=True, check=True).stdout
    for library in re.findall(r"/\S+", needed):
        shutil.copy(library, here)
    loader = next(here.glob("ld-linux*"))
    return [str(loader), "--library-path", str(here), str(shutil.copy(program, here))]
