# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image is built from, as it lies on the disk: the Dockerfile, and the context without what is ignored."""

from __future__ import annotations

import filecmp
import hashlib
import json
import os
import posixpath
import re
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .disk import open_regular
from .dockerignore import DockerIgnore, has_wildcard, wildcard
from .model import Service

if TYPE_CHECKING:
    from .dockerfile import Copy

_REMOTE = re.compile(r"^([a-z][a-z0-9+.-]*://|git@|github\.com/)")
_LARGEST_TEXT = 4 << 20


@dataclass(frozen=True)
class Placed:
    """A file of the project and its place in the image. `into` is the other place that it may have: below `path`, when
    that turns out to be a directory. `text`: it stands in the Dockerfile, at `source`."""

    path: str
    source: str
    into: str = ""
    text: bytes | None = None


@dataclass(frozen=True)
class Context:
    """The build context of one service. `target` is the stage that is built, `args` are the build's arguments."""

    root: str
    dockerfile: str
    text: str | None
    target: str = ""
    args: Mapping[str, str] = field(default_factory=dict)
    ignored: DockerIgnore = field(default_factory=lambda: DockerIgnore(()))


def context_of(service: Service) -> Context | None:
    """Where the image of `service` comes from; None where that is not a directory of this machine."""
    root = service.build.get("context")
    if not isinstance(root, str) or _REMOTE.match(root) or not os.path.isdir(root):
        return None
    inline = service.build.get("dockerfile_inline")
    name = os.path.join(root, service.build.get("dockerfile") or "Dockerfile")
    text = str(inline) if inline else _text(name)
    return Context(
        root,
        "dockerfile_inline" if inline else name,
        text,
        str(service.build.get("target") or ""),
        _arguments(service.build.get("args")),
        DockerIgnore.from_text(_text(f"{name}.dockerignore") or _text(os.path.join(root, ".dockerignore")) or ""),
    )


def _arguments(given: Any) -> dict[str, str]:
    if isinstance(given, Mapping):
        return {str(name): str(value) for name, value in given.items() if value is not None}
    return dict(str(entry).split("=", 1) for entry in given or () if "=" in str(entry))


def _text(path: str) -> str | None:
    try:
        with open_regular(path) as stream:
            return stream.read(_LARGEST_TEXT).decode("utf-8", "replace")
    except OSError:
        return None


def build_digest(service: Service) -> str:
    """A digest of what the image of `service` is built from: the build section, the Dockerfile, and name, mode, size
    and time of every file in its local contexts that is not ignored. '' where that cannot be told. One file too many
    only costs a build out of the cache."""
    if not service.build:
        return ""
    found = hashlib.sha256(json.dumps(service.build, sort_keys=True).encode())
    main = context_of(service)
    if main is not None:
        found.update((main.text or "").encode("utf-8", "surrogateescape"))
        for line in sorted(_states(main.root, main.ignored)):
            found.update(line)
        for line in sorted(_to_come(service, main)):
            found.update(line)
    for other in (service.build.get("additional_contexts") or {}).values():
        if isinstance(other, str) and os.path.isdir(other):
            for line in sorted(_states(other, DockerIgnore(()))):
                found.update(line)
    return found.hexdigest()


def _to_come(service: Service, main: Context) -> Iterator[bytes]:
    """What a plan is going to find changed in the context, whose next files lie elsewhere yet. Their times say nothing:
    files that stay as they are will keep theirs."""
    staged = service.staged
    root = staged.place(main.root) if staged else ""
    if not staged or not root:
        return
    coming = context_of(replace(service, build={**service.build, "context": root}))
    if coming is None:
        return
    if coming.text != main.text:
        yield b"Dockerfile"
    for name in _below(coming.root, "", coming.ignored):
        if not _same(os.path.join(main.root, name), os.path.join(coming.root, name)):
            yield os.fsencode(name)
    for name in staged.removed:
        below = posixpath.relpath(posixpath.join(staged.of, name), main.root)
        if not below.startswith("..") and not coming.ignored.ignores(below):
            yield os.fsencode(below)


