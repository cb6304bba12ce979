# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `tree` keeps in dest/.shipshape: the record of what it shipped, the lock, the backups. Nobody else's to read."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ..report.finding import failure
from .atomic import Attributes, write
from .manifest import Record, dump_record, load_record
from .problems import explained

NAME = ".shipshape"
_BACKUP = re.compile(r"\d{8}T\d{6}(\.\d{6})?Z(-\d+)?")
_POLL = 0.1


class StateDirectory:
    """dest/.shipshape. Made with mode 0700, because backups and digests of env files lie there."""

    def __init__(self, dest: str) -> None:
        self.dest = dest
        self.path = os.path.join(dest, NAME)
        self._record = os.path.join(self.path, "manifest.json")
        self._lock = os.path.join(self.path, "lock")
        self._backups = os.path.join(self.path, "backup")
        # Links and files on their way in or out; emptied by each run.
        self.parked = os.path.join(self.path, "parked")

    def exists(self) -> bool:
        """Raises where something else has the name."""
        with explained(self.path, "look at it"):
            try:
                info = os.lstat(self.path)
            except FileNotFoundError:
                return False
        if not stat.S_ISDIR(info.st_mode):
            message = "is not a directory, and tree keeps its record there"
            raise failure(self.path, "state-directory-blocked", message, "Move it away")
        return True

    def make(self) -> None:
        with explained(self.path, "create it"), suppress(FileExistsError):
            os.mkdir(self.path, 0o700)

    def load(self) -> Record:
        with explained(self._record, "read what was shipped before"):
            try:
                with open(self._record, "rb") as stream:
                    content = stream.read()
            except FileNotFoundError:
                return Record()
        return load_record(self._record, content)

    def save(self, record: Record) -> None:
        write(self._record, dump_record(record), Attributes(mode=0o600))

    def forget(self) -> None:
        """Back to before the first run, for a first run that could not begin."""
        with explained(self._record, "remove it"):
            if os.path.lexists(self._record):
                os.unlink(self._record)

    def park(self) -> None:
        """Makes an empty directory for what is on its way in or out."""
        with explained(self.parked, "make an empty directory"):
            shutil.rmtree(self.parked, ignore_errors=True)
            os.mkdir(self.parked, 0o700)

    def unpark(self) -> None:
        shutil.rmtree(self.parked, ignore_errors=True)

    def new_backup(self) -> str:
        """The path, not yet made, of this run's backup."""
        now = time.time()
        name = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now)) + f".{int(now % 1 * 1e6):06d}Z"
        return os.path.join(self._backups, name)

    def surplus(self, keep: int, coming: int = 0) -> list[str]:
        """The oldest backups, as many as there are, with `coming` new ones, more than `keep`."""
        try:
            names = sorted(name for name in os.listdir(self._backups) if _BACKUP.fullmatch(name))
        except OSError:
            return []
        return [os.path.join(self._backups, name) for name in names[: max(0, len(names) + coming - keep)]]

    def remove_backup(self, path: str) -> None:
        with explained(path, "remove the old backup"):
            shutil.rmtree(path)

    def remove_empty(self) -> None:
        """Removes the directory when it holds nothing but the lock."""
        if os.listdir(self.path) == ["lock"]:
            os.unlink(self._lock)
        os.rmdir(self.path)

    @contextmanager
    def locked(self, timeout: float) -> Iterator[None]:
        """One run at a time for each dest. The kernel drops the lock with the process, so none is ever stale."""
        deadline = time.monotonic() + timeout
        with explained(self._lock, "take the lock"):
            while (fd := self._acquire(deadline, timeout)) is None:
                pass
        try:
            os.ftruncate(fd, 0)
            since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
            os.pwrite(fd, f"process {os.getpid()}, since {since}".encode(), 0)
            yield
        finally:
            os.close(fd)

    def _acquire(self, deadline: float, timeout: float) -> int | None:
        """The locked descriptor; None when the lock file was removed by who held it before."""
        fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            self._wait(fd, deadline, timeout)
            if os.path.exists(self._lock) and os.path.samestat(os.fstat(fd), os.stat(self._lock)):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return None

    def _wait(self, fd: int, deadline: float, timeout: float) -> None:
        while not _try_lock(fd):
            if time.monotonic() >= deadline:
                holder = os.pread(fd, 200, 0).decode("utf-8", "replace") or "unknown"
                message = f"another run is shipping to it ({holder}), still after {timeout:g} s"
                raise failure(self.dest, "deploy-running", message, "Wait for it to end, or raise lock_timeout")
            time.sleep(_POLL)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        # a file system without locks: better to ship than to refuse
    return True
