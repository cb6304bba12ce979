# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a container holds inside: files that its image was built with, and what has changed in its writable layer."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Sequence
from typing import Any

from .connection import Connection, EngineRefusedError
from .disk import open_regular
from .look import BakedState, Wanted, opens_quietly
from .observed import Observed

# Links within a container that are followed before it counts as a circle.
_MOST_LINKS = 8


def read(connection: Connection, found: Sequence[Observed], wanted: Wanted) -> dict[str, Any]:
    """The fields `changes` and `baked` of a Look."""
    sources = {source: _digest_on_disk(source) for _dummy, _dummy, source in wanted.baked}
    changes: dict[str, tuple[str, ...]] = {}
    baked: dict[str, tuple[BakedState, ...]] = {}
    for at in found:
        paths = wanted.watched.get(at.service, ())
        if paths:
            changes[at.id] = changed_below(connection.get(f"/containers/{at.id}/changes") or [], paths, _mounted(at))
        own = [(path, source) for service, path, source in wanted.baked if service == at.service]
        if own and opens_quietly(connection, at):
            baked[at.id] = tuple(
                BakedState(path, sources[source], digest_inside(connection, at.id, path)) for path, source in own
            )
    return {"changes": changes, "baked": baked}


def changed_below(
    changes: Sequence[dict[str, Any]], paths: Sequence[str], mounted: Sequence[str] = ()
) -> tuple[str, ...]:
    """The changed paths that are one of `paths` or lie below it. Pure.

    The engine makes the points that it mounts something at (`mounted`) in the same layer, and the way to them.
    """
    roots = [path.rstrip("/") for path in paths]
    return tuple(
        entry["Path"]
        for entry in changes
        if any(f"{entry['Path']}/".startswith(f"{root}/") for root in roots)
        and not any(f"{target}/".startswith(f"{entry['Path']}/") for target in mounted)
    )


def _mounted(container: Observed) -> list[str]:
    targets = [mount["Destination"] for mount in container.raw.get("Mounts") or []]
    return [*targets, *(container.raw["HostConfig"].get("Tmpfs") or {})]


def digest_inside(connection: Connection, container_id: str, path: str) -> str | None:
    """SHA-256 of a file in a container, running or not; None when there is no such file."""
    for _dummy in range(_MOST_LINKS):
        try:
            archive = connection.get_bytes(f"/containers/{container_id}/archive", path=path)
        except EngineRefusedError as refused:
            if refused.status == 404:
                return None
            raise
        with tarfile.open(fileobj=io.BytesIO(archive)) as entries:
            entry = entries.next()
            if entry is None or entry.isdir():
                return None
            if not entry.issym():
                stream = entries.extractfile(entry)
                return hashlib.sha256(stream.read()).hexdigest() if stream else None
            path = entry.linkname if entry.linkname.startswith("/") else f"{path.rpartition('/')[0]}/{entry.linkname}"
    return None


def _digest_on_disk(path: str) -> str | None:
    try:
        with open_regular(path) as stream:
            return hashlib.sha256(stream.read()).hexdigest()
    except OSError:
        return None
