# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The observed state: what the engine holds of a project. One list, then one inspect a container, side by side."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ..report.finding import failure
from . import disk, history
from .connection import Connection, EngineRefusedError, path_segment
from .disk import MountedFile
from .history import History
from .model import Project
from .observed import Observed, containers, or_none, side_by_side

_DONE = "/.shipshape-done"


@dataclass(frozen=True)
class BakedState:
    """A file that an image was built with: the digests of its source in the project and of what the container holds."""

    path: str
    source: str | None
    found: str | None


@dataclass(frozen=True)
class Wanted:
    """What to look at beyond what every look sees: options `baked_files` (service, path inside, source on the target)
    and `watch_paths` (service to paths inside)."""

    baked: tuple[tuple[str, str, str], ...] = ()
    watched: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Look:
    """Everything of a project in the engine at one moment. `images` maps a reference to the id it means now."""

    containers: tuple[Observed, ...] = ()
    images: Mapping[str, str] = field(default_factory=dict)
    image_volumes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    networks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # by name: everybody's
    volumes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    builds: Mapping[str, str] = field(default_factory=dict)  # by service: digest of what its image is built from
    known: History = field(default_factory=History)
    # Below: empty where the engine is not on this machine, or where nothing of that kind was asked for.
    files: Mapping[str, Mapping[str, MountedFile]] = field(default_factory=dict)  # by service and target
    inside: Mapping[str, Mapping[str, tuple[int, int]]] = field(default_factory=dict)  # by container and target
    changes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # watched paths that changed, by container
    baked: Mapping[str, tuple[BakedState, ...]] = field(default_factory=dict)  # by container
    done: frozenset[str] = frozenset()  # containers that were seen to end by themselves, with exit code 0
    taken: float = 0.0  # when, in seconds since the epoch

    def of(self, service: str) -> list[Observed]:
        return [container for container in self.containers if container.service == service]


def look(connection: Connection, project: Project, wanted: Wanted = Wanted()) -> Look:
    """All that deciding needs, read side by side."""
    connection.agree()
    with ThreadPoolExecutor(3) as readers:
        awaited = readers.submit(containers, connection, project.name)
        networks = readers.submit(_by_name, connection, "/networks")
        volumes = readers.submit(_by_name, connection, "/volumes")
        users = {service.image: service.name for service in project.services.values()}
        references = sorted(users)
        documents = side_by_side(lambda name: image(connection, name, users[name]), references)
        images = {name: document for name, document in zip(references, documents) if document is not None}
        found = awaited.result()
        local = connection.local
        return Look(
            containers=found,
            images={name: document["Id"] for name, document in images.items()},
            image_volumes={name: _declared_volumes(document) for name, document in images.items()},
            networks=networks.result(),
            volumes=volumes.result(),
            files=_files(project, found) if local else {},
            inside=_inside(project, found) if local else {},
            builds=_builds(project),
            known=history.read(connection.endpoint.host, project.name),
            **_layers(connection, found, wanted),
            done=frozenset(at.id for at in found if at.ended_well and is_done(connection, at)),
            taken=time.time(),
        )


def opens_quietly(connection: Connection, container: Observed) -> bool:
    """Whether files of the container can be read without a trace on the host.

    To read in one that does not run the engine mounts what belongs in there, and makes a directory wherever the source
    of a mount is missing: where a file should lie the next deploy would find a directory in its way."""
    if container.state.get("Pid") or not connection.local:
        return True
    mounts = container.raw.get("Mounts") or ()
    return not any(mount.get("Type") == "bind" and _is_missing(mount["Source"]) for mount in mounts)


def _is_missing(path: str) -> bool:
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False  # not ours to look at, and no sign that nothing is there
    return False


def is_done(connection: Connection, container: Observed) -> bool:
    """Whether this very end of the container was seen to be its own doing (see mark_done)."""
    if not opens_quietly(connection, container):
        return False
    try:
        archive = connection.get_bytes(f"/containers/{container.id}/archive", path=_DONE)
    except EngineRefusedError:
        return False
    return container.finished_at.encode() in archive


def mark_done(connection: Connection, container: Observed) -> None:
    """Remembers in the container itself that it ended by itself, and when. Where nothing can be written (a read-only
    root) it counts as stopped at the next look, and is started again, as Compose would."""
    text = container.finished_at.encode()
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo(_DONE.lstrip("/"))
        entry.size, entry.mode = len(text), 0o444
        archive.addfile(entry, io.BytesIO(text))
    with suppress(EngineRefusedError):
        connection.put(f"/containers/{container.id}/archive", stream.getvalue(), path="/")


def _builds(project: Project) -> dict[str, str]:
    """Wherever the engine is: Compose reads build contexts here."""
    building = [service for service in project.services.values() if service.builds]
    if not building:
        return {}
    from .context import build_digest

    return {service.name: build_digest(service) for service in building}


def _files(project: Project, found: Iterable[Observed]) -> dict[str, dict[str, MountedFile]]:
    sizes: dict[str, dict[str, int]] = {}
    for at in found:
        applied = at.applied
        if applied is not None:
            sizes[at.service] = {target: size for target, (_dummy, size) in applied.files.items()}
    mounting = [service for service in project.services.values() if service.file_mounts]
    return {service.name: disk.read(service, sizes.get(service.name, {})) for service in mounting}


def _inside(project: Project, found: Iterable[Observed]) -> dict[str, dict[str, tuple[int, int]]]:
    """Which file a running container has under each target: one replaced by a rename stays the old one in there."""
    seen: dict[str, dict[str, tuple[int, int]]] = {}
    for at in found:
        service, pid = project.services.get(at.service), int(at.state.get("Pid") or 0)
        if service is None or not pid:
            continue
        inodes = {mount.target: disk.inside(pid, mount.target) for mount in service.file_mounts}
        seen[at.id] = {target: inode for target, inode in inodes.items() if inode is not None}
    return seen


def _layers(connection: Connection, found: Iterable[Observed], wanted: Wanted) -> dict[str, Any]:
    if not (wanted.baked or wanted.watched):
        return {}
    from . import layers

    return layers.read(connection, list(found), wanted)


def image(connection: Connection, reference: str, service: str) -> Mapping[str, Any] | None:
    """What `reference` means in the engine now; None when it holds no such image. `service` uses it."""
    try:
        document: Mapping[str, Any] | None = or_none(connection, f"/images/{path_segment(reference)}/json")
    except EngineRefusedError as refused:
        if refused.status != 400:
            raise
        what = f"its image {reference!r} is not a name that an image can have"
        remedy = "Names are lower-case: [host[:port]/]path[:tag][@digest]"
        raise failure(service, "image-name-invalid", what, remedy) from refused
    return document


def _declared_volumes(document: Mapping[str, Any]) -> frozenset[str]:
    return frozenset((document.get("Config") or {}).get("Volumes") or ())


def _by_name(connection: Connection, path: str) -> dict[str, Mapping[str, Any]]:
    """Networks or volumes: all of them, for one of somebody else's under a wanted name is there as well."""
    answer = connection.get(path)
    entries = answer.get("Volumes") or [] if isinstance(answer, Mapping) else answer
    return {entry["Name"]: entry for entry in entries}
