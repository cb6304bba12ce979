# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with the project itself: what depends on what, who is asked for, and what a healthcheck is worth. Pure.

Two documents are judged: the project as it stands in its files, all profiles and no variables resolved (`raw`, of
`docker compose config --no-interpolate`), because it can be had even when Compose refuses the project; and the
resolved one.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from ..engine.health import vacuous
from ..engine.model import COMPLETED, HEALTHY, Project, Service
from ..report.finding import CRITICAL, INFO, WARNING
from .seen import Seen, about, seen

Raw = Mapping[str, Any]


def selected(raw: Raw, profiles: Collection[str], services: Collection[str]) -> frozenset[str]:
    """The services that are meant: of the enabled profiles, or those asked for with what they depend on."""
    entries: Mapping[str, Mapping[str, Any]] = raw.get("services") or {}
    enabled = {name for name, entry in entries.items() if _enabled(entry, profiles)}
    if not services:
        return frozenset(enabled)
    found: set[str] = set()
    todo = [name for name in services if name in entries]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += [other for other in _needs(entries[name]) if other in enabled]
    return frozenset(found)


def _enabled(entry: Mapping[str, Any], profiles: Collection[str]) -> bool:
    own = entry.get("profiles") or ()
    return not own or "*" in profiles or bool(set(own) & set(profiles))


