# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks at baked files in source, image and container, with two requests a container: its inspect, and what changed in
it since it was created. Otherwise it holds what its image holds, and an image is read once, however many use it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from .baked import Baked, Layers, ServiceFiles
from .connection import Connection
from .contents import Content, Reader, opened, read_all
from .context import Context, Placed, context_of, place
from .dockerfile import Base, bases, recipe, scripts, touches
from .history import History
from .look import image, opens_quietly
from .model import Project, Service
from .observed import Observed
from .upper import changes

_ADDED_OR_GONE = (1, 2)
_READERS = 4


@dataclass(frozen=True)
class Seen:
    """What was seen: per service its files, and what of its Dockerfile could not be followed."""

    services: Mapping[str, ServiceFiles]
    skipped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Task:
    """One service that has baked files, and where to look for them."""

    service: Service
    document: Mapping[str, Any] | None
    files: tuple[Baked, ...]
    containers: tuple[Observed, ...]


class Staleness:
    """One look at the baked files of a project."""

    def __init__(
        self, connection: Connection, project: Project, named: Mapping[str, Sequence[Baked]], marker: str | None = None
    ) -> None:
        self._connection = connection
        self._project = project
        self._named = named
        self._reader = Reader(re.compile(marker, re.MULTILINE) if marker else None)

    def look(self, found: Sequence[Observed], known: History, builds: Mapping[str, str]) -> Seen:
        """The baked files of all services. `found`: the project's containers; `builds`: see Look."""
        users = {service.image: service.name for service in self._project.services.values()}
        with ThreadPoolExecutor(_READERS) as readers:
            names = sorted(users)
            documents = dict(zip(names, readers.map(lambda name: image(self._connection, name, users[name]), names)))
            skipped: dict[str, tuple[str, ...]] = {}
            tasks = [self._task(service, documents, found, skipped) for service in self._project.services.values()]
            inside = self._inside_images(tasks, readers)
            services = {task.service.name: self._service(task, inside, known, builds) for task in tasks}
        return Seen(services, skipped)

    # -- which files ------------------------------------------------------------------------------------------------

    def _task(
        self,
        service: Service,
        documents: Mapping[str, Mapping[str, Any] | None],
        found: Sequence[Observed],
        skipped: dict[str, tuple[str, ...]],
    ) -> _Task:
        document = documents[service.image]
        standing = tuple(at for at in found if at.service == service.name and not at.role)
        if service.name in self._named:
            files = tuple(self._named[service.name])
        else:
            builder = self._builder(service)
            files, lost = self._found(builder, document) if builder else ((), [])
            if lost and builder is service:
                skipped[service.name] = tuple(lost)
        return _Task(service, document, files, standing)

    def _builder(self, service: Service) -> Service | None:
        """The service that builds the image of `service`: itself, or another one with the same image."""
        same = [at for at in self._project.services.values() if at.builds and at.image == service.image]
        return service if service.builds else same[0] if same else None

    def _found(self, service: Service, document: Mapping[str, Any] | None) -> tuple[tuple[Baked, ...], list[str]]:
        """The files that the Dockerfile of `service` copies, and what of it cannot be followed."""
        context = context_of(service)
        if context is None:
            return (), [f"its build context {service.build.get('context')} is no directory on the target"]
        if context.text is None:
            return (), [f"{context.dockerfile} cannot be read"]
        given = {**_platform(document), **context.args}
        base = self._base(context, document, given)
        return found_files(context, base, given, _workdir(document))

    def _base(self, context: Context, document: Mapping[str, Any] | None, given: Mapping[str, str]) -> Base:
        """The image that the Dockerfile starts from, or what its own image tells of it."""
        for name in bases(context.text or "", context.target, given):
            held = image(self._connection, name, context.dockerfile)
            if held is not None:
                config = held.get("Config") or {}
                return Base(config.get("WorkingDir") or "/", _env(held), tuple(config.get("OnBuild") or ()))
        sets_its_own = re.search(r"^\s*(ONBUILD\s+)?WORKDIR\s", context.text or "", re.IGNORECASE | re.MULTILINE)
        return Base(None if document is None or sets_its_own else _workdir(document), _env(document))

    # -- what they hold ---------------------------------------------------------------------------------------------

    def _inside_images(self, tasks: Iterable[_Task], readers: ThreadPoolExecutor) -> dict[str, dict[str, Any]]:
        """By image id and path what images hold: those that names mean now, and older ones that containers have."""
        wanted: dict[str, list[Baked]] = {}
        documents: dict[str, Mapping[str, Any]] = {}
        for task in tasks:
            ids = {at.image_id for at in task.containers}
            if task.document is not None:
                ids.add(task.document["Id"])
                documents[task.document["Id"]] = task.document
            for image_id in ids if task.files else ():
                wanted.setdefault(image_id, []).extend(task.files)

        def read(entry: tuple[str, list[Baked]]) -> dict[str, Content | None] | None:
            document = documents.get(entry[0]) or image(self._connection, entry[0], self._project.name)
            if document is None:
                return None  # removed by force under its container
            with opened(self._connection, document) as container_id:
                return self._read(container_id, entry[1])

        held = readers.map(read, wanted.items())
        return {image_id: files for image_id, files in zip(wanted, held) if files is not None}

    def _read(self, container_id: str, files: Sequence[Baked]) -> dict[str, Content | None]:
        paths = {path for file in files for path in (file.path, file.into) if path}
        return read_all(self._connection, container_id, paths, self._reader, follow=_followed(files))

    def _service(
        self, task: _Task, inside: Mapping[str, dict[str, Any]], known: History, builds: Mapping[str, str]
    ) -> ServiceFiles:
        name, image_id = task.service.name, str(task.document["Id"]) if task.document else None
        held = inside.get(image_id or "", {})
        own = {at.name: self._inside_container(at, task.files, inside) for at in task.containers if task.files}
        layers = []
        for file in task.files:
            path = file.into if file.into and held.get(file.into) else file.path
            layers.append(
                Layers(
                    replace(file, script=file.script or path in _programs(task, [path])),
                    path,
                    self._source(file),
                    held.get(path),
                    {at: files.get(path) for at, (files, _dummy) in own.items()},
                    {at: targets[path] for at, (_dummy, targets) in own.items() if path in targets},
                )
            )
        builder = self._builder(task.service)
        digest = builds.get(builder.name, "") if builder else ""
        return ServiceFiles(
            name,
            task.service.image,
            image_id,
            tuple(layers),
            {at.name: at.image_id for at in task.containers},
            bool(builder and digest) and known.built_from(builder.name if builder else "", image_id) == digest,
            builder is not None,
        )

    def _source(self, file: Baked) -> Content | None:
        if file.text is not None:
            return self._reader.of_bytes(file.text)
        return self._reader.source(file.source, follow=file.declared or bool(file.into))

    def _inside_container(
        self, at: Observed, files: Sequence[Baked], inside: Mapping[str, dict[str, Any]]
    ) -> tuple[dict[str, Content | None], dict[str, str]]:
        """What a container holds, and which of the paths are hidden by what is mounted where."""
        held = inside.get(at.image_id)
        mounts = [mount["Destination"] for mount in at.raw.get("Mounts") or []]
        paths = {path for file in files for path in (file.path, file.into) if path}
        hidden = {path: target for path in paths for target in mounts if _is_below(path, target)}
        if not opens_quietly(self._connection, at):
            return held or {}, hidden
        if held is None:
            return self._read(at.id, files), hidden
        own = changed(changes(self._connection, at), paths) | set(hidden)
        if not own:
            return held, hidden
        asked = [file for file in files if own & {file.path, file.into}]
        return {**held, **self._read(at.id, asked)}, hidden


