# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps two runs on one project apart.

The kernel holds the lock, not a file's existence: when a run is killed its lock is gone with it, and nobody has to find
out whether it is stale.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ..report.finding import failure

_PAUSE = 0.2


@contextmanager
def locked(host: str, project: str, wait: float) -> Iterator[None]:
    """Holds the lock of `project` on the engine at `host`. Waits up to `wait` seconds for another run to end."""
    descriptor = os.open(_path(host, project), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _acquire(descriptor, project, wait)
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def directory_locked(descriptor: int, path: str, wait: float) -> Iterator[None]:
    """Holds the lock of an open directory, whatever it is called and whoever runs this. File systems that know no such
    lock have none."""
    try:
        held = _try(descriptor)
    except OSError:
        yield
        return
    if not held:
        _acquire(descriptor, path, wait)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _path(host: str, project: str) -> str:
    name = hashlib.sha256(f"{host} {project}".encode()).hexdigest()[:16]
    directory = "/run/lock" if os.access("/run/lock", os.W_OK) else tempfile.gettempdir()
    # One user's file must not be in the way of another's: each has one of its own.
    return os.path.join(directory, f"shipshape-{os.getuid()}-{name}.lock")


def _acquire(descriptor: int, project: str, wait: float) -> None:
    deadline = time.monotonic() + wait
    while not _try(descriptor):
        if time.monotonic() > deadline:
            holder = _holder(descriptor)
            what = f"another run is at work on it (process {holder}), and has not ended within {wait:g} s"
            remedy = "Wait for it and run this again; when that process is gone, so is its lock"
            raise failure(project, "deploy-running", what, remedy)
        time.sleep(_PAUSE)


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int) -> str:
    try:
        return os.pread(descriptor, 20, 0).decode("ascii", "replace") or "unknown"
    except OSError:
        return "unknown"
