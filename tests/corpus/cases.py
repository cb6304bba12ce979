# SPDX-License-Identifier: GPL-3.0-or-later
"""The corpus: what each directory here asks for, as plain data.

A directory holds a Compose project, `change.yaml` when an override changes it, and `case.yaml` when it needs more:

    files, env_files, profiles, env   what the caller gives, `files: []` being "what Compose finds by itself"
    services: [name, ...]             only these, and what they depend on
    inline: true                      compose.yaml is given as text and not as a file
    needs: {compose, api}             the oldest Compose and the oldest engine API that know the keys
    before: [[docker words], ...]     what exists outside the project, `{project}` being the project's name
    project_name                      the name, where the file itself gives it
    look: [service:path, ...]         files that Compose puts into a container, compared too
    change: {files, ..., replace}     what the second deployment is given; `replace` maps a file to its new content

A value `{disk}` in `env` is a block device of this machine.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent


@dataclass(frozen=True)
class Definition:
    """One state of a project's definition: what is given beside the files' content."""

    files: tuple[str, ...] = ("compose.yaml",)
    env_files: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    replace: Mapping[str, str] = field(default_factory=dict)
    services: tuple[str, ...] = ()
    inline: bool = False

    def words(self) -> list[str]:
        """The options of `docker compose`."""
        words: list[str] = []
        files = ("-",) if self.inline else self.files
        for option, values in (("--file", files), ("--env-file", self.env_files), ("--profile", self.profiles)):
            for value in values:
                words += [option, value]
        return words

    def options(self) -> dict[str, Any]:
        """The options of our modules."""
        files = () if self.inline else self.files
        given = {"files": files, "env_files": self.env_files, "profiles": self.profiles, "services": self.services}
        return {name: list(values) for name, values in given.items() if values}

    def write(self, folder: Path) -> None:
        for name, content in self.replace.items():
            (folder / name).write_text(content, encoding="utf-8")


@dataclass(frozen=True)
class Case:
    name: str
    first: Definition
    changed: Definition | None
    needs: Mapping[str, str]
    before: tuple[tuple[str, ...], ...]
    project_name: str | None
    look: tuple[str, ...] = ()

    def runs_on(self, compose: str, api: str) -> bool:
        """Whether this Compose and this engine know the keys that the case is about."""
        have = {"compose": compose, "api": api}
        return all(version(have[what]) >= version(least) for what, least in self.needs.items())

    def copy_to(self, folder: Path) -> Path:
        shutil.copytree(ROOT / self.name, folder)
        (folder / "case.yaml").unlink(missing_ok=True)
        return folder


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def load(folder: Path) -> Case:
    path = folder / "case.yaml"
    data = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    change = data.pop("change", {})
    needs, before, name = data.pop("needs", {}), data.pop("before", []), data.pop("project_name", None)
    look = tuple(data.pop("look", ()))
    first = _definition(data)
    changed = None
    if (folder / "change.yaml").is_file():
        changed = _definition({**data, "files": [*first.files, "change.yaml"], **change})
    elif change:
        changed = _definition({**data, **change})
    return Case(folder.name, first, changed, needs, tuple(tuple(words) for words in before), name, look)


def _definition(data: Mapping[str, Any]) -> Definition:
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
    env = {name: _disk() if value == "{disk}" else value for name, value in data.get("env", {}).items()}
    return Definition(**{**values, "env": env})


def _disk() -> str:
    disks = [f"/dev/{path.name}" for path in sorted(Path("/sys/block").iterdir(), reverse=True)]
    return next((disk for disk in disks if Path(disk).exists()), "/dev/vda")


CASES = [load(folder) for folder in sorted(ROOT.iterdir()) if folder.name[0].isdigit()]