def found_files(
    context: Context, base: Base, given: Mapping[str, str], workdir: str
) -> tuple[tuple[Baked, ...], list[str]]:
    """The files that a Dockerfile copies: the last one copied to a place is the one that stays there."""
    made = recipe(context.text or "", context.target, given, base)
    name = posixpath.basename(context.dockerfile)
    skipped = [f"{name}:{line}: {why}" for line, why in made.skipped]
    files: dict[str, Baked] = {}
    placed: list[tuple[int, Placed]] = []
    for copy in made.copies:
        found, problems = place(context, copy)
        skipped += [f"{name}:{copy.line}: {problem}" for problem in problems]
        placed += [(copy.at, entry) for entry in found]
    starts = scripts(made.programs, [path for _dummy, at in placed for path in (at.path, at.into) if path], workdir)
    for at, entry in placed:
        doubt = next(
            (
                f"the RUN at {name}:{run.line}"
                for run in made.runs
                if run.at > at and any(path and touches(run.command, path) for path in (entry.path, entry.into))
            ),
            "",
        )
        script = bool({entry.path, entry.into} & starts)
        files[entry.path] = Baked(entry.path, entry.source, False, entry.into, entry.text, doubt, script)
    return tuple(files.values()), skipped


def changed(changes: Iterable[Mapping[str, Any]], paths: Iterable[str]) -> set[str]:
    """Those of `paths` that may hold something else than in the image: changed, or below what was added or removed.
    One of the same name elsewhere counts as well, for a path may lead through a link. Pure."""
    entries = [(str(entry["Path"]), entry.get("Kind")) for entry in changes]
    names = {posixpath.basename(path) for path, _dummy in entries}
    roots = [path for path, kind in entries if kind in _ADDED_OR_GONE]
    return {path for path in paths if posixpath.basename(path) in names or any(_is_below(path, at) for at in roots)}


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(f"{root.rstrip('/')}/")


def _followed(files: Iterable[Baked]) -> frozenset[str]:
    """What is read through links in the container, as its source is: what a directory brings are links themselves."""
    return frozenset(path for file in files if file.declared or file.into for path in (file.path, file.into) if path)


def _programs(task: _Task, paths: Sequence[str]) -> set[str]:
    """Those of `paths` that the Compose file, or else the image, starts the service with."""
    config = (task.document or {}).get("Config") or {}
    words: list[str] = []
    for key, own in (("entrypoint", "Entrypoint"), ("command", "Cmd")):
        said = task.service.definition.get(key) or config.get(own) or []
        words += said.split() if isinstance(said, str) else said
    return scripts(words, paths, _workdir(task.document))


def _workdir(document: Mapping[str, Any] | None) -> str:
    return ((document or {}).get("Config") or {}).get("WorkingDir") or "/"


def _env(document: Mapping[str, Any] | None) -> dict[str, str]:
    entries = ((document or {}).get("Config") or {}).get("Env") or []
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def _platform(document: Mapping[str, Any] | None) -> dict[str, str]:
    """The build arguments that the builder sets by itself."""
    if document is None:
        return {}
    system, machine = document.get("Os") or "linux", document.get("Architecture") or ""
    variant = document.get("Variant") or ""
    whole = "/".join(part for part in (system, machine, variant) if part)
    return {"TARGETOS": system, "TARGETARCH": machine, "TARGETVARIANT": variant, "TARGETPLATFORM": whole}
