# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pool on disk as it is looked at. Everything is reached from an open directory, name by name, and no symbolic link
is followed: whoever may write in a workspace could put one there, and what we do we do as root.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress

from ..report.finding import failure
from .model import MOST, OnDisk, Settings
from .walk import DIRECTORY, OURS, HostPath, descend, is_old, is_text, marked, walk

SCRATCH = ".visitor-pool"
JOURNAL = "transfer-"
MARK = ".from-"  # of an application's own transfer, in an account's directory


def refuse_link(place: HostPath) -> None:
    link = place.link()
    if link:
        what = f"is a symbolic link (to {os.readlink(link)}) where containers can write: it could lead anywhere here"
        remedy = "Put the directory itself there, or mount a volume at the path that it leads to"
        raise failure(link, "data-linked", what, remedy)


class Anyone:
    """Who works in a data_root when nobody knows who: all is open to him. See access."""

    denied = ""

    def refusal(self, _root: int, _names: Sequence[str], _depth: int) -> str:
        return ""

    def need(self) -> None:
        """Nothing is refused."""


class DataRoot:
    """data_root, open. New entries get its owner and its mode."""

    def __init__(self, place: HostPath, settings: Settings, access: Anyone) -> None:
        self.path, self._settings, self.access = str(place), settings, access
        try:
            self.fd = descend(place.mount, place.parts)
        except OSError as error:
            refuse_link(place)
            what = f"cannot be used as data_root: {error.strerror}"
            remedy = "It must be a directory that is there, with the owner and the mode that all in it shall have"
            raise failure(self.path, "data-root-missing", what, remedy) from error
        about = os.fstat(self.fd)
        self._uid, self._gid, self._mode = about.st_uid, about.st_gid, stat.S_IMODE(about.st_mode)
        self._give_away = (about.st_uid, about.st_gid) != (os.geteuid(), os.getegid())

    def close(self) -> None:
        os.close(self.fd)

    def locked(self, wait: float) -> AbstractContextManager[None]:
        """Nobody else works on it: by whatever path, and as whatever user, he has come to it."""
        from ..engine.lock import directory_locked

        return directory_locked(self.fd, self.path, wait)

    # -- looking ----------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        return [name for name in os.listdir(self.fd) if is_text(name)]  # what is none can be no account's

    def look(self, name: str) -> OnDisk:
        """What there is of the slot whose directory is called `name`."""
        wanted = (name, self._settings.project, *self._settings.path, *self._settings.marker)
        with walk(self.fd, wanted[:-1]) as (depth, at, blocked):
            workspace, obstacle = marked(at, wanted[-1]) if depth == len(wanted) - 1 else (False, blocked)
            where = f"{obstacle} (in {self.path})" if obstacle else ""
            denied = self.access.refusal(self.fd, wanted, depth + workspace)
            return OnDisk(depth > 0 or bool(obstacle), depth >= 2, workspace, where, denied)

    def inode(self, *parts: str) -> int:
        """Of what has this name; 0 when nothing has."""
        with walk(self.fd, parts[:-1]) as (depth, at, _blocked):
            if depth < len(parts) - 1:
                return 0
            with suppress(FileNotFoundError):
                return os.stat(parts[-1], dir_fd=at, follow_symlinks=False).st_ino
        return 0

    def marks(self, beginning: str) -> list[tuple[str, str]]:
        """Directories with an entry whose name begins so, and how that goes on."""
        found = []
        for name in self.names():
            with suppress(OSError):  # gone meanwhile, or no directory
                fd = os.open(name, DIRECTORY, dir_fd=self.fd)
                try:
                    found += [(name, at[len(beginning) :]) for at in os.listdir(fd) if at.startswith(beginning)]
                finally:
                    os.close(fd)
        return found

    # -- the scratch directory --------------------------------------------------------------------------------------

    def has_leftovers(self) -> bool:
        """Whether a killed run has left something, if only an empty scratch directory."""
        if not self.inode(SCRATCH):
            return False
        with self.scratch() as scratch:
            return bool(self._leftovers(scratch)) or not os.listdir(scratch)

    def unfinished(self) -> list[int]:
        """The slots whose transfers were not brought to their end."""
        if not self.inode(SCRATCH):
            return []
        with self.scratch() as scratch:
            numbers = (name[len(JOURNAL) : -len(".json")] for name in os.listdir(scratch) if name.startswith(JOURNAL))
            known = (int(number) for number in numbers if number.isdecimal() and len(number) <= len(str(MOST)))
            return sorted(number for number in known if self.inode(SCRATCH, journal(number)))

    def _leftovers(self, scratch: int) -> list[str]:
        """What others have there is theirs for an hour."""
        names = os.listdir(scratch)
        return [at for at in names if at.startswith(OURS) or (not at.startswith(JOURNAL) and is_old(scratch, at))]

    @contextmanager
    def scratch(self) -> Iterator[int]:
        """The scratch directory, open; made when it is not there."""
        try:
            fd = os.open(SCRATCH, DIRECTORY, dir_fd=self.fd)
        except FileNotFoundError:
            with suppress(FileExistsError):
                os.close(self._mkdir(self.fd, SCRATCH))
            fd = os.open(SCRATCH, DIRECTORY, dir_fd=self.fd)
        try:
            yield fd
        finally:
            os.close(fd)

    def _mkdir(self, at: int, name: str) -> int:
        os.mkdir(name, self._mode & 0o777, dir_fd=at)
        fd = os.open(name, DIRECTORY, dir_fd=at)
        if self._give_away:
            os.fchown(fd, self._uid, self._gid)
        os.fchmod(fd, self._mode)
        return fd


def journal(slot: int) -> str:
    """The file in the scratch directory in which a transfer writes down what it is about to do."""
    return f"{JOURNAL}{slot}.json"


@contextmanager
def told_of(path: str) -> Iterator[None]:
    """What data_root refuses is an error with words, and not a traceback that loses the report."""
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        what = f"it could not be worked in: {where}{error.strerror or error}"
        remedy = "Mend that, then run this again: it finishes what was begun, if anything was"
        raise failure(path, "data-root-refused", what, remedy) from error
