# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The wanted state: a resolved Compose project as plain data. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..report.masking import assigned_secrets, secret_values

STARTED = "service_started"
HEALTHY = "service_healthy"
COMPLETED = "service_completed_successfully"

# The key by which role `stack` says that what is planned from is not in its place yet.
_STAGED = "x-shipshape-staged"

# What a container does not depend on: Compose leaves the same keys out of its own hash.
_NOT_OF_THE_CONTAINER = ("build", "pull_policy", "scale", "depends_on", "profiles")


@dataclass(frozen=True)
class Dependency:
    """One entry of depends_on. `restart`: the dependent restarts when this dependency is replaced."""

    service: str
    condition: str = STARTED
    required: bool = True
    restart: bool = False


@dataclass(frozen=True)
class Staged:
    """Files that are to come: what is going to lie in directory `of` lies in `at` now, where a plan is made from it.
    `removed`: what is going to be removed from `of`."""

    of: str
    at: str
    removed: frozenset[str] = frozenset()

    def place(self, path: str) -> str:
        """Where what is going to be at `path` lies now; '' for what does not come along."""
        below = posixpath.relpath(path, self.of)
        return "" if below.startswith("..") else posixpath.normpath(posixpath.join(self.at, below))


@dataclass(frozen=True)
class FileMount:
    """A file of the target that a service mounts: `field` names it in Compose's words, `target` is its place inside.
    `staged` is where its next content lies while a plan is made."""

    field: str
    source: str
    target: str
    read_only: bool
    staged: str = ""


@dataclass(frozen=True)
class Endpoint:
    """A service's place in one network: the network's `key` in the Compose file, the names that others find it under,
    and the addresses (`ipv4_address`) that the file gives it."""

    key: str
    names: frozenset[str]
    addresses: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class UpdateConfig:
    """How a service's containers are replaced: `deploy.update_config`. `parallelism` 0 means all at once; times in
    seconds; `monitor` None means the stability that the caller asks for."""

    order: str = "stop-first"
    parallelism: int = 0
    delay: float = 0.0
    failure_action: str = "rollback"
    monitor: float | None = None


@dataclass(frozen=True)
class Service:
    """One service. `definition` is its entry of the resolved model, without what does not concern a container."""

    name: str
    image: str
    definition: Mapping[str, Any]
    scale: int = 1
    depends_on: tuple[Dependency, ...] = ()
    shares_with: frozenset[str] = frozenset()  # services whose container (namespace, volumes) it is bound to
    container_name: str | None = None
    build: Mapping[str, Any] = field(default_factory=dict, repr=False)  # the `build` section, empty for none
    pull_policy: str = ""
    one_shot: bool = False  # somebody waits for it to complete
    update: UpdateConfig = UpdateConfig()
    file_mounts: tuple[FileMount, ...] = ()
    networks: Mapping[str, Endpoint] | None = None  # by their names in the engine; None: not its own to have
    published: tuple[str, ...] = ()  # fixed ports on the host: only one container at a time can hold them
    staged: Staged | None = None
    serves: bool = False  # it publishes a port, has a healthcheck, or somebody needs it running: it may never just end

    @property
    def builds(self) -> bool:
        return bool(self.build)

    def container(self, project: str, number: int) -> str:
        return self.container_name or f"{project}-{self.name}-{number}"


@dataclass(frozen=True)
class Project:
    """A project. `networks` and `volumes` map the names in the engine of what the project owns to their keys."""

    name: str
    services: Mapping[str, Service]
    networks: Mapping[str, str] = field(default_factory=dict)
    volumes: Mapping[str, str] = field(default_factory=dict)
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    secrets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    document: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def in_order(self) -> list[Service]:
        """Services after everything that they depend on; otherwise by name."""
        ordered: dict[str, Service] = {}

        def visit(name: str) -> None:
            service = self.services.get(name)
            if service is None or name in ordered:
                return
            for dependency in sorted(service.depends_on, key=lambda entry: entry.service):
                visit(dependency.service)
            ordered[name] = service

        for name in sorted(self.services):
            visit(name)
        return list(ordered.values())


