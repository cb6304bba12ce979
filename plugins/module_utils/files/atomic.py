# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one atomic writer: a file arrives whole or not at all, and nothing half-made stays behind.

    pending = prepare("/srv/app/check.sh", stream, Attributes(mode=0o755))
    pending.commit()                        # or pending.discard()

The temporary lies beside its destination, is exclusive and 0600, and is written, fsynced, closed, read back from
disk and compared before it gets its attributes and takes the destination's name. Killed in between, the old file
is whole, and `sweep` of the next run removes the temporary (see `leftovers`).

What an existing file hands on: mode, owner and group where `Attributes` names none, ACL, SELinux context, user.*
extended attributes. Not: capabilities, times, and other hard links, which keep the old content.
A symbolic link stays a link: the file that it points to is replaced, in that file's own directory.

`write` sweeps, prepares, commits and syncs. Who writes many files calls `sweep` once a directory, `prepare` for
each, `commit(sync=False)` for each, and `sync_directories` once. A Pending keeps one descriptor open until then.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

from ..report.finding import failure
from .attributes import KEEP, Attributes, apply, label_new, resolve
from .leftovers import claim, sweep, temporary_name
from .problems import explained, immutable, locked_by_attribute

__all__ = [
    "KEEP",
    "Attributes",
    "Pending",
    "Readable",
    "checksum",
    "locate",
    "prepare",
    "sweep",
    "sync_directories",
    "write",
]

CHUNK = 1024 * 1024
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# A directory that may be written but not read cannot be opened to be synced, some file systems sync none.
_NOT_SYNCABLE = (errno.EACCES, errno.EINVAL, errno.EBADF, errno.EOPNOTSUPP)


class Readable(Protocol):
    """What a source must be able to do, as every binary file can."""

    def read(self, size: int, /) -> bytes: ...


@dataclass
class Pending:
    """A complete, verified, closed temporary beside its destination, not yet renamed.

    `dest` is the destination as asked for, `target` the file that is replaced (another one when dest is a symbolic
    link), `path` the temporary. As a context manager it discards what was not committed.
    """

    dest: str
    target: str
    path: str
    sha256: str
    _holder: int = field(repr=False)

    def commit(self, *, sync: bool = True) -> None:
        """Takes the destination's place. `sync=False` leaves the directory's fsync to `sync_directories`."""
        try:
            with explained(self.dest, "put the new file in place"):
                os.rename(self.path, self.target)
        except BaseException:
            self.discard()
            raise
        self._release()
        if sync:
            sync_directories([self.target])

    def discard(self) -> None:
        """Removes the temporary. Does nothing after a commit."""
        if self._holder >= 0:
            with suppress(OSError):
                os.unlink(self.path)
            self._release()

    def _release(self) -> None:
        holder, self._holder = self._holder, -1
        if holder >= 0:
            os.close(holder)

    def __enter__(self) -> Pending:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()


def prepare(
    dest: str, source: bytes | Readable, attributes: Attributes = KEEP, *, expected_sha256: str | None = None
) -> Pending:
    """Writes `source` to a temporary beside `dest`, verified, with its final attributes.

    `expected_sha256` is what the content must have: anything else that arrives is refused (`content-corrupt`).
    """
    with explained(dest, "look at the destination"):
        target, old = locate(dest)
        wanted = resolve(dest, attributes, old)
        if old is not None and locked_by_attribute(target):
            raise immutable(target)  # before anything is written: the rename would only fail in the end
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    with explained(dest, "write the new file"):
        path, writer, holder = _create(target)
    try:
        with explained(dest, "write the new file"):
            sent = _fill(writer, stream)
            _compare(dest, expected_sha256, sent, "content-corrupt", "the content that arrived is not what was sent")
            _compare(dest, sent, _read_back(holder), "disk-corrupt", "the disk returns other content than was written")
        with explained(dest, "set owner, mode and attributes"):
            if old is None:
                label_new(holder, target)
            apply(holder, wanted, target if old else None)
    except BaseException:
        Pending(dest, target, path, "", holder).discard()
        raise
    return Pending(dest, target, path, sent, holder)


