# SPDX-License-Identifier: GPL-3.0-or-later
"""Module tree below its action plugin: the same two rounds, the module as its own process, no playbook (0.3 s a call).

Where the action plugin itself matters, tests use `playbook.play`.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Any

from tests.support.modules import TREE, ModuleCall
from tests.support.playbook import Played, play

sys.path.insert(0, str(TREE))

from ansible_collections.shipshape.deploy.plugins.module_utils.files.manifest import (
    pack,
    pack_contents,
)
from ansible_collections.shipshape.deploy.plugins.module_utils.files.tree_source import (
    Source,
    pack_archive,
    read,
)


def ship(
    src: Path,
    dest: Path | str,
    *,
    env_files: dict[str, dict[str, Any]] | None = None,
    ignore: list[str] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Both rounds to their end; `check`, `diff`, `prefix`, `env` go to the module's process, the rest are options."""
    source = read(str(src), ignore or [], env_files or {}, str)
    archive = Path(f"{src}.contents.tar")
    try:
        result = round_of(source, src, dest, None, **options)
        if "needed" in result:
            collect(source, archive, result["needed"])
            result = round_of(source, src, dest, archive, **options)
        if "resolved" in result:
            result["dest"] = result.pop("resolved")
        result["findings"] = [finding.as_dict() for finding in source.findings] + result.get("findings", [])
        return result
    finally:
        archive.unlink(missing_ok=True)


def collect(source: Source, archive: Path, needed: list[int] | None = None) -> None:
    """Writes what the target asked for; everything when it was not asked."""
    places = range(len(source.entries)) if needed is None else needed
    chosen = [source.entries[place] for place in places if source.entries[place].path in source.locations]
    with open(archive, "wb") as stream:
        pack_archive(source, chosen, stream)


def round_of(source: Source, src: Path, dest: Path | str, archive: Path | None, **options: Any) -> dict[str, Any]:
    return call(source, src, dest, archive, **options).wait()


def call(source: Source, src: Path, dest: Path | str, archive: Path | None, **options: Any) -> ModuleCall:
    """One round as a process that runs."""
    process = {name: options.pop(name) for name in ("check", "diff", "prefix", "env") if name in options}
    transfer = {"manifest": pack(source.entries)}
    if source.rendered:
        transfer["rendered"] = pack_contents(source.rendered)
    if archive is not None:
        transfer["archive"] = str(archive)
    return ModuleCall("tree", {"src": str(src), "dest": str(dest), "transfer": transfer, **options}, **process)


def write(path: Path, content: str | bytes = "", mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)
    return path


def snapshot(root: Path) -> dict[str, tuple[Any, ...]]:
    """Every path below `root` but our own state: kind, mode, content."""
    found: dict[str, tuple[Any, ...]] = {}
    base = os.fsencode(root)
    for folder, folders, files in os.walk(base):
        if folder == base and b".shipshape" in folders:
            folders.remove(b".shipshape")
        for name in [*folders, *files]:
            path = os.path.join(folder, name)
            info = os.lstat(path)
            key = os.fsdecode(os.path.relpath(path, base))
            if stat.S_ISLNK(info.st_mode):
                found[key] = ("link", os.readlink(path))
            elif stat.S_ISDIR(info.st_mode):
                found[key] = ("directory", stat.S_IMODE(info.st_mode))
            else:
                with open(path, "rb") as stream:
                    found[key] = ("file", stat.S_IMODE(info.st_mode), stream.read())
    return found


class Project:
    """A source, a destination, and what ships the one to the other: the module alone, or a whole playbook."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.src = folder / "files" / "shop"
        self.dest = folder / "target" / "shop"
        self.src.mkdir(parents=True)

    def write(self, path: str, content: str | bytes = "", mode: int = 0o644) -> Path:
        return write(self.src / path, content, mode)

    def play(self, *flags: str, env: dict[str, str] | None = None, keywords: Any = None, **options: Any) -> Played:
        task = {"shipshape.deploy.tree": {"src": "shop", "dest": str(self.dest), **options}}
        return play(self.folder, task, options=list(flags), env=env, **(keywords or {}))

    def played(self, *flags: str, **options: Any) -> dict[str, Any]:
        done = self.play(*flags, **options)
        assert done.rc == 0, done.output
        return done.last

    def shipped(self, *, dest: str | None = None, **options: Any) -> dict[str, Any]:
        result = ship(self.src, dest or self.dest, **options)
        assert not result.get("failed"), result
        return result

    def refused(self, *, dest: str | None = None, **options: Any) -> dict[str, Any]:
        result = ship(self.src, dest or self.dest, **options)
        assert result.get("failed"), result
        assert "Traceback" not in str(result)
        return result

    def refused_play(self, *flags: str, **options: Any) -> dict[str, Any]:
        done = self.play(*flags, **options)
        assert done.rc != 0, done.output
        assert "Traceback" not in done.output
        return done.last


def same_but_for_time(predicted: dict[str, Any], done: dict[str, Any]) -> None:
    def told(result: dict[str, Any]) -> Any:
        actions = [(action["action"], action["target"], action["reason"]) for action in result["actions"]]
        return actions, result["files"], result["changed"], result.get("diff")

    assert told(predicted) == told(done)
