# SPDX-License-Identifier: GPL-3.0-or-later
"""Links what only the target has into the directory that a plan is made from.

Run by the target's own Python (>= 3.9, standard library only). BESIDE says where, as JSON: {"dest": the real place,
"staged": the plan's, with the project as it ships, "removed": [paths that will not be in the real place any more]}.
"""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Iterator
from contextlib import suppress


def above(paths: list[str]) -> set[str]:
    """Every directory that `paths`, which are relative, lie in."""
    found = set()
    for path in paths:
        while path := posixpath.dirname(path):
            found.add(path)
    return found


def lacking(dest: str, staged: str, removed: list[str]) -> Iterator[str]:
    """The paths below `dest` to link into `staged`: a directory into which nothing ships is one of them."""
    gone, emptied = set(removed), above(removed)

    def walk(below: str) -> Iterator[str]:
        with suppress(OSError):  # what may not be read cannot be planned from either
            for entry in sorted(os.scandir(posixpath.join(dest, below)), key=lambda entry: entry.name):
                name = posixpath.join(below, entry.name)
                at = posixpath.join(staged, name)
                shipped = os.path.isdir(at) and not os.path.islink(at)
                if name in gone:
                    continue
                if entry.is_dir(follow_symlinks=False) and (shipped or (name in emptied and not os.path.lexists(at))):
                    yield from walk(name)
                elif not os.path.lexists(at):
                    yield name

    return walk("")


def link(dest: str, staged: str, removed: list[str]) -> None:
    """Links everything that is `lacking`."""
    for name in list(lacking(dest, staged, removed)):
        at = posixpath.join(staged, name)
        os.makedirs(posixpath.dirname(at), exist_ok=True)
        os.symlink(posixpath.join(dest, name), at)


if __name__ == "__main__":
    link(**json.loads(os.environ["BESIDE"]))
