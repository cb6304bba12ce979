# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files that services mount, as they are on the disk now, and as a running container sees them.

Only regular files: what lies in a mounted directory belongs to the application. Only where the engine is on this
machine: elsewhere the paths mean nothing here.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

from .model import FileMount, Project, Service, staged_of

_PIECE = 1 << 20
# A file of this size is data: reading it on every run would cost more than its change could matter.
_TOO_LARGE = 64 << 20
_SNIFFED = 8192
_LARGEST_SECRET = 4096


@dataclass(frozen=True)
class MountedFile:
    """One mounted file on the disk. `prefix` is the digest of its first `prefix_size` bytes, as long as it was once."""

    mount: FileMount
    digest: str
    size: int
    inode: tuple[int, int]
    binary: bool
    prefix: str = ""


def read(service: Service, sizes: Mapping[str, int]) -> dict[str, MountedFile]:
    """The service's mounted files by target; `sizes` says how long each was when it was mounted. Unreadable ones and
    those that do not exist are left out: Compose or the engine will say what is wrong with them."""
    found = {}
    for mount in service.file_mounts:
        entry = _read(mount, sizes.get(mount.target, 0))
        if entry is not None:
            found[mount.target] = entry
    return found


def _read(mount: FileMount, prefix_size: int) -> MountedFile | None:
    """The file as it is, or as it is going to be where that is another content: only then is it replaced."""
    there = _read_at(mount.source, mount, prefix_size)
    coming = _read_at(mount.staged, mount, prefix_size) if mount.staged else None
    return there if coming is None or (there is not None and there.digest == coming.digest) else coming


def _read_at(path: str, mount: FileMount, prefix_size: int) -> MountedFile | None:
    try:
        with open_regular(path) as stream:
            status = os.fstat(stream.fileno())
            if status.st_size > _TOO_LARGE:
                return None
            whole, prefix, binary, done = hashlib.sha256(), "", False, 0
            while piece := stream.read(min(_PIECE, prefix_size - done) if done < prefix_size else _PIECE):
                binary = binary or (done < _SNIFFED and b"\0" in piece[:_SNIFFED])
                whole.update(piece)
                done += len(piece)
                if done == prefix_size:
                    prefix = whole.hexdigest()
    except OSError:
        return None
    return MountedFile(mount, whole.hexdigest(), done, (status.st_dev, status.st_ino), binary, prefix)


def secret_texts(project: Project) -> set[str]:
    """What the secrets of `project` that are files hold: an application may well print it."""
    paths = [entry["file"] for entry in project.secrets.values() if entry.get("file")]
    staged = staged_of(project.document)
    paths += [staged.place(path) for path in paths] if staged else []
    return {text for text in map(_secret_text, paths) if text}


def _secret_text(path: str) -> str:
    try:
        with open_regular(path) as stream:
            return stream.read(_LARGEST_SECRET).decode("utf-8", "replace").strip()
    except OSError:
        return ""  # Compose will have something to say about it


def open_regular(path: str) -> BinaryIO:
    """Opens a regular file; raises OSError for anything else. A pipe or device is not waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return os.fdopen(descriptor, "rb")


def inside(pid: int, target: str) -> tuple[int, int] | None:
    """(device, inode) of `target` as the container with main process `pid` sees it; None when that cannot be told."""
    path = f"/proc/{pid}/root"
    for part in target.strip("/").split("/"):
        path = f"{path}/{part}"
        if os.path.islink(path):
            return None  # an absolute link in there would be followed on the host, to another file
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino)
