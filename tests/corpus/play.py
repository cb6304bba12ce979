# SPDX-License-Identifier: GPL-3.0-or-later
"""Plays one case of the corpus, by Compose and by us, under the same name and in the same directory."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from tests.corpus.cases import Case, Definition
from tests.corpus.compare import differences
from tests.corpus.observe import Observed, mark, observe, replaced
from tests.support.engine import Engine
from tests.support.modules import run_module

# ` Container name  Running`: what `docker compose up -d` says of what it leaves alone or only waits for.
PROGRESS = re.compile(r'^ *(Container|Network|Volume) "?(\S+?)"?  (\S+)', re.MULTILINE)
IDLE = {"Running", "Waiting", "Healthy", "Exited"}
SERVICE, IMAGE, HASH = (f"com.docker.compose.{name}" for name in ("service", "image", "config-hash"))
DEPENDS_ON = "com.docker.compose.depends_on"


@dataclass
class Stage:
    """A case on one engine with one Compose."""

    case: Case
    engine: Engine
    project: str
    folder: Path

    def prepare(self) -> None:
        for words in self.case.before:
            self.engine.docker(*(word.replace("{project}", self.project) for word in words))

    def set_up(self) -> None:
        """The project's directory as it is at first; a changed definition is then written over it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.case.copy_to(self.folder)

    def compose(self, definition: Definition, *words: str) -> str:
        """`docker compose`; returns what it said of its progress."""
        name = [] if self.case.project_name else ["--project-name", self.project]
        given = ["--progress", "plain", *name, *definition.words()]
        text = (self.folder / "compose.yaml").read_text(encoding="utf-8") if definition.inline else None
        return self._engine(definition).docker("compose", *given, *words, cwd=self.folder, input=text).stderr

    def up(self, definition: Definition) -> str:
        return self.compose(definition, "up", "--detach", *definition.services)

    def ours(self, definition: Definition, **options: Any) -> dict[str, Any]:
        """Our module; returns its result."""
        name = {} if self.case.project_name else {"project_name": self.project}
        given = {"project_src": str(self.folder), "docker_host": self.engine.host, **name, **definition.options()}
        if definition.inline:
            given["definition"] = yaml.safe_load((self.folder / "compose.yaml").read_text(encoding="utf-8"))
        environment = {**self._engine(definition).env, "DOCKER_HOST": self.engine.host}
        given |= {"stability": 0, "wait_timeout": 30, **options}
        return run_module("stack", given, env=environment)

    def look(self) -> Observed:
        return observe(self.engine, self.project, self.case.look)

    def down(self, definition: Definition) -> None:
        self.compose(definition, "down", "--volumes", "--remove-orphans", "--timeout", "1")

    def _engine(self, definition: Definition) -> Engine:
        return replace(self.engine, env={**self.engine.env, **definition.env})


def play(stage: Stage) -> Iterator[str]:
    """The whole story of a case; yields every way in which we and Compose are not the same."""
    case = stage.case
    stage.prepare()
    stage.set_up()
    stage.up(case.first)
    by_compose = stage.look()
    yield from _named("ours after Compose", idle(stage, case.first, by_compose))
    changed_by_compose = None
    if case.changed:
        mark(by_compose)
        case.changed.write(stage.folder)
        stage.up(case.changed)
        changed_by_compose = stage.look()
    stage.down(case.changed or case.first)

    stage.set_up()
    result = stage.ours(case.first)
    yield from _named("ours from nothing", succeeded(result, changed=True))
    by_us = stage.look()
    yield from _named("ours against Compose's", differences(by_compose, by_us))
    yield from _named("Compose after ours", left_alone(stage, case.first, by_us))
    if case.changed and changed_by_compose:
        yield from changes(stage, case.changed, by_compose, changed_by_compose)
    else:
        yield from _named("ours again", idle(stage, case.first, stage.look()))
    yield from _named("ours removed", removed(stage, case.changed or case.first))


def play_adopted(stage: Stage) -> Iterator[str]:
    """The change of a case, made by us on containers that Compose has made."""
    case = stage.case
    assert case.changed
    stage.prepare()
    stage.set_up()
    stage.up(case.first)
    first = stage.look()
    mark(first)
    case.changed.write(stage.folder)
    stage.up(case.changed)
    wanted = stage.look()
    stage.down(case.changed)
    stage.set_up()
    stage.up(case.first)
    yield from changes(stage, case.changed, first, wanted)