def _same(there: str, coming: str) -> bool:
    try:
        if os.path.islink(coming):  # what only the target has is linked to
            return os.readlink(coming) in (there, os.readlink(there) if os.path.islink(there) else there)
        before, after = os.lstat(there), os.lstat(coming)
    except OSError:
        return False
    return (before.st_mode, before.st_size) == (after.st_mode, after.st_size) and filecmp.cmp(there, coming, False)


def _states(directory: str, ignored: DockerIgnore) -> Iterator[bytes]:
    for name in _below(directory, "", ignored):
        try:
            status = os.lstat(os.path.join(directory, name))
        except OSError:
            continue
        state = f"{status.st_mode} {status.st_size} {status.st_mtime_ns}".encode()
        yield os.fsencode(name) + b"\0" + state


def _below(root: str, folder: str, ignored: DockerIgnore) -> Iterator[str]:
    """Every file and link below `folder`, relative to `root`, in order. Version control is no part of an image."""
    try:
        entries = sorted(os.scandir(os.path.join(root, folder)), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        name = posixpath.join(folder, entry.name)
        left_out = ignored.ignores(name)
        if entry.is_dir(follow_symlinks=False):
            if entry.name != ".git" and not (left_out and ignored.prunes):
                yield from _below(root, name, ignored)
        elif not left_out:
            yield name


def place(context: Context, copy: Copy) -> tuple[list[Placed], list[str]]:
    """The files that one COPY or ADD brings, and why others of it cannot be followed."""
    where = f"{os.path.basename(context.dockerfile)}:{copy.line}"
    found = [
        Placed(posixpath.join(copy.dest, name) if copy.into else copy.dest, where, text=body.encode())
        for name, body in copy.texts
    ]
    problems: list[str] = []
    left_out = DockerIgnore(copy.exclude)
    for pattern in copy.sources:
        matches = _matching(context, pattern)
        if not matches:
            problems.append(f"{pattern} is not in the build context")
        into = copy.into or len(matches) > 1
        for name in matches:
            path = os.path.join(context.root, name)
            if os.path.isdir(path):
                found += _tree(context, name, copy.dest, left_out)
            elif copy.unpacks and _is_archive(path):
                problems.append(f"{name} is unpacked")
            elif into:
                found.append(Placed(posixpath.join(copy.dest, posixpath.basename(name)), path))
            else:
                found.append(Placed(copy.dest, path, into=posixpath.join(copy.dest, posixpath.basename(name))))
    return found, problems


def _tree(context: Context, folder: str, dest: str, left_out: DockerIgnore) -> Iterator[Placed]:
    folder = "" if folder == "." else folder
    for name in _below(context.root, folder, context.ignored):
        below = posixpath.relpath(name, folder) if folder else name
        if not left_out.ignores(below):
            yield Placed(posixpath.join(dest, below), os.path.join(context.root, name))


def _matching(context: Context, pattern: str) -> list[str]:
    """The files and directories of the context that a source of COPY means. Nothing above the context is ever meant."""
    # A source can never lie above its context: Docker takes such a path as if the context were the root of all.
    clean = posixpath.normpath(f"/{pattern}").lstrip("/") or "."
    if not has_wildcard(clean):
        there = os.path.lexists(os.path.join(context.root, clean))
        return [clean] if there and (clean == "." or _reaches(context, clean)) else []
    found = [""]
    for part in clean.split("/"):
        expression = wildcard(part)
        found = [
            posixpath.join(folder, name)
            for folder in found
            for name in _names(os.path.join(context.root, folder))
            if expression.fullmatch(name)
        ]
    return [name for name in found if _reaches(context, name)]


def _reaches(context: Context, name: str) -> bool:
    """Whether `name` gets into the build: it is not ignored, or a directory from which something is brought back."""
    if not context.ignored.ignores(name):
        return True
    directory = os.path.isdir(os.path.join(context.root, name))
    return directory and not context.ignored.prunes and any(_below(context.root, name, context.ignored))


def _names(folder: str) -> list[str]:
    with suppress(OSError):
        return sorted(os.listdir(folder))
    return []


def _is_archive(path: str) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except OSError:
        return False
