# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a workspace is made of: a directory on the target, a branch or tag of a git repository, or next to nothing."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Union
from urllib.parse import unquote

from ..report.finding import ShipshapeError, failure
from ..report.result import Report

# It is kept in memory, because it is written once a slot.
_LARGEST = 64 << 20
_NO_SUCH_REF = 2  # of git ls-remote

_HTTP = re.compile(
    r"(?P<head>https?://)(?:(?P<user>[^/?#:]*)(?::(?P<password>[^/?#]*))?@)(?P<host>[^/?#@]*)(?P<rest>.*)",
    re.IGNORECASE,
)
# The other half of a login whose secret is the user: GitHub's word, and none at all.
_NO_PASSWORDS = ("", "x-oauth-basic")
# What git asks for a login. The arguments of a process can be read by everybody, its environment cannot.
_HELPER = (
    '!f() { test "$1" = get && printf \'username=%s\\npassword=%s\\n\' "$POOL_GIT_USER" "$POOL_GIT_PASSWORD"; }; f'
)

# argv, and what is added to the environment
Run = Callable[[Sequence[str], Mapping[str, str]], "tuple[int, str, str]"]


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
    """Where the template comes from. `branch` or `tag` make it a git repository; an empty `place` means none. A login
    that the URL of `place` had, user and password, is apart from it; `host` is what it is for, with its scheme."""

    place: str = ""
    branch: str = ""
    tag: str = ""
    login: tuple[str, str] | None = field(default=None, repr=False)
    host: str = ""

    @property
    def git(self) -> bool:
        return bool(self.branch or self.tag)


def source(workspace: Mapping[str, Any]) -> Source:
    """The template that option `workspace` names. Raises when it is not clear what is meant."""
    place, login, host = _without_login(workspace.get("template") or "")
    branch, tag = workspace.get("branch") or "", workspace.get("tag") or ""
    if branch and tag:
        raise _bad("both branch and tag are given, and only one of them can be meant", "Leave out one")
    if (branch or tag) and not place:
        raise _bad("a branch or tag is given, but no repository", "Give the repository's URL as workspace.template")
    if _is_url(place) and not (branch or tag):
        raise _bad(f"{place} is a repository, and nothing says which state of it", "Give exactly one of branch and tag")
    if place.startswith("-") or branch.startswith("-") or tag.startswith("-"):
        raise _bad("a name must not begin with a dash", "Check workspace.template, branch and tag")
    if login is not None and any(ord(character) < 32 for word in login for character in word):
        raise _bad("the login in its URL has a line break or control character in it", "Check workspace.template")
    return Source(place, branch, tag, login, host)


def _without_login(url: str) -> tuple[str, tuple[str, str] | None, str]:
    found = _HTTP.fullmatch(url)
    if found is None:
        return url, None, ""
    host = f"{found['head']}{found['host']}"
    return f"{host}{found['rest']}", (unquote(found["user"]), unquote(found["password"] or "")), host


def secrets_in(url: str) -> set[str]:
    """What in the URL of an HTTP server must not be shown: the password, or the user where there is none."""
    found = _HTTP.fullmatch(url)
    if found is None:
        return set()
    password = found["password"] or ""
    secret = found["user"] if password in _NO_PASSWORDS else password
    return {secret, unquote(secret)} - {""}


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
        """Check mode's `tree()`: raises for a template with which that would fail, as far as it can be told without
        writing anything. Of a repository only whether its server has the branch or tag is asked."""
        if not self._source.git:
            self.tree()
            return
        ref, folder, there = self._cached()
        if there and self._source.tag:
            self.tree()
            return
        code, _out, err = self._git(["ls-remote", "--quiet", "--exit-code", "--", self._source.place, ref])
        if code:
            self._not_fetched(folder, there, ref, err or ("there is none" if code == _NO_SUCH_REF else ""))

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
        ref, folder, there = self._cached()
        if there and self._source.tag:
            return folder
        os.makedirs(folder, mode=0o700, exist_ok=True)
        steps = [
            ["init", "--quiet"],
            ["fetch", "--quiet", "--depth", "1", "--no-tags", "--", self._source.place, f"+{ref}:refs/shipshape"],
            ["checkout", "--quiet", "--force", "--detach", "refs/shipshape"],
            ["clean", "--quiet", "-ffdx"],
        ]
        for step in steps:
            code, _out, err = self._git(step, folder)
            if code:
                return self._not_fetched(folder, there, ref, err)
        with open(os.path.join(folder, ".complete"), "w", encoding="utf-8"):
            return folder

    def _cached(self) -> tuple[str, str, bool]:
        """The ref that is meant, its directory in the cache, and whether it is there."""
        origin = self._source
        ref = f"refs/tags/{origin.tag}" if origin.tag else f"refs/heads/{origin.branch}"
        key = hashlib.sha256(f"{origin.place} {ref}".encode()).hexdigest()[:16]
        folder = os.path.join(self._cache, key)
        return ref, folder, os.path.exists(os.path.join(folder, ".complete"))

    def _git(self, step: Sequence[str], folder: str = "/") -> tuple[int, str, str]:
        options = ["-c", "protocol.ext.allow=never", "-c", "core.hooksPath=/dev/null"]
        environment = {}
        if self._source.login is not None:
            # Only that host is told, also when it sends us to another one.
            options += ["-c", "credential.helper=", "-c", f"credential.{self._source.host}.helper={_HELPER}"]
            environment = dict(zip(("POOL_GIT_USER", "POOL_GIT_PASSWORD"), self._source.login))
        try:
            return self._run(["git", "-C", folder, *options, *step], environment)
        except OSError as error:
            return 1, "", f"git cannot be run: {error.strerror or error}"

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