def write(
    dest: str, source: bytes | Readable, attributes: Attributes = KEEP, *, expected_sha256: str | None = None
) -> None:
    """The whole for one file, with what an earlier, killed run left in the directory swept away first."""
    with explained(dest, "look at the destination"):
        target, _old = locate(dest)
    sweep(os.path.dirname(target) or ".")
    prepare(dest, source, attributes, expected_sha256=expected_sha256).commit()


def sync_directories(paths: Iterable[str]) -> None:
    """Makes renames durable: one fsync for each directory that holds some of `paths` (files)."""
    for directory in sorted({os.path.dirname(path) or "." for path in paths}):
        with explained(directory, "make the change durable"):
            try:
                fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
            except OSError as error:
                if error.errno not in _NOT_SYNCABLE:
                    raise


def checksum(path: str) -> str | None:
    """The file's SHA-256, read piecewise; None when there is none at `path`."""
    with explained(path, "read the file"):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            return _digest(fd)
        finally:
            os.close(fd)


def locate(dest: str) -> tuple[str, os.stat_result | None]:
    """The file that a write to `dest` replaces (links followed), and its status when it exists."""
    if "\0" in dest or os.path.basename(dest) in ("", ".", ".."):
        raise failure(dest, "invalid-name", "this does not name a file", "Give dest a path that ends in a file name")
    try:
        info = os.lstat(dest)
    except FileNotFoundError:
        return dest, None
    target = dest
    if stat.S_ISLNK(info.st_mode):
        target = os.path.realpath(dest)
        try:
            info = os.stat(target)
        except FileNotFoundError:
            message = f"the destination is a symbolic link to {os.readlink(dest)}, which does not exist"
            raise failure(dest, "dangling-link", message, "Remove the link, or create the file it points to") from None
    if stat.S_ISDIR(info.st_mode):
        raise failure(dest, "destination-is-directory", "the destination is a directory", "Name a file in dest")
    if not stat.S_ISREG(info.st_mode):
        raise failure(dest, "destination-not-a-file", "the destination is not a regular file", "Correct dest")
    return target, info


def _create(target: str) -> tuple[str, int, int]:
    """A new, locked temporary beside `target`: its path, the descriptor to write to, the one that holds the lock."""
    directory, name = os.path.split(target)
    while True:
        path = os.path.join(directory, temporary_name(name))
        try:
            writer = os.open(path, _CREATE, 0o600)
        except FileExistsError:
            continue
        except OSError as error:
            if error.errno == errno.EMFILE and _allow_more_files():
                continue
            raise
        try:
            holder = claim(path, writer)
        except BaseException as error:
            os.close(writer)
            with suppress(OSError):
                os.unlink(path)
            if isinstance(error, OSError) and error.errno == errno.EMFILE and _allow_more_files():
                continue
            raise
        if holder is not None:
            return path, writer, holder
        os.close(writer)


def _allow_more_files() -> bool:
    """Raises the soft limit of open files to the hard one; False when it was there already."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return False
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return True


def _fill(writer: int, stream: Readable) -> str:
    """Writes all of `stream`, through to the disk, closes `writer`, and returns the SHA-256 of what was written."""
    digest = hashlib.sha256()
    try:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            rest = memoryview(chunk)
            while rest:
                rest = rest[os.write(writer, rest) :]
        os.fsync(writer)
    finally:
        os.close(writer)
    return digest.hexdigest()


def _read_back(fd: int) -> str:
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # else we would hash memory and not the disk
    return _digest(fd)


def _digest(fd: int) -> str:
    digest = hashlib.sha256()
    while chunk := os.read(fd, CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def _compare(dest: str, wanted: str | None, found: str, code: str, message: str) -> None:
    if wanted is not None and wanted != found:
        detail = f"{message} (SHA-256 {found[:12]}… instead of {wanted[:12]}…)"
        raise failure(dest, code, detail, "Run again; if it happens again, check disk and memory of the machine")
