# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a workspace is made of: a directory on the target, a branch or tag of a git repository, or next to nothing."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

from ..report.finding import ShipshapeError, failure
from ..report.result import Report

# It is kept in memory, because it is written once a slot.
_LARGEST = 64 << 20
_BRANCH, _TAG = "branch", "tag"

Run = Callable[[Sequence[str]], "tuple[int, str, str]"]


@dataclass(frozen=True)
class File:
    content: bytes
    executable: bool = False


@dataclass(frozen=True)
class Link:
    target: str


Node = Union[File, Link, Mapping[str, Any]]


@dataclass(frozen=True)
class Source:
    """Where the template comes from. `branch` or `tag` make it a git repository; an empty `place` means none."""

    place: str = ""
    branch: str = ""
    tag: str = ""

    @property
    def git(self) -> bool:
        return bool(self.branch or self.tag)


def source(workspace: Mapping[str, Any]) -> Source:
    """The template that option `workspace` names. Raises when it is not clear what is meant."""
    place = workspace.get("template") or ""
    branch, tag = workspace.get("branch") or "", workspace.get("tag") or ""
    if branch and tag:
        raise _bad("both branch and tag are given, and only one of them can be meant", "Leave out one")
    if (branch or tag) and not place:
        raise _bad("a branch or tag is given, but no repository", "Give the repository's URL as workspace.template")
    if _is_url(place) and not (branch or tag):
        raise _bad(f"{place} is a repository, and nothing says which state of it", "Give exactly one of branch and tag")
    if place.startswith("-") or branch.startswith("-") or tag.startswith("-"):
        raise _bad("a name must not begin with a dash", "Check workspace.template, branch and tag")
    return Source(place, branch, tag)


def _is_url(place: str) -> bool:
    head = place.partition("/")[0]
    return "://" in place or (":" in head and not place.startswith("/")) or place.endswith(".git")


def _bad(what: str, remedy: str) -> ShipshapeError:
    return failure("workspace", "template-invalid", what, remedy)


class Template:
    """Reads the template once, when it is needed first. `run` runs a command (argv) and gives rc, stdout, stderr."""

    def __init__(self, origin: Source, marker: Sequence[str], run: Run, cache: str, report: Report) -> None:
        self._source, self._marker, self._run, self._cache, self._report = origin, marker, run, cache, report
        self._tree: Mapping[str, Node] | None = None

    def check(self) -> None:
        """Raises for a template that cannot be used, as far as that can be told without fetching anything."""
        if self._source.place and not self._source.git:
            self.tree()

    def tree(self) -> Mapping[str, Node]:
        if self._tree is None:
            self._tree = self._read()
        return self._tree

    def _read(self) -> Mapping[str, Node]:
        if not self._source.place:
            return _least(self._marker)
        place = self._fetched() if self._source.git else self._source.place
        if not os.path.isdir(place):
            remedy = "Bring it to the target first (module tree), or check workspace.template"
            raise failure(place, "template-missing", "there is no such directory", remedy)
        tree = _loaded(place, [_LARGEST])
        if not _has(tree, self._marker):
            marker = "/".join(self._marker)
            what = f"has no {marker} with something in it, which a whole workspace is known by"
            raise failure(self._source.place, "template-without-marker", what, "Check workspace.marker")
        return tree

    # -- git --------------------------------------------------------------------------------------------------------

    def _fetched(self) -> str:
        """The directory of the cached repository. A tag is fetched once; a branch each time, unless its server is down
        and an older state of it is there."""
        origin = self._source
        ref = f"refs/tags/{origin.tag}" if origin.tag else f"refs/heads/{origin.branch}"
        key = hashlib.sha256(f"{origin.place} {ref}".encode()).hexdigest()[:16]
        folder = os.path.join(self._cache, key)
        there = os.path.exists(os.path.join(folder, ".complete"))
        if there and origin.tag:
            return folder
        os.makedirs(folder, mode=0o700, exist_ok=True)
        steps = [
            ["init", "--quiet"],
            ["fetch", "--quiet", "--depth", "1", "--no-tags", "--", origin.place, f"+{ref}:refs/shipshape"],
            ["checkout", "--quiet", "--force", "--detach", "refs/shipshape"],
            ["clean", "--quiet", "-ffdx"],
        ]
        harmless = ["-c", "protocol.ext.allow=never", "-c", "core.hooksPath=/dev/null"]
        for step in steps:
            code, _out, err = self._run(["git", "-C", folder, *harmless, *step])
            if code:
                return self._not_fetched(folder, there, ref, err)
        with open(os.path.join(folder, ".complete"), "w", encoding="utf-8"):
            return folder

    def _not_fetched(self, folder: str, there: bool, ref: str, err: str) -> str:
        words = " ".join(err.split()) or "git said nothing"
        what = f"{ref} could not be fetched: {words}"
        problem = failure(self._source.place, "template-not-fetched", what, "Check URL, branch or tag, and the login")
        if not there:
            raise problem
        self._report.warn(problem)
        return folder


def _least(marker: Sequence[str]) -> Mapping[str, Node]:
    """Without a template a workspace is its marker: a directory that is not empty."""
    tree: Mapping[str, Node] = {".keep": File(b"")}
    for part in reversed(marker):
        tree = {part: tree}
    return tree


def _loaded(folder: str, left: list[int], top: str = "") -> dict[str, Node]:
    found: dict[str, Node] = {}
    with os.scandir(folder) as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
    for entry in listed:
        if not top and entry.name in (".git", ".complete"):
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
