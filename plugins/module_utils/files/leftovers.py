# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names our temporaries and removes those that a killed process left behind.

Who writes a temporary holds an exclusive flock on it for as long as it bears its temporary name; the kernel drops
the lock with the process, however that dies. So a temporary that can be locked belongs to nobody, whatever its age:
a re-run right after a kill cleans up, and two runs at once never take each other's files. The one gap, between
creating and locking, is closed by the creator: it looks, once locked, whether the file still has a name, and
otherwise starts afresh (see `claim`).
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import time

_OURS = re.compile(r"\.shipshape-.*-[0-9a-f]{16}\.tmp", re.DOTALL)
_READABLE_PART = 60
# Only where locks do not work (some network file systems): nobody writes a file for as long as this.
_SURELY_ABANDONED = 24 * 3600
_LOOK_ONLY = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def temporary_name(name: str) -> str:
    """A fresh name for a temporary of `name`; short enough for every file system, also when `name` is long."""
    readable = os.fsencode(name)[:_READABLE_PART].decode("utf-8", "ignore")
    return f".shipshape-{readable}-{os.urandom(8).hex()}.tmp"


def is_ours(name: str) -> bool:
    return _OURS.fullmatch(name) is not None


def claim(path: str, writer: int) -> int | None:
    """Locks the temporary just created and returns the descriptor that holds the lock.

    The lock sits on a descriptor of its own, opened for reading: it has to live until the rename, and a descriptor
    open for writing would by then make the kernel refuse to execute the file (ETXTBSY).
    None when a sweep was faster than the lock and the file has no name any more.
    """
    try:
        holder = os.open(path, _LOOK_ONLY)
    except FileNotFoundError:
        return None
    try:
        _lock(holder, wait=True)
        mine, named = os.fstat(writer), os.fstat(holder)
    except BaseException:
        os.close(holder)
        raise
    if named.st_nlink == 0 or (mine.st_dev, mine.st_ino) != (named.st_dev, named.st_ino):
        os.close(holder)
        return None
    return holder


def sweep(directory: str) -> list[str]:
    """Removes from `directory` what killed processes left of ours; returns the names removed, sorted."""
    try:
        names = sorted(filter(is_ours, os.listdir(directory)))
    except OSError:
        return []  # missing or unreadable: whoever writes there next gets the error, with its reason
    return [name for name in names if _remove_abandoned(os.path.join(directory, name))]


def _remove_abandoned(path: str) -> bool:
    try:
        # For reading only: a writable descriptor on a file that is about to be renamed would make it unexecutable.
        fd = os.open(path, _LOOK_ONLY)
    except OSError:
        return False
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or not _abandoned(fd, info):
            return False
        os.unlink(path)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _abandoned(fd: int, info: os.stat_result) -> bool:
    try:
        return _lock(fd, wait=False)
    except BlockingIOError:
        return False
    except OSError:
        return time.time() - info.st_mtime > _SURELY_ABANDONED


def _lock(fd: int, *, wait: bool) -> bool:
    """Takes the lock. False where the file system has none and `wait` allows to go on without."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError:
        if wait:
            return False  # the sweep then goes by age
        raise
    return True
