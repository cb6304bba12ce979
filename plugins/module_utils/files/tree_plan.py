# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides what `tree` does: what shall be there, what was shipped, what is found -> steps, without any I/O.

Check mode prints the plan, the run performs the same one.
"""

from __future__ import annotations

import posixpath
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..report.finding import CRITICAL, INFO, WARNING, Finding, ShipshapeError
from .manifest import DIRECTORY, FILE, JUST_MADE, LINK, Entry, Record, State, shown
from .tree_look import MISSING, SPECIAL, Found

CREATE = "create"
ADD = "add"
CHANGE = "change"
ATTRIBUTES = "set attributes"
REMOVE = "remove"

_COMPOSE_FILE = re.compile(r"(docker-)?compose(\..*)?\.ya?ml", re.DOTALL)
_KINDS = {FILE: "a file", DIRECTORY: "a directory", LINK: "a symbolic link", SPECIAL: "a special file"}


@dataclass(frozen=True)
class Owner:
    """Numeric owner and group that everything shipped shall have; None leaves each as it is."""

    uid: int | None = None
    gid: int | None = None

    def numbers(self) -> tuple[int, int]:
        """As os.chown wants them."""
        return (-1 if self.uid is None else self.uid, -1 if self.gid is None else self.gid)


@dataclass(frozen=True)
class Step:
    """One thing to do at one path.

    `entry` is None when the path goes. `keep`: what is there now goes to the backup first. `clears`: removals of what
    we shipped ourselves and is in the way of `entry`, deepest first.
    """

    action: str
    path: str
    reason: str
    entry: Entry | None
    found: Found
    keep: bool = False
    clears: tuple[Step, ...] = ()

    @property
    def wanted(self) -> Entry:
        """`entry` of a step that brings something."""
        if self.entry is None:
            raise AssertionError(f"{self.path} goes, nothing comes there")
        return self.entry


@dataclass
class Plan:
    """Steps in the order to be done in: directories, files, links, Compose files, removals.

    `record`: what will have been shipped afterwards. A directory that a step makes is in it as JUST_MADE.
    """

    steps: list[Step] = field(default_factory=list)
    record: dict[str, tuple[State, ...]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    new_record: bool = False

    def contents(self) -> list[Step]:
        """The steps that write a file's content."""
        return [step for step in self.steps if writes(step)]

    def paths(self, action: str) -> list[str]:
        """Files and links that meet with `action`, printable."""
        every = (each for step in self.steps for each in (*step.clears, step))
        chosen = (step for step in every if step.action == action and (step.entry or step.found).kind != DIRECTORY)
        return sorted(shown(step.path) for step in chosen)


def writes(step: Step) -> bool:
    return step.action in (ADD, CHANGE) and step.entry is not None and step.entry.kind == FILE


def make(
    wanted: Mapping[str, Entry], before: Record, found: Mapping[str, Found], owner: Owner, *, backup: bool
) -> Plan:
    """The plan. Raises ShipshapeError with one finding for each path where something else is in the way."""
    planner = _Planner(wanted, before, found, owner, backup)
    return planner.plan()


