# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that images are built with: which of source, image and container holds an old one. Pure."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..report.finding import CRITICAL, INFO, WARNING, Finding
from .contents import Content
from .history import History

IMAGE = "image"
CONTAINER = "container"

# What a reader takes in; the rest is counted.
_MOST = 20

_REBUILD = "Build the image and replace the container: module stack with build: auto does both"
_REPLACE = "Replace the container (module stack, or docker compose up -d): a restart keeps the old one"


@dataclass(frozen=True)
class Baked:
    """A file of an image, and its source in the project. `declared`: the owner named it, and it has to be the same;
    `into`: the other place that it may have; `doubt`: a RUN that may change it; `script`: the image starts with it."""

    path: str
    source: str
    declared: bool = False
    into: str = ""
    text: bytes | None = None
    doubt: str = ""
    script: bool = False


@dataclass(frozen=True)
class Layers:
    """One file as it is in each layer. `hidden` names the mounts that containers see instead of their image's file."""

    file: Baked
    path: str
    source: Content | None
    image: Content | None
    containers: Mapping[str, Content | None] = field(default_factory=dict)
    hidden: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ServiceFiles:
    """All that was seen of one service. `image_id` is what its image's name means now, None when nothing; `current`:
    that image is known to be built from just the files that lie there now."""

    service: str
    image: str
    image_id: str | None
    files: tuple[Layers, ...] = ()
    containers: Mapping[str, str] = field(default_factory=dict)  # name to the id of its image
    current: bool = False
    builds: bool = False


@dataclass(frozen=True)
class Verdict:
    """`layers`: those that are stale. `altered`: the build makes something else of the file; `doubtful`: it may."""

    layers: tuple[str, ...] = ()
    stale_containers: tuple[str, ...] = ()
    altered: bool = False
    doubtful: bool = False


def judged(seen: Layers, at: ServiceFiles, known: History) -> Verdict:
    """Which layers of one file are stale."""
    if seen.source is None:
        return Verdict()
    differs = at.image_id is not None and not _same(seen.source, seen.image)
    pair = (seen.source.digest, seen.image.digest if seen.image else "")
    altered = differs and not seen.file.declared and (at.current or known.altered_to(at.service, seen.path) == pair)
    doubtful = differs and not altered and not seen.file.declared and bool(seen.file.doubt)
    # What the build makes of a file is what a container has to hold.
    wanted = seen.image if altered or doubtful else seen.source
    stale = tuple(
        name for name, content in seen.containers.items() if name not in seen.hidden and not _same(wanted, content)
    )
    layers = ((IMAGE,) if differs and not altered and not doubtful else ()) + ((CONTAINER,) if stale else ())
    return Verdict(layers, stale, altered, doubtful)


def _same(one: Content | None, other: Content | None) -> bool:
    return (one.digest if one else None) == (other.digest if other else None)


def findings(at: ServiceFiles, known: History, severity: str = CRITICAL) -> list[Finding]:
    """What is to be said about one service. `severity`: how bad a container is that lags behind its image."""
    found = []
    stale = [(seen, verdict) for seen in at.files if (verdict := judged(seen, at, known)).layers]
    # First what the container starts with: that one decides whether it runs at all.
    stale.sort(key=lambda entry: (not entry[0].file.script, IMAGE not in entry[1].layers, entry[0].path))
    for seen, verdict in stale[:_MOST]:
        found.append(_stale(seen, verdict, at, CRITICAL if IMAGE in verdict.layers else severity))
    if len(stale) > _MOST:
        what = f"{len(stale) - _MOST} more of its baked files are stale: see `stale` in this result"
        found.append(Finding(severity, at.service, "baked-file-stale", what, _REBUILD))
    for seen in at.files:
        found += _others(seen, judged(seen, at, known), at)
    if at.image_id is None:
        what = f"its image {at.image} is not on the engine: there is nothing to compare"
        how = "Build or pull it: state: present, or module stack"
        found.append(Finding(CRITICAL, at.service, "image-not-found", what, how))
    outdated = sorted(name for name, image in at.containers.items() if at.image_id and image != at.image_id)
    if outdated and not any(CONTAINER in verdict.layers for _dummy, verdict in stale):
        made = f"{_listed('container', outdated)} made from another image than {at.image} is now"
        what = f"{made}; the baked files are the same"
        found.append(Finding(WARNING, at.service, "container-outdated", what, _REPLACE))
    return found


