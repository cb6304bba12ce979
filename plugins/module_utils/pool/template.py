# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a workspace is made of: a directory on the target, a branch or tag of a git repository, or next to nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Union

from ..report.finding import failure
from ..report.result import Report
from .origin import Run, Source

if TYPE_CHECKING:
    from .repository import Repository

# It is kept in memory, because it is written once a slot.
_LARGEST = 64 << 20
_DEEPEST = 100  # each level that is copied is a call and an open directory


@dataclass(frozen=True)
class File:
    content: bytes
    executable: bool = False


@dataclass(frozen=True)
class Link:
    target: str


Node = Union[File, Link, Mapping[str, Any]]


class Template:
    """Reads the template once, when it is needed first. `run` runs a command (argv) and gives rc, stdout, stderr."""

    def __init__(self, origin: Source, marker: Sequence[str], run: Run, cache: str, report: Report) -> None:
        self._source, self._marker = origin, marker
        self._repository: Repository | None = None
        if origin.git:
            from .repository import Repository

            self._repository = Repository(origin, run, cache, report)
        self._tree: Mapping[str, Node] | None = None

    def check(self) -> None:
        """Check mode's `tree()`: raises for a template with which that would fail, as far as it can be told without
        writing anything. Of a repository only whether its server has the branch or tag is asked."""
        if self._repository is None or self._repository.settled:
            self.tree()
        else:
            self._repository.check()

    def tree(self) -> Mapping[str, Node]:
        if self._tree is None:
            try:
                self._tree = self._read()
            except OSError as error:
                where, what = str(error.filename or self._source.place), f"cannot be read: {error.strerror or error}"
                raise failure(where, "template-invalid", what, "See who may read it, then run this again") from error
        return self._tree

    def _read(self) -> Mapping[str, Node]:
        if not self._source.place:
            return _least(self._marker)
        if self._repository is None:
            return self._loaded(self._source.place)
        with self._repository.checkout() as place:
            return self._loaded(place)

    def _loaded(self, place: str) -> Mapping[str, Node]:
        if not os.path.isdir(place):
            remedy = "Bring it to the target first (module tree), or check workspace.template"
            raise failure(place, "template-missing", "there is no such directory", remedy)
        tree = _loaded(place, [_LARGEST])
        if not _has(tree, self._marker):
            marker = "/".join(self._marker)
            what = f"has no {marker} with something in it, which a whole workspace is known by"
            raise failure(self._source.place, "template-without-marker", what, "Check workspace.marker")
        return tree


def _least(marker: Sequence[str]) -> Mapping[str, Node]:
    """Without a template a workspace is its marker: a directory that is not empty."""
    tree: Mapping[str, Node] = {".keep": File(b"")}
    for part in reversed(marker):
        tree = {part: tree}
    return tree


def _loaded(folder: str, left: list[int], top: str = "") -> dict[str, Node]:
    found: dict[str, Node] = {}
    if top.count("/") > _DEEPEST:
        what = f"is more than {_DEEPEST} directories deep"
        raise failure(
            f"{top[:40]}...", "template-invalid", what, "A template is copied into every slot: make it flatter"
        )
    with os.scandir(folder) as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
    for entry in listed:
        if not top and entry.name == ".git":
            continue
        where = f"{top}{entry.name}"
        if entry.is_symlink():
            found[entry.name] = Link(_target(where, os.readlink(entry.path)))
        elif entry.is_dir():
            found[entry.name] = _loaded(entry.path, left, f"{where}/")
        elif entry.is_file():
            found[entry.name] = _file(entry.path, left)
        else:
            raise failure(entry.path, "template-invalid", "is neither file nor directory", "Take it out")
    return found


def _file(path: str, left: list[int]) -> File:
    with open(path, "rb") as stream:
        content = stream.read(left[0] + 1)
        left[0] -= len(content)
        if left[0] < 0:
            what = f"is larger than {_LARGEST >> 20} MB with all before it"
            raise failure(path, "template-invalid", what, "A template is copied into every slot: make it smaller")
        return File(content, bool(os.fstat(stream.fileno()).st_mode & stat.S_IXUSR))


def _target(where: str, target: str) -> str:
    """A link may point to what is in the template, and nowhere else."""
    meant = os.path.normpath(os.path.join(os.path.dirname(where), target))
    if os.path.isabs(target) or meant == ".." or meant.startswith("../"):
        raise failure(where, "template-invalid", f"is a link that leads out of the template ({target})", "Take it out")
    return target


def _has(tree: Mapping[str, Node], marker: Sequence[str]) -> bool:
    node: Any = tree
    for part in marker:
        node = node.get(part) if isinstance(node, Mapping) else None
    return bool(node.content) if isinstance(node, File) else isinstance(node, Mapping) and bool(node)