class _Planner:
    def __init__(
        self, wanted: Mapping[str, Entry], before: Record, found: Mapping[str, Found], owner: Owner, backup: bool
    ) -> None:
        self.wanted = wanted
        self.before = before
        self.found = found
        self.owner = owner
        self.backup = backup
        self.result = Plan()
        self.obstacles: list[Finding] = []
        self.going: dict[str, Step] = {}

    def plan(self) -> Plan:
        removals = self._removals()
        steps = [step for path in sorted(self.wanted) if (step := self._arrive(self.wanted[path])) is not None]
        if self.obstacles:
            raise ShipshapeError(*self.obstacles)
        cleared = {gone.path for step in steps for gone in step.clears}
        self.result.steps = sorted(steps, key=_rank) + [step for step in removals if step.path not in cleared]
        self.result.new_record = self.result.record != dict(self.before.shipped) or not self.before.complete
        return self.result

    def _states(self, path: str) -> tuple[State, ...]:
        return self.before.shipped.get(path, ())

    # What goes

    def _removals(self) -> list[Step]:
        """Files and links first, then directories from the deepest up."""
        steps: list[Step] = []
        for path in sorted(self.before.shipped, reverse=True):
            entry, found = self.wanted.get(path), self.found[path]
            if found.kind == MISSING or (entry is not None and entry.kind == found.kind):
                continue
            step = self._leave_directory(path, found) if found.kind == DIRECTORY else self._leave(path, found)
            if step is not None:
                self.going[path] = step
                if entry is None:
                    steps.append(step)
        return sorted(steps, key=lambda step: step.found.kind == DIRECTORY)

    def _leave(self, path: str, found: Found) -> Step | None:
        states = self._states(path)
        if found.kind not in {state.kind for state in states}:
            if path not in self.wanted:
                message = f"was shipped, is gone from src, and is {_KINDS[found.kind]} on the target now: left alone"
                self._note(WARNING, path, "left-alone", message, "Remove it by hand if nobody needs it")
            return None
        ours = found.matches(states)
        reason = "gone from src" if ours else "gone from src, was modified on the target"
        return Step(REMOVE, path, reason, None, found, keep=self.backup or not ours)

    def _leave_directory(self, path: str, found: Found) -> Step | None:
        if not any(state.attributes is not None for state in self._states(path)):
            return None  # it was there before us
        if not self.going.keys() >= set(found.inside):
            if path not in self.wanted:
                message = "is gone from src but holds files that were not shipped: left alone"
                self._note(INFO, path, "directory-kept", message, "Remove it by hand if nobody needs it")
            return None
        return Step(REMOVE, path, "gone from src", None, found)

    # What comes or stays

    def _arrive(self, entry: Entry) -> Step | None:
        path = entry.path
        found = self.found[path]
        if entry.kind == FILE and found.kind == DIRECTORY and not found.inside and path not in self.going:
            # The engine makes it where it shall mount a file that is missing; nothing is lost with it.
            self.going[path] = Step(REMOVE, path, "an empty directory in the place of a file", None, found)
        if found.kind not in (MISSING, entry.kind) and path not in self.going:
            self._obstacle(entry, found)
            return None
        if entry.kind == DIRECTORY:
            return self._directory(entry, found)
        self.result.record[path] = (State(entry.kind, entry.content),)
        if found.kind == MISSING:
            return Step(ADD, path, "new in src" if not self._states(path) else "missing on the target", entry, found)
        if found.kind == entry.kind and found.content == entry.content:
            return self._attributes(entry, found)
        ours = found.kind == DIRECTORY or found.matches(self._states(path))
        clears = self._clears(path, found) if found.kind == DIRECTORY else ()
        keep = self.backup or not ours
        return Step(CHANGE, path, self._reason(entry, found, ours), entry, found, keep, clears)

    def _reason(self, entry: Entry, found: Found, ours: bool) -> str:
        if found.kind != entry.kind:
            return f"was {_KINDS[found.kind]}"
        if not self._states(entry.path):
            return "was there before, with other content"
        if ours:
            return "changed in src"
        unchanged = any(state.content == entry.content for state in self._states(entry.path))
        return "modified on the target" if unchanged else "changed in src, modified on the target"

    def _attributes(self, entry: Entry, found: Found) -> Step | None:
        named = self._differing(entry, found, mode=entry.kind == FILE)
        return Step(ATTRIBUTES, entry.path, named, entry, found) if named else None

    def _differing(self, entry: Entry, found: Found, *, mode: bool) -> str:
        parts = []
        if mode and entry.mode != found.mode:
            parts.append(f"mode {found.mode:04o} instead of {entry.mode:04o}")
        if self.owner.uid not in (None, found.uid):
            parts.append(f"owner {found.uid} instead of {self.owner.uid}")
        if self.owner.gid not in (None, found.gid):
            parts.append(f"group {found.gid} instead of {self.owner.gid}")
        return ", ".join(parts)

    def _directory(self, entry: Entry, found: Found) -> Step | None:
        path = entry.path
        if found.kind != DIRECTORY:
            self.result.record[path] = (JUST_MADE,)
            if found.kind == MISSING:
                return Step(CREATE, path, "new in src" if not self._states(path) else "missing", entry, found)
            return Step(CREATE, path, f"was {_KINDS[found.kind]}", entry, found, clears=self._clears(path, found))
        states = self._states(path)
        if not found.matches(states):
            # Made or changed by someone else since: an application that closed its data directory knows why.
            known = tuple(state for state in states if state.kind == DIRECTORY)
            self.result.record[path] = known or (State(DIRECTORY),)
            return None
        self.result.record[path] = (State(DIRECTORY, attributes=(found.mode, found.uid, found.gid)),)
        # The setgid bit that a directory inherits is not in src.
        bits = found.mode & ~entry.mode & stat.S_ISGID
        wanted = Entry(path, DIRECTORY, entry.mode | bits)
        named = self._differing(wanted, found, mode=True)
        if not named:
            return None
        self.result.record[path] = (JUST_MADE,)
        return Step(ATTRIBUTES, path, named, wanted, found)

    def _clears(self, path: str, found: Found) -> tuple[Step, ...]:
        return tuple(self.going[name] for name in (*sorted(found.inside, reverse=True), path))

    def _obstacle(self, entry: Entry, found: Found) -> None:
        message = f"shall be {_KINDS[entry.kind]} and is {_KINDS[found.kind]} on the target that tree did not ship"
        if found.kind == DIRECTORY and self._states(entry.path):
            strangers = [path for path in found.inside if path not in self.going]
            some = f", such as {shown(strangers[0])}" if strangers else ""
            message = f"shall be {_KINDS[entry.kind]} and is a directory with files that tree did not ship{some}"
        remedy = "Move it away on the target, or leave the path out with the ignore option"
        self.obstacles.append(Finding(CRITICAL, shown(entry.path), "path-in-the-way", message, remedy))

    def _note(self, severity: str, path: str, code: str, message: str, remedy: str) -> None:
        self.result.findings.append(Finding(severity, shown(path), code, message, remedy))


def is_compose_file(path: str) -> bool:
    return _COMPOSE_FILE.fullmatch(posixpath.basename(path)) is not None


def _rank(step: Step) -> tuple[int, str]:
    """Compose files come last: who reads a new one finds everything that it names in place already."""
    if step.wanted.kind == DIRECTORY:
        return 0, step.path
    if is_compose_file(step.path):
        return 3, step.path
    return (1 if step.wanted.kind == FILE else 2), step.path