def project_from(document: Mapping[str, Any]) -> Project:
    """The project that `docker compose config --format json` printed as `document`."""
    entries: Mapping[str, Mapping[str, Any]] = document.get("services") or {}
    name = document["name"]
    wishes = [wish for entry in entries.values() for wish in _dependencies(entry).values()]
    awaited = {wish.service for wish in wishes if wish.condition == COMPLETED}
    needed = {wish.service for wish in wishes} - awaited
    staged = staged_of(document)
    services = {
        key: _service(document, key, entry, key in awaited, key in needed, staged) for key, entry in entries.items()
    }
    return Project(
        name=name,
        services=services,
        networks=_owned(name, document.get("networks")),
        volumes=_owned(name, document.get("volumes")),
        configs=document.get("configs") or {},
        secrets=document.get("secrets") or {},
        document=document,
    )


def _service(
    document: Mapping[str, Any],
    name: str,
    entry: Mapping[str, Any],
    awaited: bool,
    needed: bool,
    staged: Staged | None,
) -> Service:
    deploy = dict(entry.get("deploy") or {})
    replicas = deploy.pop("replicas", None)
    definition = {key: value for key, value in entry.items() if key not in _NOT_OF_THE_CONTAINER and value is not None}
    definition = {key: value for key, value in definition.items() if not key.startswith("x-")}
    if "deploy" in definition:
        definition["deploy"] = deploy
    # What a provider brings is no container.
    scale = 0 if entry.get("provider") else entry.get("scale")
    return Service(
        name=name,
        image=entry.get("image") or f"{document['name']}-{name}",
        definition=definition,
        scale=int(scale if scale is not None else 1 if replicas is None else replicas),
        depends_on=tuple(_dependencies(entry).values()),
        shares_with=_shared(entry),
        container_name=entry.get("container_name"),
        build=entry.get("build") or {},
        pull_policy=entry.get("pull_policy") or "",
        one_shot=awaited,
        update=_update_config((entry.get("deploy") or {}).get("update_config") or {}),
        file_mounts=tuple(_file_mounts(document, entry, staged)),
        staged=staged,
        networks=_networks(document, name, entry),
        published=tuple(_published(entry)),
        serves=not awaited and (needed or bool(entry.get("ports")) or _checked(entry)),
    )


def _dependencies(entry: Mapping[str, Any]) -> dict[str, Dependency]:
    return {
        target: Dependency(
            target, wish.get("condition", STARTED), wish.get("required", True), wish.get("restart", False)
        )
        for target, wish in (entry.get("depends_on") or {}).items()
    }


def _update_config(entry: Mapping[str, Any]) -> UpdateConfig:
    monitor = seconds(entry.get("monitor"))
    return UpdateConfig(
        order=entry.get("order") or "stop-first",
        parallelism=int(entry.get("parallelism") or 0),
        delay=seconds(entry.get("delay")),
        failure_action=entry.get("failure_action") or "rollback",
        monitor=monitor or None,
    )


_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DURATION = re.compile(r"([0-9.]+)(h|ms|us|µs|ns|m|s)")


def seconds(duration: Any) -> float:
    """A duration as Compose prints it (`1m30s`) in seconds; 0 for none."""
    return sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(str(duration or "")))


def staged_of(document: Mapping[str, Any]) -> Staged | None:
    told = document.get(_STAGED)
    if not told:
        return None
    removed = frozenset(unescaped(name) for name in told.get("removed") or ())
    return Staged(unescaped(told["of"]), unescaped(told["at"]), removed)


def _file_mounts(document: Mapping[str, Any], entry: Mapping[str, Any], staged: Staged | None) -> Iterator[FileMount]:
    def file_mount(field: str, source: str, target: str, read_only: bool) -> FileMount:
        source, target = unescaped(source), unescaped(target)
        return FileMount(field, source, target, read_only, staged.place(source) if staged else "")

    for mount in entry.get("volumes") or []:
        if mount.get("type") == "bind" and mount.get("source"):
            target = mount["target"]
            yield file_mount(f"volumes.{target}", mount["source"], target, bool(mount.get("read_only")))
    for section, directory in (("configs", "/"), ("secrets", "/run/secrets/")):
        for use in entry.get(section) or []:
            source = ((document.get(section) or {}).get(use["source"]) or {}).get("file")
            target = use.get("target") or use["source"]
            if source:
                target = target if target.startswith("/") else directory + target
                yield file_mount(f"{section}.{use['source']}", source, target, True)


