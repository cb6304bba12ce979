# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What files hold, in the project, in an image and in a container. An image is read without being run: a container of
it is created, read and removed."""

from __future__ import annotations

import hashlib
import io
import os
import posixpath
import re
import secrets
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any, BinaryIO

from .connection import Connection, EngineRefusedError
from .disk import open_regular

LABEL_READING = "io.shipshape.deploy.reading"
_COMPOSE = "com.docker.compose."

_PIECE = 1 << 20
# A version stands near the beginning of a file, and a pattern is looked for in a text.
_SEARCHED = 4 << 20
_MOST_LINKS = 8
# The engine mounts a container's files for each request, and has little to gain from more of them at once.
_READERS = 4
# Up to so many files one request each costs less than whole directories with whatever else they hold.
_ONE_BY_ONE = 200
# What a run on another machine may take to read an image: one that is older was left behind.
_OLD = 600.0


@dataclass(frozen=True)
class Content:
    """What one file holds. `version`: what the marker found in it; None without a marker, or where it found nothing."""

    digest: str
    lines: int = 0
    version: str | None = None
    text: str = ""  # as much of it as may be searched, only where it is to be searched

    @property
    def spoken(self) -> str:
        if self.digest.startswith("link:"):
            return f"a link to {self.digest[5:]}"
        return f"{self.lines} lines, {self.digest[:12]}"


class Reader:
    """Turns bytes into contents. `marker`: the pattern that finds a version; `keeping`: whether the text is kept."""

    def __init__(self, marker: re.Pattern[str] | None = None, *, keeping: bool = False) -> None:
        self._marker = marker
        self._keeping = keeping

    def of(self, stream: IO[bytes]) -> Content:
        whole, lines, head = hashlib.sha256(), 0, b""
        while piece := stream.read(_PIECE):
            whole.update(piece)
            lines += piece.count(b"\n")
            if (self._marker or self._keeping) and len(head) < _SEARCHED:
                head += piece
        text = head.decode("utf-8", "replace")
        return Content(whole.hexdigest(), lines, found_version(self._marker, text), text if self._keeping else "")

    def of_bytes(self, body: bytes) -> Content:
        return self.of(io.BytesIO(body))

    def source(self, path: str, *, follow: bool = False) -> Content | None:
        """A file of the project; None when there is no such file. A link is what it points to only with `follow`."""
        try:
            if not follow and os.path.islink(path):
                return Content(f"link:{os.readlink(path)}")
            with open_regular(path) as stream:
                return self.of(stream)
        except OSError:
            return None


def found_version(marker: re.Pattern[str] | None, text: str) -> str | None:
    """What `marker` finds in `text`: its first group that took part, or all of it."""
    found = marker.search(text) if marker else None
    if not found:
        return None
    return next((group for group in found.groups() if group is not None), found[0])


# -- in a container --------------------------------------------------------------------------------------------------


def read_all(
    connection: Connection, container_id: str, paths: Iterable[str], reader: Reader, *, follow: frozenset[str]
) -> dict[str, Content | None]:
    """The files at `paths` of a container, running or not. Those in `follow` are read through links."""
    wanted = sorted(set(paths))
    if len(wanted) <= _ONE_BY_ONE:
        alone = wanted
        found: dict[str, Content | None] = {}
    else:
        roots = cover(wanted, _ONE_BY_ONE)
        whole = _side_by_side(lambda root: _directory(connection, container_id, root, reader), roots)
        found = {path: content for below in whole if below is not None for path, content in below.items()}
        linked = [root for root, below in zip(roots, whole) if below is None]
        alone = [
            path
            for path in wanted
            if any(f"{path}/".startswith(f"{root.rstrip('/')}/") for root in linked)
            or (path in follow and (content := found.get(path)) and content.digest.startswith("link:"))
        ]
    single = _side_by_side(lambda path: read_one(connection, container_id, path, reader, path in follow), alone)
    return {path: found.get(path) for path in wanted} | dict(zip(alone, single))


def cover(paths: Sequence[str], most: int) -> list[str]:
    """At most `most` paths, files or directories, that hold all of `paths`, as deep down as possible; never the whole
    root: a directory of the first level is the widest. Pure."""
    roots = sorted(set(paths))
    depth = max((path.count("/") for path in roots), default=0)
    while len(roots) > most and depth > 1:
        depth -= 1
        roots = sorted({"/".join(path.split("/")[: depth + 1]) for path in roots})
    return [root for root in roots if not any(root.startswith(f"{other}/") for other in roots)]


def read_one(
    connection: Connection, container_id: str, path: str, reader: Reader, follow: bool = True
) -> Content | None:
    """One file of a container; None when there is no such file, or something else has that name."""
    for _dummy in range(_MOST_LINKS):
        found = _archive(connection, container_id, path, reader, first_only=True)
        content = found.get(posixpath.basename(path)) if found else None
        if content is None or not follow or not content.digest.startswith("link:"):
            return content
        path = posixpath.normpath(posixpath.join(posixpath.dirname(path), content.digest[5:]))
    return None


def _directory(connection: Connection, container_id: str, root: str, reader: Reader) -> dict[str, Content] | None:
    """Everything at or below `root`; None when `root` is a link, which an archive does not follow."""
    above = posixpath.dirname(root)
    found = _archive(connection, container_id, root, reader)
    if found and (top := found.get(posixpath.basename(root))) and top.digest.startswith("link:"):
        return None
    return {posixpath.join(above, name): content for name, content in (found or {}).items()}


def _archive(
    connection: Connection, container_id: str, path: str, reader: Reader, *, first_only: bool = False
) -> dict[str, Content] | None:
    """The files in the engine's archive of `path`, by their names in it; None when there is no such path."""

    def take(stream: BinaryIO) -> dict[str, Content]:
        found: dict[str, Content] = {}
        with tarfile.open(fileobj=stream, mode="r|") as entries:
            for entry in entries:
                name = entry.name.rstrip("/")
                if entry.issym():
                    found[name] = Content(f"link:{entry.linkname}")
                elif entry.islnk() and entry.linkname in found:
                    found[name] = found[entry.linkname]
                elif entry.isreg() and (body := entries.extractfile(entry)) is not None:
                    found[name] = reader.of(body)
                if first_only:
                    break
        return found

    try:
        found: dict[str, Content] = connection.read(f"/containers/{container_id}/archive", take, path=path)
    except EngineRefusedError as refused:
        # Where a part of the path is a file the engine speaks of an error of its own (500).
        if refused.status in (400, 404) or "not a directory" in refused.findings[0].message:
            return None
        raise
    return found


