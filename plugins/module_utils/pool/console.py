# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the status text of applications, and the lines of their consoles and logs, are read. Pure."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Any

from .text import HEAD

_STATUS = re.compile(
    re.escape(HEAD)
    + r"\s*Total slots: *(?P<total>\d{1,9})\s*Allocated: *(?P<allocated>\d{1,9})"
    + r"\s*Free: *(?P<free>\d{1,9})\s*Expired: *(?P<expired>\d{1,9})(?!\d)"
)
# What stands in front of a line of `docker compose logs` and of `docker logs --timestamps`: a container's name, a time.
_COLOUR = re.compile(r"\x1b\[[0-9;:?]*[A-Za-z]")
_FRONT = re.compile(r"(?P<container>[\w.-]+ *\| ?)?(?:\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d) ?)?")
_LINES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], dict[str, Any]]], ...] = (
    (
        re.compile(r"\[VisitorPool\] (?:✓ )?Allocated: (?P<user>\S*?(?<!\d)(?P<slot>\d{1,9}))(?!\S)"),
        lambda found: {"event": "allocated", "user": found["user"], "slot": int(found["slot"])},
    ),
    (
        re.compile(r"\[VisitorPool\] Project ID: (?P<id>\d{1,18})(?!\S)"),
        lambda found: {"event": "project-id", "project_id": int(found["id"])},
    ),
    (
        re.compile(r"\[VisitorPool\] Project: (?P<project>\S+)"),
        lambda found: {"event": "project", "project": found["project"]},
    ),
    (
        # A number alone is a process, as gunicorn writes it.
        re.compile(
            r"\[(?P<user>(?!\d+\])[\w.-]*?(?<!\d)(?P<slot>\d{1,9}))\] \[(?P<component>[^\]]+)\] (?P<message>.*\S)"
        ),
        lambda found: {
            "event": "activity",
            "user": found["user"],
            "slot": int(found["slot"]),
            "component": found["component"],
            "message": found["message"],
        },
    ),
    (re.compile(r"Initializing visitor pool\.\.\."), lambda _found: {"event": "initializing"}),
    (re.compile(r"Visitor pool ready"), lambda _found: {"event": "ready"}),
)


def events(text: str) -> list[dict[str, Any]]:
    """What `text` tells of a visitor pool, in its order; all else in it is noise. What it tells is only what somebody
    printed: whether it is true, database and disk say."""
    found: list[tuple[int, dict[str, Any]]] = []
    said: dict[str, _Said] = {}  # lines of several containers alternate, so each has a text of its own
    for number, line in enumerate(text.splitlines(keepends=True)):
        container, rest = _without_front(line)
        found += [(number, event) for event in _in_line(rest)]
        said.setdefault(container, _Said()).add(number, rest)
    for one in said.values():
        found += one.statuses()
    return [event for _number, event in sorted(found, key=lambda entry: entry[0])]


class _Said:
    """What one container has said, and in which lines."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._numbers: list[int] = []
        self._starts: list[int] = []
        self._end = 0

    def add(self, number: int, line: str) -> None:
        self._text.append(line)
        self._numbers.append(number)
        self._starts.append(self._end)
        self._end += len(line)

    def statuses(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for found in _STATUS.finditer("".join(self._text)):
            yield self._numbers[bisect_right(self._starts, found.start()) - 1], _status(found)


def _without_front(line: str) -> tuple[str, str]:
    """Who says `line`, '' when it does not tell, and what."""
    line = _COLOUR.sub("", line)
    front = _FRONT.match(line)
    if front is None:
        return "", line
    return (front["container"] or "").rstrip(" |"), line[front.end() :]


def _status(found: re.Match[str]) -> dict[str, Any]:
    return {"event": "status", **{name: int(count) for name, count in found.groupdict().items()}}


def _in_line(line: str) -> Iterator[dict[str, Any]]:
    for pattern, made in _LINES:
        found = pattern.search(line)
        if found is not None:
            yield made(found)
            return