def _stale(seen: Layers, verdict: Verdict, at: ServiceFiles, severity: str) -> Finding:
    where = [f"image {at.image}"] if IMAGE in verdict.layers else []
    where += [f"container {name}" for name in verdict.stale_containers]
    facts = [f"source {seen.file.source} has {_spoken(seen.source)}", f"the image {_spoken(seen.image)}"]
    facts += [f"container {name} {_spoken(seen.containers[name])}" for name in verdict.stale_containers]
    what = f"{seen.path} is stale in {' and in '.join(where)}: {', '.join(facts)}"
    how = _REPLACE
    if IMAGE in verdict.layers:
        how = _REBUILD if at.builds else "The project does not build this image: build and push it where it comes from"
        if seen.file.declared and at.current:
            how = "The image was built from these very files: see that its Dockerfile copies this one as it is"
    return Finding(severity, at.service, "baked-file-stale", what, how)


def _others(seen: Layers, verdict: Verdict, at: ServiceFiles) -> list[Finding]:
    """What else there is to say about one file."""
    found = []
    if seen.source is None:
        what = f"{seen.file.source}, the source of {seen.path}, does not exist on the target"
        how = "Check `src` in baked_files, and that the project has been brought there"
        found.append(Finding(CRITICAL, at.service, "baked-source-missing", what, how))
    if verdict.doubtful:
        what = f"{seen.path} differs from {seen.file.source}, which may be the work of {seen.file.doubt}"
        how = "Have it built once by state: present or by module stack: what comes of it is remembered"
        found.append(Finding(WARNING, at.service, "baked-file-doubtful", what, how))
    for name, target in seen.hidden.items():
        if seen.source is not None and not _same(seen.source, seen.containers.get(name)):
            what = f"{seen.path} in container {name} is what is mounted at {target}, and not {seen.file.source}"
            how = "Take that mount away, or bring what it holds up to date: no build changes it"
            found.append(Finding(WARNING, at.service, "baked-file-hidden", what, how))
    return found


def altered_files(at: ServiceFiles, known: History) -> dict[str, tuple[str, str]]:
    """What is to be remembered of files that the build itself alters, once an image is known to be current."""
    return {
        seen.path: (seen.source.digest, seen.image.digest if seen.image else "")
        for seen in at.files
        if seen.source is not None and judged(seen, at, known).altered
    }


def notes(service: str, skipped: Iterable[str]) -> list[Finding]:
    """What of a service's Dockerfile could not be followed."""
    told = list(dict.fromkeys(skipped))
    if not told:
        return []
    what = f"not compared with its image: {'; '.join(told[:5])}"
    what += f"; and {len(told) - 5} more" if len(told) > 5 else ""
    how = "Name what matters of it in baked_files"
    return [Finding(INFO, service, "baked-file-unknown", what, how)]


def summary(at: ServiceFiles, known: History) -> dict[str, Any]:
    """What module `image` returns about one service."""
    stale = [(seen, verdict) for seen in at.files if (verdict := judged(seen, at, known)).layers]
    return {
        "image": at.image,
        "image_id": _short(at.image_id),
        "containers": {name: _short(image) for name, image in at.containers.items()},
        "compared": len(at.files),
        "stale": [
            {
                "path": seen.path,
                "src": seen.file.source,
                "layers": list(verdict.layers),
                "source": _shown(seen.source),
                "image": _shown(seen.image),
                "containers": {name: _shown(content) for name, content in seen.containers.items()},
            }
            for seen, verdict in stale
        ],
    }


def _shown(content: Content | None) -> dict[str, Any] | None:
    return {"checksum": content.digest, "lines": content.lines} if content else None


def _spoken(content: Content | None) -> str:
    return content.spoken if content else "no such file"


def _short(image_id: str | None) -> str:
    return (image_id or "").rpartition(":")[2][:12]


def _listed(what: str, names: Sequence[str]) -> str:
    one = len(names) == 1
    return f"{what}{'' if one else 's'} {', '.join(names)} {'was' if one else 'were'}"


def declared(options: Iterable[Mapping[str, Any]], base: str) -> dict[str, list[Baked]]:
    """Option `baked_files` by service; sources are relative to the project's directory."""
    found: dict[str, list[Baked]] = {}
    for entry in options:
        source = os.path.join(base, entry["src"])
        found.setdefault(entry["service"], []).append(Baked(entry["path"], source, declared=True))
    return found