def _networks(document: Mapping[str, Any], name: str, entry: Mapping[str, Any]) -> dict[str, Endpoint] | None:
    if entry.get("network_mode") or not entry.get("networks"):
        return None
    known = document.get("networks") or {}
    return {
        (known.get(key) or {}).get("name") or f"{document['name']}_{key}": _endpoint(key, name, wish or {})
        for key, wish in entry["networks"].items()
    }


def _endpoint(key: str, service: str, wish: Mapping[str, Any]) -> Endpoint:
    fixed = {field: wish[field] for field in ("ipv4_address", "ipv6_address") if wish.get(field)}
    return Endpoint(key, frozenset({service, *(wish.get("aliases") or ())}), fixed)


def _published(entry: Mapping[str, Any]) -> Iterator[str]:
    for port in entry.get("ports") or []:
        if str(port.get("published") or "0") != "0":
            yield f"{port.get('host_ip') or ''}:{port['published']}".lstrip(":")


def _checked(entry: Mapping[str, Any]) -> bool:
    check = entry.get("healthcheck") or {}
    return bool(check.get("test")) and not check.get("disable")


def _shared(entry: Mapping[str, Any]) -> frozenset[str]:
    modes = [str(entry.get(key) or "") for key in ("network_mode", "ipc", "pid")]
    names = {mode.partition(":")[2] for mode in modes if mode.startswith("service:")}
    for source in entry.get("volumes_from") or []:
        kind, _dummy, _dummy = source.partition(":")
        if kind != "container":
            names.add(kind)
    return frozenset(names)


def _owned(project: str, section: Mapping[str, Any] | None) -> dict[str, str]:
    owned = {}
    for key, wish in (section or {}).items():
        entry = wish or {}
        if not entry.get("external"):
            owned[entry.get("name") or f"{project}_{key}"] = key
    return owned


def unescaped(text: str) -> str:
    """`docker compose config` writes a literal dollar as two."""
    return text.replace("$$", "$")


def secrets_of(project: Project) -> set[str]:
    """Every value in the project that must not be shown.

    A word that stands in the open as well (a service called like the password of a careless example) is left out:
    masking it would blacken the whole report, and hide nothing.
    """
    found = set(_secrets_in(project.document))
    found |= {str(entry["content"]) for entry in project.secrets.values() if entry.get("content")}
    for entry in project.configs.values():
        found |= set(assigned_secrets(str(entry.get("content") or "")))
    # Compose writes a literal dollar as two, and both forms turn up in what it prints.
    return (found | {unescaped(value) for value in found}) - public_words(project)


def _secrets_in(value: Any) -> Iterator[str]:
    """Secrets anywhere below `value`: not only environment, but build arguments, logging options and hooks."""
    if isinstance(value, Mapping):
        yield from secret_values({key: entry for key, entry in value.items() if isinstance(entry, (str, int, float))})
        for entry in value.values():
            yield from _secrets_in(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _secrets_in(entry)
    elif isinstance(value, str):
        yield from secret_values({"": value})


def public_words(project: Project) -> set[str]:
    """What anybody sees who sees the project at all: its names, and parts of them."""
    names = {project.name, *project.networks, *project.volumes, *project.networks.values(), *project.volumes.values()}
    words: set[str] = set()
    for service in project.services.values():
        names |= {service.name, service.container_name or ""}
        words |= {*re.split(r"[/:@]", service.image)}
    # A part of a name is in the open, too: `***-self-hosted-web-1` hides nothing, and no engine knows it.
    return words | names | {part for name in names for part in re.split(r"[-_.]", name)}
