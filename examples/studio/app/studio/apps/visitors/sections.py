# SPDX-License-Identifier: GPL-3.0-or-later
"""The sections of a manuscript: files in one directory, by names that cannot lead out of it.

The directory is opened before the lease is looked at, and everything is done through that descriptor. If the slot is
cleaned in between, the descriptor stays with the old directory: nobody ever reads or writes the next visitor's files.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from . import disk
from .limits import PROJECT, SECTION, SECTIONS, WORKSPACE

READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
SUFFIX = ".tex"
NEW = ".new-"


@contextmanager
def opened(owner: str) -> Iterator[int]:
    """The directory of the sections in an account's workspace."""
    with disk.opened(owner, PROJECT, *WORKSPACE, *SECTIONS) as folder:
        yield folder


def names(folder: int) -> list[str]:
    found = (name.removesuffix(SUFFIX) for name in os.listdir(folder) if name.endswith(SUFFIX))
    return sorted(name for name in found if SECTION.fullmatch(name))


def read(folder: int, name: str) -> str:
    with open(os.open(_file(name), READ, dir_fd=folder), encoding="utf-8", errors="replace") as file:
        return file.read()


def write(folder: int, texts: Mapping[str, str], saved: list[str]) -> None:
    """A reader finds the old text or the new one, whole; and a full disk leaves all of the old ones, because every new
    file is written before the first takes its place. `saved` gets the names of those that did."""
    _sweep(folder)
    new: dict[str, str] = {}
    try:
        for name, text in texts.items():
            new[name] = f"{NEW}{secrets.token_hex(4)}"
            _write_beside(folder, _file(name), new[name], text)
        for name in texts:
            os.rename(new[name], _file(name), src_dir_fd=folder, dst_dir_fd=folder)
            del new[name]
            saved.append(name)
    finally:
        for left in new.values():
            with suppress(OSError):
                os.unlink(left, dir_fd=folder)


def _sweep(folder: int, seconds: float = 3600) -> None:
    """Deletes what a save that was killed has left: no living one takes so long."""
    for name in os.listdir(folder):
        if name.startswith(NEW):
            with suppress(OSError):
                if time.time() - os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime > seconds:
                    os.unlink(name, dir_fd=folder)


def _write_beside(folder: int, file: str, new: str, text: str) -> None:
    mode = os.stat(file, dir_fd=folder, follow_symlinks=False).st_mode & 0o777
    with open(os.open(new, CREATE, mode, dir_fd=folder), "w", encoding="utf-8", newline="\n") as target:
        target.write(text)
        target.flush()
        os.fsync(target.fileno())


def _file(name: str) -> str:
    if not SECTION.fullmatch(name):
        raise ValueError(f"{name!r} is no section's name")
    return f"{name}{SUFFIX}"
