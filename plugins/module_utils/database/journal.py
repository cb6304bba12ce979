# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an unfinished rotation leaves beside the env file, so that no password is ever lost: the old and the new."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from ..report.finding import failure

_VERSION = 1


@dataclass(frozen=True)
class Journal:
    """`user` gets `new`; `old` are the passwords that may still be the ones that work. `path` is the file itself."""

    path: str
    user: str
    old: tuple[str, ...]
    new: str

    def content(self) -> bytes:
        return (json.dumps({"version": _VERSION, **asdict(self)}, indent=1) + "\n").encode()

    def remove(self) -> None:
        os.unlink(self.path)
        directory = os.open(os.path.dirname(self.path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def beside(env_file: str) -> str:
    """Where the journal of a rotation that rewrites `env_file` lies."""
    folder, name = os.path.split(env_file)
    return os.path.join(folder, f".{name.lstrip('.')}.shipshape-rotation")


def find(env_files: Iterable[str]) -> Journal | None:
    """The journal of a rotation that was not finished. Raises for one that cannot be read."""
    there = [path for path in sorted(map(beside, env_files)) if os.path.lexists(path)]
    return _read(there[0]) if there else None


def _read(path: str) -> Journal:
    try:
        with open(path, encoding="utf-8") as stream:
            document = json.load(stream)
        if document["version"] != _VERSION:
            raise ValueError("another version")
        return Journal(path, document["user"], tuple(document["old"]), document["new"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = "an unfinished rotation has left this file, and it cannot be read"
        remedy = "It may hold the only copy of a password: look at it by hand before you remove it"
        raise failure(path, "rotation-journal-unreadable", what, remedy) from error
