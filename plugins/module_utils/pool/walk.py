# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Going down directories from an open one, and looking at what is in them. No link is followed."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

OURS = "module-"
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PASS = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HOUR = 3600.0
IN_THE_WAY = (errno.ENOTDIR, errno.ELOOP)


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
                kind = "is no directory" if error.errno in IN_THE_WAY else f"cannot be opened ({error.strerror})"
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


def is_text(name: str) -> bool:
    return not any("\udc80" <= letter <= "\udcff" for letter in name)


def is_old(at: int, name: str) -> bool:
    try:
        return time.time() - os.stat(name, dir_fd=at, follow_symlinks=False).st_mtime > _HOUR
    except OSError:
        return False
