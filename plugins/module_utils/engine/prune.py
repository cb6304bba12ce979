# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which old images of a project may go: nothing refers to them, and enough that ran well are left."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..report.finding import INFO, Finding
from ..report.result import Report
from .connection import Connection, EngineRefusedError, path_segment
from .history import History
from .model import Project
from .observed import LABEL_PROJECT
from .successor import LABEL_SERVICE

_NO_NAME = "<none>:<none>"


@dataclass(frozen=True)
class Held:
    """One image of the engine. `names` are its tags; `users`: somebody runs it, has it stopped, or was built on it."""

    id: str
    names: tuple[str, ...] = ()
    labels: Mapping[str, str] | None = None
    created: int = 0
    used: bool = False


def held_images(connection: Connection) -> list[Held]:
    """All images, and which of them are in use by whatever container, of whatever project."""
    listed = connection.get("/images/json")
    containers = connection.get("/containers/json", all="1")
    used = {entry["ImageID"] for entry in containers} | {entry.get("ParentId") for entry in listed}
    return [
        Held(
            entry["Id"],
            tuple(name for name in entry.get("RepoTags") or () if name != _NO_NAME),
            entry.get("Labels") or {},
            int(entry.get("Created") or 0),
            entry["Id"] in used,
        )
        for entry in listed
    ]


def prunable(held: Sequence[Held], project: Project, current: Iterable[str], known: History, keep: int) -> list[Held]:
    """The images that may go, oldest first. `current`: the ids that the project's image names mean now. Pure.

    Which belong to the project: those that bear its label because Compose built them, and those that it is known to
    have run. Of each service the last `keep` that ran well stay; where fewer are known, the youngest others as well.
    """
    repositories = {repository(service.image) for service in project.services.values()}
    owners: dict[str, set[str]] = {}
    for image in held:
        labels = image.labels or {}
        if labels.get(LABEL_PROJECT) == project.name:
            owners.setdefault(labels.get(LABEL_SERVICE, ""), set()).add(image.id)
    for service, order in known.ran.items():
        owners.setdefault(service, set()).update(order)
    there = {image.id: image for image in held}
    kept = set(current)
    for service, ids in owners.items():
        ran = [image_id for image_id in known.ran.get(service, ()) if image_id in there]
        others = sorted((image_id for image_id in ids if image_id in there and image_id not in ran), key=_age(there))
        kept.update([*others, *ran][-keep:] if keep else [])
    ours = {image_id for ids in owners.values() for image_id in ids}
    return sorted(
        (
            image
            for image in held
            if image.id in ours
            and image.id not in kept
            and not image.used
            and all(repository(name) in repositories for name in image.names)
        ),
        key=lambda image: (image.created, image.id),
    )


def _age(there: Mapping[str, Held]) -> Any:
    return lambda image_id: (there[image_id].created, image_id)


def repository(name: str) -> str:
    """The name of an image without its tag or digest, as `docker images` lists it."""
    plain = name.partition("@")[0]
    head, _dummy, tail = plain.rpartition("/")
    plain = f"{head}/{tail.partition(':')[0]}".lstrip("/")
    for prefix in ("docker.io/library/", "index.docker.io/library/", "docker.io/"):
        if plain.startswith(prefix):
            return plain[len(prefix) :]
    return plain


def remove(connection: Connection, images: Iterable[Held], report: Report) -> list[str]:
    """Takes the images away; the ids of those that are gone. Never by force: what is in use after all stays."""
    gone = []
    for image in images:
        begun = time.monotonic()
        try:
            for name in image.names or (image.id,):
                connection.delete(f"/images/{path_segment(name)}")
        except EngineRefusedError as refused:
            if refused.status == 404:
                continue
            if refused.status != 409:
                raise
            what = f"{spoken(image)} is in use, and stays: {refused.findings[0].message}"
            report.add(Finding(INFO, "images", "image-in-use", what))
            continue
        report.done("remove", spoken(image), "nothing refers to it", time.monotonic() - begun)
        gone.append(image.id)
    return gone


def spoken(image: Held) -> str:
    short = image.id.rpartition(":")[2][:12]
    return f"image {', '.join(image.names)} ({short})" if image.names else f"image {short}"
