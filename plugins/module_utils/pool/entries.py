# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Putting and removing what is in an open directory. No link is followed."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import suppress

from .walk import DIRECTORY, IN_THE_WAY, OURS, holds_something


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
            if error.errno not in IN_THE_WAY:
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


def _drop_empty(at: int, entry: str, is_directory: bool) -> None:
    """What holds nothing, and is of the other kind, would keep it from its place."""
    with suppress(FileNotFoundError):
        about = os.stat(entry, dir_fd=at, follow_symlinks=False)
        if stat.S_ISDIR(about.st_mode) and not is_directory:
            os.rmdir(entry, dir_fd=at)
        elif stat.S_ISREG(about.st_mode) and is_directory and not about.st_size:
            os.unlink(entry, dir_fd=at)


def new_name() -> str:
    return f"{OURS}{secrets.token_hex(8)}"


def new_file(at: int, name: str, mode: int) -> int:
    """Open for writing; raises when something has that name."""
    return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=at)


def write(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def sync(folder: int) -> None:
    """Has it on the disk which entry bears which name; some file systems cannot do that for a directory."""
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
