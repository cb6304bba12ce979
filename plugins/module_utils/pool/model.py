# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a visitor pool is made of: its settings, and what was found of each slot in database and on disk. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from ..report.finding import ShipshapeError, failure

# Session keys that no session can have. An application that does not know them sees leases that never end.
RESETTING = "shipshape:resetting"
QUARANTINED = "shipshape:quarantined"
_OURS = "shipshape:"
FOREVER = datetime(9999, 12, 31, tzinfo=timezone.utc)

# What a slot can be; a slot is exactly one of these.
ALLOCATABLE, LEASED, EXPIRED = "allocatable", "leased", "expired"
CLEANING, HELD, MISSING = "resetting", "quarantined", "missing"
STATES = (ALLOCATABLE, LEASED, EXPIRED, CLEANING, HELD, MISSING)

# What a slot is made of.
USER, PROJECT, DIRECTORY, WORKSPACE, ALLOCATION = "user", "project", "directory", "workspace", "allocation"
ARTEFACTS = (USER, PROJECT, DIRECTORY, WORKSPACE, ALLOCATION)

_DIGITS = 3
# More is a slip of the hand: each slot has an account and a directory, and each run looks at all of them.
_LARGEST = 1_000_000
# What a column of type integer holds, and a key of PostgreSQL's advisory locks.
MOST = 2**31 - 1
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ALLOWED = "letters of English, digits, dot, dash and underscore, a letter or digit"
_NUMBERED = re.compile(r".*?[^0-9](0\d\d|[1-9]\d{2,8})")
# What Django lets a user be called, less a leading dot: it becomes the name of a directory.
# That takes so many bytes; letters other than English ones are more than one each.
_LONGEST = 255
_USERNAME = re.compile(r"[\w@+-][\w.@+-]{0,149}")


@dataclass(frozen=True)
class Settings:
    """What is wanted. `path` and `marker` are the parts of the workspace's place in a project's directory."""

    size: int = 32
    prefix: str = "visitor-"
    project: str = "default-project"
    path: tuple[str, ...] = ()
    marker: tuple[str, ...] = ()

    def name(self, number: int) -> str:
        """The user of slot `number`, which is the name of its directory, too."""
        return f"{self.prefix}{number:0{_DIGITS}d}"

    def number(self, name: str) -> int | None:
        """The slot whose user is called `name`; None for anybody else."""
        digits = name[len(self.prefix) :] if name.startswith(self.prefix) else ""
        if not (digits.isascii() and digits.isdigit()) or len(digits) > len(str(MOST)):
            return None
        number = int(digits)
        return number if 0 < number <= MOST and self.name(number) == name else None


def stranger(name: str, wanted: Settings) -> int | None:
    """The slot that `name` would be in a pool with another prefix; None when it would be none."""
    found = _NUMBERED.fullmatch(name)
    if found is None or wanted.number(name) is not None:
        return None
    return int(found[1])


def settings(options: Mapping[str, Any]) -> Settings:
    """The settings in a module's options. Nothing in them can lead out of data_root."""
    size, prefix, project = options["size"], options["prefix"], options["project"]
    if size < 0:
        raise _bad("size", f"{size} is less than nothing", "Give the number of slots, 0 for none")
    if size > _LARGEST:
        raise _bad("size", f"{size} slots are more than a pool can have", f"Give a number up to {_LARGEST}")
    if not _PREFIX.fullmatch(prefix) or prefix[-1].isdigit():
        what = f"{prefix!r} cannot begin the name of a user and of a directory"
        raise _bad("prefix", what, f"Use {_ALLOWED} first, no digit last, and at most 64 of them")
    if not _NAME.fullmatch(project):
        what = f"{project!r} cannot be the name of a directory"
        raise _bad("project", what, f"Use {_ALLOWED} first, and at most 100 of them")
    workspace = options["workspace"]
    path, marker = parts(workspace["path"], "workspace.path"), parts(workspace["marker"], "workspace.marker")
    if not marker:
        raise _bad("workspace.marker", "is empty", "Name a file or directory that a whole workspace has")
    return Settings(size, prefix, project, path, marker)


def parts(path: str, option: str) -> tuple[str, ...]:
    """A relative path in its parts; raises for one that is absolute or leads upwards."""
    found = tuple(part for part in path.split("/") if part not in ("", "."))
    if path.startswith("/") or ".." in found or "\0" in path:
        raise _bad(option, f"{path!r} leads out of the project's directory", "Give a path inside of it")
    return found


def is_directory_name(username: str) -> bool:
    """Whether a directory below data_root can have the name of this user."""
    return bool(_USERNAME.fullmatch(username)) and len(username.encode()) <= _LONGEST


def _bad(option: str, what: str, remedy: str) -> ShipshapeError:
    return failure(option, "option-invalid", what, remedy)


@dataclass(frozen=True)
class User:
    """An account. `protected` says why it is a real person's and is never touched; '' for a visitor's. The slot of one
    that is not `active` is not offered: it drains."""

    id: Any
    name: str
    protected: str = ""
    flag: bool | None = None
    active: bool | None = None  # None: the application knows no such thing


@dataclass(frozen=True)
class Project:
    """A slot's project. `others`: how many more the same user has."""

    id: Any
    flag: bool | None = None


@dataclass(frozen=True)
class Lease:
    """A slot's row of the table of allocations. `seen` is that row as the database gave it: what is changed is changed
    on condition that it still is that row. `odd`: what stands where its end should, and is no time."""

    number: int
    session_key: str
    token: str
    expires_at: datetime | None
    active: bool
    seen: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    odd: str = ""

    @property
    def ours(self) -> bool:
        """Whether it stands for no visitor but for something that is done to the slot."""
        return self.session_key.startswith(_OURS)


@dataclass(frozen=True)
class OnDisk:
    """What is on disk of a slot. `present`: anything of its name; `blocked` says what is in the way, '' for nothing;
    `denied` why the application may not work in it."""

    present: bool = False
    directory: bool = False
    workspace: bool = False
    blocked: str = ""
    denied: str = ""


@dataclass(frozen=True)
class Slot:
    number: int
    name: str
    user: User | None = None
    project: Project | None = None
    lease: Lease | None = None
    disk: OnDisk = OnDisk()
    others: int = 0  # projects of its user beside its own

    @property
    def there(self) -> bool:
        """Whether anything of it is there."""
        return bool(self.user or self.project or self.lease or self.disk.present)

    @property
    def foreign(self) -> str:
        """Why its user is not ours to touch; '' when it is."""
        return self.user.protected if self.user else ""

    @property
    def missing(self) -> tuple[str, ...]:
        """The artefacts that are not there."""
        held = {
            USER: self.user is not None,
            PROJECT: self.project is not None,
            DIRECTORY: self.disk.directory,
            WORKSPACE: self.disk.workspace,
            ALLOCATION: self.lease is not None,
        }
        return tuple(name for name in ARTEFACTS if not held[name])


@dataclass(frozen=True)
class Seen:
    """The whole pool at one moment, by database and disk."""

    settings: Settings
    now: datetime
    slots: Mapping[int, Slot] = field(default_factory=dict)
    strays: tuple[Lease, ...] = ()  # rows with a number that no slot can have
    denied: str = ""  # why the application does not come to the slots at all

    def slot(self, number: int) -> Slot:
        return self.slots.get(number) or Slot(number, self.settings.name(number))
