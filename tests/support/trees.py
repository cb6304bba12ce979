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
