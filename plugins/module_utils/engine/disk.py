# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files that services mount, as they are on the disk now, and as a running container sees them.

Only regular files: what lies in a mounted directory belongs to the application. Only where the engine is on this
machine: elsewhere the paths mean nothing here.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass

from .model import FileMount, Service

_PIECE = 1 << 20
# A file of this size is data: reading it on every run would cost more than its change could matter.
_TOO_LARGE = 64 << 20
_SNIFFED = 8192


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
    try:
        with open(mount.source, "rb") as stream:
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > _TOO_LARGE:
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


def inside(pid: int, target: str) -> tuple[int, int] | None:
    """(device, inode) of `target` as the container with main process `pid` sees it; None when that cannot be told."""
    try:
        status = os.stat(f"/proc/{pid}/root{target}")
    except OSError:
        return None
    return (status.st_dev, status.st_ino)
