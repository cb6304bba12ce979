# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a container has changed of its image's files.

The engine may walk the whole image to answer that, most of a second for a container with a Python environment. Where it
is on this machine and keeps its layers with overlay2, the container's own layer is a directory that holds nothing else.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Any

from .connection import Connection
from .observed import Observed

# A container that has written more than this into its layer: walking there would be no faster than asking.
_MOST = 20_000
_CHANGED, _REPLACED, _REMOVED = 0, 1, 2
# How the kernel marks a directory whose lower one is hidden, or lies elsewhere; `user.` without a privileged engine.
_MARKS = tuple(f"{space}.overlay.{mark}" for space in ("trusted", "user") for mark in ("opaque", "redirect"))


def changes(connection: Connection, container: Observed) -> list[dict[str, Any]]:
    """As the engine tells them: `Path`, and `Kind` (0 changed, 1 added or replaced, 2 removed)."""
    layer = ((container.raw.get("GraphDriver") or {}).get("Data") or {}).get("UpperDir")
    if layer and (container.raw["GraphDriver"].get("Name") == "overlay2") and os.access(layer, os.R_OK | os.X_OK):
        found = _listed(layer)
        if found is not None:
            return found
    return connection.get(f"/containers/{container.id}/changes") or []


def _listed(layer: str) -> list[dict[str, Any]] | None:
    """What is in `layer`; None when it cannot be told from there."""
    found = []
    try:
        for entry in _walk(layer):
            found.append({"Path": entry.path[len(layer) :], "Kind": _kind(entry)})
            if len(found) > _MOST:
                return None
    except OSError:  # it goes on writing while we look
        return None
    return found


def _walk(directory: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(directory) as entries:
        for entry in entries:
            yield entry
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path)


def _kind(entry: os.DirEntry[str]) -> int:
    if entry.is_dir(follow_symlinks=False):
        marks = os.listxattr(entry.path, follow_symlinks=False)
        return _REPLACED if any(mark in _MARKS for mark in marks) else _CHANGED
    status = entry.stat(follow_symlinks=False)
    return _REMOVED if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0 else _CHANGED