def _needs(entry: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    wishes = entry.get("depends_on") or {}
    return {name: wish or {} for name, wish in wishes.items()} if isinstance(wishes, Mapping) else {}


def unknown_profiles(raw: Raw, profiles: Collection[str], subject: str) -> Iterator[Seen]:
    """Profiles that are asked for and that no service has: a slip of the pen would silently leave services out."""
    known = {name for entry in (raw.get("services") or {}).values() for name in entry.get("profiles") or ()}
    for name in sorted(set(profiles) - known - {"*"}):
        what = f"no service has the profile {name} (profiles in this project: {', '.join(sorted(known)) or 'none'})"
        yield seen(CRITICAL, subject, "profile-unknown", what, "Check `profiles`", ())


def out_of_reach(raw: Raw, chosen: Collection[str]) -> Iterator[Seen]:
    """Services that need one that will not be there."""
    entries: Mapping[str, Mapping[str, Any]] = raw.get("services") or {}
    for name in sorted(chosen):
        for other, wish in sorted(_needs(entries.get(name) or {}).items()):
            if other in chosen or not wish.get("required", True):
                continue
            if other not in entries:
                what = f"it depends on {other}, which the project does not have"
                how = f"Add service {other}, or take it out of depends_on of {name}"
                yield seen(CRITICAL, name, "dependency-undefined", what, how)
                continue
            bring = sorted(entries[other].get("profiles") or ())
            what = f"it depends on {other}, which is left out: it belongs to profile {' or '.join(bring)}"
            how = f"Enable profile {bring[0] if bring else other} (profiles), or mark the dependency required: false"
            yield seen(CRITICAL, name, "dependency-not-selected", what, how)


def one_name_for_many(raw: Raw, chosen: Collection[str]) -> Iterator[Seen]:
    """A fixed container name and more than one container that would need it."""
    for name in sorted(chosen):
        entry = raw["services"][name]
        fixed = entry.get("container_name")
        deploy = entry.get("deploy") or {}
        count = entry.get("scale", deploy.get("replicas", 1))
        if fixed and isinstance(count, int) and count > 1:
            what = f"it is to have {count} containers, but container_name {fixed} is one name for all of them"
            yield seen(CRITICAL, name, "container-name-replicas", what, "Take container_name out, or the replicas")
        order = (deploy.get("update_config") or {}).get("order")
        if fixed and order == "start-first":
            what = (
                f"update_config.order is start-first, so two containers stand side by side for a while, but only one "
                f"can be called {fixed}: the old one bears another name until it goes"
            )
            how = "Take container_name out, so that nobody relies on that name; or use order: stop-first"
            yield seen(WARNING, name, "container-name-start-first", what, how)


def mended(raw: Raw, chosen: Collection[str], lacking_files: Collection[str], stand_in: Mapping[str, str]) -> Raw:
    """`raw` without what Compose stumbles over (it was found and told), so that everything else can still be looked at:
    services that are left out, files that are missing. `stand_in`: expressions and what is put in their place."""
    services = {}
    for name in chosen:
        entry = dict(raw["services"][name])
        entry["depends_on"] = {other: wish for other, wish in _needs(entry).items() if other in chosen}
        entry["env_file"] = [at for at in entry.get("env_file") or () if _path(at) not in lacking_files]
        entry.pop("profiles", None)
        if entry.get("container_name"):
            entry["deploy"] = {key: value for key, value in (entry.get("deploy") or {}).items() if key != "replicas"}
            entry.pop("scale", None)
        services[name] = entry
    text = json.dumps({**raw, "services": services})
    for expression, word in stand_in.items():
        text = text.replace(json.dumps(expression)[1:-1], word)
    document: Raw = json.loads(text)
    return document


def _path(entry: Any) -> str:
    return str(entry.get("path") if isinstance(entry, Mapping) else entry)


Health = Mapping[str, "Mapping[str, Any] | None"]


def healthchecks(project: Project, images: Health) -> Iterator[Seen]:
    """Services that nobody can tell to be well. `images`: what each service's image brings along as its healthcheck,
    {} for nothing, None where that is not known."""
    missing = []
    for service in project.in_order():
        check = _check(service)
        brought = images.get(service.name)
        if check is None and service.scale and not service.one_shot and brought == {}:
            missing.append(service.name)
        if vacuous(check if check is not None else _compose_words(brought or {})):
            what = "its healthcheck passes whatever happens, so it proves nothing"
            how = "Let it ask the service itself, as its users would"
            yield seen(WARNING, service.name, "healthcheck-vacuous", what, how)
    if missing:
        what = "no healthcheck: that it runs is all that can be known of it"
        how = "Give it a healthcheck that asks the service itself, as its users would"
        yield seen(INFO, about(missing), "healthcheck-missing", what, how, missing)


def _check(service: Service) -> Mapping[str, Any] | None:
    """The healthcheck of the Compose file; None when it has no test of its own there."""
    check = service.definition.get("healthcheck") or {}
    return check if check.get("test") or check.get("disable") else None


def _compose_words(brought: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"test": brought.get("Test") or []}


def _has_one(service: Service, brought: Mapping[str, Any] | None) -> bool | None:
    """Whether there is a healthcheck at all; None when that is not known."""
    check = _check(service)
    if check is not None:
        return not check.get("disable") and _asks(check.get("test"))
    return None if brought is None else _asks(brought.get("Test"))


def _asks(test: Sequence[str] | None) -> bool:
    return test is not None and list(test[:1]) not in ([], ["NONE"])


def conditions(project: Project, images: Health) -> Iterator[Seen]:
    """Conditions of depends_on that can never be met."""
    for service in project.in_order():
        for wish in service.depends_on:
            other = project.services.get(wish.service)
            if other is None:
                continue
            severity = CRITICAL if wish.required else WARNING
            code = "condition-never-met"
            if wish.condition == HEALTHY and _has_one(other, images.get(other.name)) is False:
                what = f"it waits for {other.name} to be healthy, which has no healthcheck: it would wait for ever"
                how = f"Give {other.name} a healthcheck, or use condition: service_started"
                yield seen(severity, service.name, code, what, how)
            again = str(other.definition.get("restart") or "")
            if wish.condition == COMPLETED and again in ("always", "unless-stopped"):
                what = f"it waits for {other.name} to complete, which restart: {again} starts again each time it ends"
                how = f"Set restart of {other.name} to 'no' or on-failure"
                yield seen(severity, service.name, code, what, how)