def changes(stage: Stage, definition: Definition, first: Observed, wanted: Observed) -> Iterator[str]:
    """The changed definition, by us: only what has to be is replaced, and the result is Compose's."""
    before = stage.look()
    mark(before)
    definition.write(stage.folder)
    yield from _named("ours with the change", succeeded(stage.ours(definition), changed=True))
    after = stage.look()
    needed = necessary(first, wanted)
    if (done := replaced(before, after)) != needed:
        yield f"ours with the change: replaced {sorted(done)} instead of {sorted(needed)}"
    yield from _named("ours with the change", restarted(before, after, needed))
    expected = with_old_files_label(wanted, first, replaced(first, wanted) - needed)
    yield from _named("the change against Compose's", differences(expected, after))
    yield from _named("Compose after the change", left_alone(stage, definition, after))
    yield from _named("ours after the change", idle(stage, definition, stage.look()))


def succeeded(result: dict[str, Any], *, changed: bool) -> Iterator[str]:
    if result.get("failed"):
        yield f"failed: {result['msg']}"
    elif result["changed"] != changed:
        yield f"changed={result['changed']}: {result['actions']} {result.get('drift')}"


def idle(stage: Stage, definition: Definition, before: Observed) -> Iterator[str]:
    """Ours, where nothing is to be done: reported, and true."""
    result = stage.ours(definition)
    yield from succeeded(result, changed=False)
    # A container whose service has left is told of, and stays, as with Compose.
    if drift := [entry for entry in result.get("drift", []) if entry["kind"] != "orphan"]:
        yield f"drift: {drift}"
    if touched := before.identities().items() ^ stage.look().identities().items():
        yield f"replaced or restarted: {sorted({name for name, _ in touched})}"


def left_alone(stage: Stage, definition: Definition, before: Observed) -> Iterator[str]:
    """`docker compose up -d` where nothing is to be done; only a finished job is run again, as after Compose itself."""
    said = PROGRESS.findall(stage.up(definition))
    after = stage.look()
    running = {name for name, document in before.containers.items() if document["State"]["Status"] == "running"}
    for kind, name, verb in said:
        if verb not in IDLE and (kind != "Container" or name in running):
            yield f"{kind} {name}: {verb}"
    old, new = before.identities(), after.identities()
    for name in sorted(old.keys() | new.keys()):
        kept = slice(0, 2 if name in running else 1)
        if old.get(name, ())[kept] != new.get(name, ())[kept]:
            yield f"{name} is another container or was restarted"


def removed(stage: Stage, definition: Definition) -> Iterator[str]:
    result = stage.ours(definition, state="absent", services=[], remove_volumes=True, remove_orphans=True)
    yield from succeeded(result, changed=True)
    left = stage.look()
    for kind, names in (("container", left.containers), ("network", left.networks), ("volume", left.volumes)):
        if names:
            yield f"{kind}s left: {sorted(names)}"


def necessary(before: Observed, after: Observed) -> set[str]:
    """The containers that had to be replaced. Compose 2.26 also replaces what merely depends on them."""

    def made_of(observed: Observed, name: str) -> tuple[Any, ...]:
        labels = observed.containers.get(name, {}).get("Config", {}).get("Labels", {})
        return labels.get(HASH), labels.get(IMAGE)

    return {name for name in replaced(before, after) if made_of(before, name) != made_of(after, name)}


def restarted(before: Observed, after: Observed, needed: set[str]) -> Iterator[str]:
    """`depends_on: {x: {restart: true}}` restarts what depends on a replaced service, and nothing else is restarted."""
    services = {after.containers[name]["Config"]["Labels"][SERVICE] for name in needed if name in after.containers}
    old, new = before.identities(), after.identities()
    for name in sorted((old.keys() & new.keys()) - needed):
        wanted = bool(services & _restarts_with(after.containers[name]))
        if (old[name] != new[name]) != wanted:
            yield f"{name} {'was not' if wanted else 'was'} restarted"


def _restarts_with(document: dict[str, Any]) -> set[str]:
    entries = [entry.split(":") for entry in document["Config"]["Labels"].get(DEPENDS_ON, "").split(",") if entry]
    return {service for service, _condition, restart in entries if restart == "true"}


def with_old_files_label(wanted: Observed, first: Observed, names: set[str]) -> Observed:
    """What Compose replaced without need bears the new list of files in a label, and would not if it had been kept."""
    label = "com.docker.compose.project.config_files"
    containers = dict(wanted.containers)
    for name in names & first.containers.keys():
        config = containers[name]["Config"]
        labels = {**config["Labels"], label: first.containers[name]["Config"]["Labels"][label]}
        containers[name] = {**containers[name], "Config": {**config, "Labels": labels}}
    return replace(wanted, containers=containers)


def _named(name: str, complaints: Iterator[str] | list[str]) -> Iterator[str]:
    for complaint in complaints:
        yield f"{name}: {complaint}"