# -- in an image -----------------------------------------------------------------------------------------------------


@contextmanager
def opened(connection: Connection, document: Mapping[str, Any]) -> Iterator[str]:
    """The id of a container of the image with inspect document `document`, which is never started."""
    config = document.get("Config") or {}
    # A built image bears Compose's labels: with those the container would count as one of the project.
    labels = {name: "" for name in config.get("Labels") or {} if name.startswith(_COMPOSE)}
    wish = {
        "Image": document["Id"],
        "Entrypoint": ["-"],
        "Labels": {**labels, LABEL_READING: _ourselves()},
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            "NetworkMode": "none",
            # Otherwise the engine would make an anonymous volume for each, and copy into it what the image holds there.
            "Tmpfs": dict.fromkeys(config.get("Volumes") or (), ""),
        },
    }
    made = connection.post("/containers/create", wish, name=f"shipshape-reading-{secrets.token_hex(6)}")
    try:
        yield made["Id"]
    finally:
        _remove(connection, made["Id"])


def _remove(connection: Connection, container_id: str) -> None:
    with suppress(EngineRefusedError):  # gone, or being removed by somebody else
        connection.delete(f"/containers/{container_id}", force="1", v="1")


def sweep(connection: Connection) -> None:
    """Removes what runs that were killed while they read an image have left."""
    listed = connection.get("/containers/json", all="1", filters={"label": [LABEL_READING]})
    for entry in listed:
        owner = (entry.get("Labels") or {}).get(LABEL_READING, "")
        if entry.get("State") == "created" and _is_gone(owner, time.time() - float(entry.get("Created") or 0)):
            _remove(connection, entry["Id"])


def _ourselves() -> str:
    """Who reads: nothing but this very process has the same text."""
    return f"{_machine()} {os.getpid()} {_begun(os.getpid())}"


def _is_gone(owner: str, age: float) -> bool:
    machine, _dummy, process = owner.rpartition(" ")[0].rpartition(" ")
    if machine != _machine() or not process.isdigit():
        return age > _OLD  # another machine's: only time tells
    return _begun(int(process)) != owner.rpartition(" ")[2]


def _machine() -> str:
    """This start of this machine, and the process numbers that are seen here (those of a container are its own)."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
            return f"{stream.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return "unknown"


def _begun(process: int) -> str:
    """When `process` began, in the kernel's own count; '' when there is none."""
    try:
        with open(f"/proc/{process}/stat", encoding="ascii", errors="replace") as stream:
            return stream.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _side_by_side(work: Any, items: Sequence[Any]) -> list[Any]:
    if len(items) < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(min(_READERS, len(items))) as readers:
        return list(readers.map(work, items))
