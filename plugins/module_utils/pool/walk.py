# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Going down directories, and putting and removing what is in them, from an open one. No link is followed."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

OURS = "module-"
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PASS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HOUR = 3600.0
_IN_THE_WAY = (errno.ENOTDIR, errno.ELOOP)


class HostPath(NamedTuple):
    """A path on this machine. `mount` is what the operator or the engine has named, and may be a link; `inside` is
    below it, where containers write: a link there leads wherever one of them likes."""

    mount: str
    inside: str = ""

    def __str__(self) -> str:
        return os.path.join(self.mount, self.inside) if self.inside else self.mount

    @property
    def parts(self) -> list[str]:
        return self.inside.split("/") if self.inside else []

    def link(self) -> str:
        """The first link on the way down, '' when there is none."""
        at = self.mount
        for part in self.parts:
            at = os.path.join(at, part)
            if os.path.islink(at):
                return at
        return ""


def descend(mount: str, parts: Sequence[str]) -> int:
    """The directory `parts` below `mount`, open."""
    fd = os.open(mount, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in parts:
        try:
            below = os.open(part, DIRECTORY, dir_fd=fd)
        finally:
            os.close(fd)
        fd = below
    return fd


def remove(at: int, name: str) -> None:
    """Removes `name`, a directory with all that is in it, or anything else. Directories below are renamed up beside it
    first: however deeply somebody has nested them, two descriptors are enough."""
    todo = [name]
    while todo:
        current = todo.pop()
        try:
            fd = os.open(current, DIRECTORY, dir_fd=at)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno not in _IN_THE_WAY:
                raise
            os.unlink(current, dir_fd=at)
            continue
        try:
            for entry in list(_entries(fd)):
                if entry.is_dir(follow_symlinks=False):
                    below = new_name()
                    os.rename(entry.name, below, src_dir_fd=fd, dst_dir_fd=at)
                    todo.append(below)
                else:
                    os.unlink(entry.name, dir_fd=fd)
        finally:
            os.close(fd)
        os.rmdir(current, dir_fd=at)


def _entries(fd: int) -> list[os.DirEntry[str]]:
    with os.scandir(fd) as entries:
        return list(entries)


@contextmanager
def walk(fd: int, parts: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """Goes down `parts` as far as there are directories: how many there were, the last one open, and what is in the
    way of the next."""
    at, depth, blocked = fd, 0, ""
    try:
        for part in parts:
            try:
                below = os.open(part, _PASS, dir_fd=at)
            except FileNotFoundError:
                break
            except OSError as error:
                kind = "is no directory" if error.errno in _IN_THE_WAY else f"cannot be opened ({error.strerror})"
                blocked = f"{'/'.join(parts[: depth + 1])} {kind}"
                break
            if at != fd:
                os.close(at)
            at = below
            depth += 1
        yield depth, at, blocked
    finally:
        if at != fd:
            os.close(at)


def marked(at: int, marker: str) -> tuple[bool, str]:
    """Whether the marker is there: a directory or a file that is not empty. Beside it what is in its way."""
    try:
        about = os.stat(marker, dir_fd=at, follow_symlinks=False)
        if stat.S_ISDIR(about.st_mode) or stat.S_ISREG(about.st_mode):
            return holds_something(at, marker), ""
    except FileNotFoundError:
        return False, ""
    except OSError as error:
        return False, f"{marker} cannot be read ({error.strerror})"
    return False, f"{marker} is neither a directory nor a file"


def holds_something(at: int, name: str) -> bool:
    try:
        about = os.stat(name, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError:
        return False
    if stat.S_ISREG(about.st_mode):
        return about.st_size > 0
    if not stat.S_ISDIR(about.st_mode):
        return True
    fd = os.open(name, DIRECTORY, dir_fd=at)
    try:
        with os.scandir(fd) as entries:
            return next(entries, None) is not None
    finally:
        os.close(fd)


def put(scratch: int, built: str, at: int, entry: str, is_directory: bool) -> None:
    """Gives what was built its name. Nothing that has come there meanwhile and holds something is overwritten."""
    _drop_empty(at, entry, is_directory)
    if not is_directory:  # a directory takes no other's place that holds something, a file takes any other's
        try:
            os.link(built, entry, src_dir_fd=scratch, dst_dir_fd=at, follow_symlinks=False)
        except OSError:  # something is there; or a file system without hard links
            if holds_something(at, entry):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), entry) from None
        else:
            os.unlink(built, dir_fd=scratch)
            return
    os.rename(built, entry, src_dir_fd=scratch, dst_dir_fd=at)


def sync(folder: int) -> None:
    """Has it on the disk which entry bears which name; some file systems cannot do that for a directory."""
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


def is_text(name: str) -> bool:
    return not any("\udc80" <= letter <= "\udcff" for letter in name)


def _drop_empty(at: int, entry: str, is_directory: bool) -> None:
    """What holds nothing, and is of the other kind, would keep it from its place."""
    with suppress(FileNotFoundError):
        about = os.stat(entry, dir_fd=at, follow_symlinks=False)
        if stat.S_ISDIR(about.st_mode) and not is_directory:
            os.rmdir(entry, dir_fd=at)
        elif stat.S_ISREG(about.st_mode) and is_directory and not about.st_size:
            os.unlink(entry, dir_fd=at)


def is_old(at: int, name: str) -> bool:
    try:
        return time.time() - os.stat(name, dir_fd=at, follow_symlinks=False).st_mtime > _HOUR
    except OSError:
        return False


def new_name() -> str:
    return f"{OURS}{secrets.token_hex(8)}"


def new_file(at: int, name: str, mode: int) -> int:
    """Open for writing; raises when something has that name."""
    return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=at)


def write(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
