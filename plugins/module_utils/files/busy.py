# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who has a file open for writing: until that one is done, the kernel refuses to execute it (ETXTBSY)."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass

from ..report.finding import ShipshapeError, failure

_ACCESS_MODE = 0o3
_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.25


@dataclass(frozen=True)
class Writer:
    pid: int
    command: str

    def __str__(self) -> str:
        return f"process {self.pid} ({self.command})"


def wait_until_free(paths: Iterable[str], timeout: float) -> None:
    """Returns when nobody has any of `paths` open for writing; fails, naming who has, after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    for path in paths:
        pause = _FIRST_PAUSE
        while open_for_writing(path):
            if time.monotonic() >= deadline:
                raise busy(path, timeout)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


def busy(path: str, waited: float) -> ShipshapeError:
    who = " and ".join(map(str, writers(path))) or "a process that this user cannot see"
    return failure(
        path,
        "open-for-writing",
        f"still open for writing after {waited:g} s, by {who}",
        "Let that process finish or stop it, then run again; busy_timeout sets how long to wait",
    )


def open_for_writing(path: str) -> bool:
    """Whether some process, of any user or container, has `path` open (or mapped) for writing.

    The kernel answers that at once: it grants a read lease only on a file that nobody writes. Where it grants no
    leases (other people's files, some network file systems) the processes' descriptors are looked through.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False  # absent or unreadable: the write itself will say so, and why
    try:
        # Who opens the file to write while we hold the lease sends us a signal, by default a deadly one.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except (OSError, AttributeError) as error:
        if getattr(error, "errno", None) == errno.EAGAIN:
            return True
        return bool(writers(path))
    finally:
        os.close(fd)
    return False


def writers(path: str) -> list[Writer]:
    """The processes that have `path` open for writing, as far as this user may see them."""
    try:
        wanted = os.stat(path)
        pids = sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())
    except OSError:
        return []
    return [Writer(pid, _command(pid)) for pid in pids if pid != os.getpid() and _writes(pid, wanted)]


def _writes(pid: int, wanted: os.stat_result) -> bool:
    directory = f"/proc/{pid}/fd"
    try:
        descriptors = os.listdir(directory)
    except OSError:
        return False
    return any(_is_writable(pid, name) for name in descriptors if _same_file(f"{directory}/{name}", wanted))


def _same_file(link: str, wanted: os.stat_result) -> bool:
    try:
        info = os.stat(link)
    except OSError:
        return False
    return stat.S_ISREG(info.st_mode) and (info.st_dev, info.st_ino) == (wanted.st_dev, wanted.st_ino)


def _is_writable(pid: int, descriptor: str) -> bool:
    try:
        with open(f"/proc/{pid}/fdinfo/{descriptor}", encoding="ascii") as lines:
            flags = next((line.split()[1] for line in lines if line.startswith("flags:")), "0")
    except OSError:
        return False
    return int(flags, 8) & _ACCESS_MODE != os.O_RDONLY


def _command(pid: int) -> str:
    """Program and, for an interpreter, its script. No further arguments: they may hold secrets."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            words = stream.read(4096).decode("utf-8", "replace").split("\0")
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as stream_text:
            name = stream_text.read().strip()
    except OSError:
        return "ended meanwhile"
    if len(words) > 1 and os.path.isabs(words[1]):
        return f"{os.path.basename(words[0]) or name} {words[1]}"
    return os.path.basename(words[0]) or name
