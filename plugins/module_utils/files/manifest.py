# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The two lists that `tree` compares: what the source holds now, and what it shipped to this target before.

Paths are relative, with slashes, and text in which bytes that are not UTF-8 are surrogates (as os.fsdecode makes
them); JSON carries those as escapes.
"""

from __future__ import annotations

import base64
import json
import os
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..report.finding import failure

FILE = "file"
DIRECTORY = "directory"
LINK = "link"

_FORMAT = 1
_ENV_NAME = re.compile(r"\.env(\..*)?|.*\.env", re.DOTALL)


@dataclass(frozen=True)
class Entry:
    """One path that shall be there. `content` is a file's SHA-256, a link's text, and empty for a directory.

    `private` content is never shown in a diff.
    """

    path: str
    kind: str
    mode: int = 0
    size: int = 0
    content: str = ""
    private: bool = False


@dataclass(frozen=True)
class State:
    """What a path was when we left it: `content` as in Entry; `attributes` (mode, uid, gid) of a directory we made.

    A directory without attributes was there before us: it is not ours to change or remove.
    """

    kind: str
    content: str = ""
    attributes: tuple[int, int, int] | None = None


# A directory between its mkdir and its final attributes.
JUST_MADE = State(DIRECTORY, attributes=(0o700, -1, -1))


@dataclass(frozen=True)
class Record:
    """All that we shipped to one target, each path with the states that it may be in.

    More than one only while a run is under way or after one that was killed: `complete` is False from before the
    first change until after the last.
    """

    shipped: Mapping[str, tuple[State, ...]] = field(default_factory=dict)
    complete: bool = True


def pack(entries: Iterable[Entry]) -> str:
    """The manifest on its way to the target: text without a space, about 60 bytes a file."""
    rows = [[e.path, e.kind, e.mode, e.size, e.content, e.private] for e in entries]
    return base64.b64encode(zlib.compress(json.dumps(rows, separators=(",", ":")).encode(), 6)).decode()


def unpack(text: str) -> list[Entry]:
    return [Entry(*row) for row in json.loads(zlib.decompress(base64.b64decode(text)))]


def pack_contents(contents: Mapping[str, bytes]) -> str:
    """Rendered files on their way to the target; opaque, so that nothing masks or logs parts of it."""
    plain = {path: base64.b64encode(content).decode() for path, content in contents.items()}
    return base64.b64encode(zlib.compress(json.dumps(plain).encode())).decode()


def unpack_contents(text: str) -> dict[str, bytes]:
    plain = json.loads(zlib.decompress(base64.b64decode(text)))
    return {path: base64.b64decode(content) for path, content in plain.items()}


def dump_record(record: Record) -> bytes:
    shipped = {path: [_row(state) for state in states] for path, states in sorted(record.shipped.items())}
    content = {"format": _FORMAT, "complete": record.complete, "shipped": shipped}
    return json.dumps(content, separators=(",", ":")).encode()


def load_record(path: str, content: bytes) -> Record:
    """The record that lies at `path`. What cannot be read is an error: to guess could remove the wrong files."""
    try:
        data = json.loads(content)
        if data["format"] != _FORMAT:
            message = f"has format {data['format']}, written by another version of shipshape.deploy"
            raise failure(path, "manifest-unreadable", message, "Deploy with the version that wrote it, or a newer one")
        shipped = {safe(name): tuple(map(_state, rows)) for name, rows in data["shipped"].items()}
        return Record(shipped, bool(data["complete"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        remedy = "Move it away to have everything in place taken over as it is, and remove by hand what is gone"
        raise failure(path, "manifest-unreadable", f"is damaged ({type(error).__name__})", remedy) from error


def merged(before: Record, now: Mapping[str, Iterable[State]]) -> Record:
    """Everything that may be there while a run is under way: killed at any instant, the next run knows it as ours."""
    union = dict(before.shipped)
    for path, states in now.items():
        old = union.get(path, ())
        union[path] = old + tuple(state for state in states if state not in old)
    return Record(union, complete=False)


def safe(path: str) -> str:
    """`path`, if it stays below the directory that it is joined to, and out of what is our own there."""
    parts = path.split("/")
    if not path or "\0" in path or any(part in ("", ".", "..") for part in parts) or parts[0] == ".shipshape":
        raise ValueError(f"not a path inside the tree: {path!r}")
    return path


def is_env_name(path: str) -> bool:
    """Whether `path` is named as files with secrets are: `.env`, `.env.production`, `web.env`."""
    return _ENV_NAME.fullmatch(os.path.basename(path)) is not None


def shown(path: str) -> str:
    """`path` as it can be printed anywhere: bytes that are not UTF-8 as escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _row(state: State) -> list[Any]:
    if state.kind == DIRECTORY:
        return [DIRECTORY, *(state.attributes or ())]
    return [state.kind, state.content]


def _state(row: list[Any]) -> State:
    kind, *rest = row
    if kind == DIRECTORY and len(rest) in (0, 3):
        return State(kind, attributes=(int(rest[0]), int(rest[1]), int(rest[2])) if rest else None)
    if kind in (FILE, LINK) and len(rest) == 1:
        return State(kind, str(rest[0]))
    raise ValueError(kind)
