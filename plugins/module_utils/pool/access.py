# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the application may work in a directory. Modules look as root, to whom everything is open; the application
may be somebody else, and after an image with another user all its directories are another's."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..report.finding import failure
from .judge import OPEN_IT
from .walk import HostPath

READ, WRITE, ENTER = 4, 2, 1
_OVERRIDE, _READ_SEARCH = 1 << 1, 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
_ACL = "system.posix_acl_access"

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Worker:
    """A process of the application, with the numbers that the file system has. `uids` and `gids`: the first and how
    many of those over whose files its `capabilities` reach."""

    uid: int
    groups: frozenset[int]
    capabilities: int = 0
    uids: Ranges = ()
    gids: Ranges = ()

    def lacks(self, about: os.stat_result, wanted: int) -> bool:
        """Whether the mode refuses some of what is `wanted` of such a file or directory. Pure."""
        if _within(about.st_uid, self.uids) and _within(about.st_gid, self.gids):
            if self.capabilities & _OVERRIDE:
                return False
            if self.capabilities & _READ_SEARCH:
                wanted &= WRITE
        shift = 6 if about.st_uid == self.uid else 3 if about.st_gid in self.groups else 0
        return bool(wanted & ~(about.st_mode >> shift))

    def refusal(self, path: str, wanted: int, at: int | None = None) -> str:
        """Why it cannot use what is at `path`; '' when it can, or when nothing is there to be judged."""
        try:
            about = os.stat(path, dir_fd=at, follow_symlinks=False)
            if not self.lacks(about, wanted) or _has_acl(path, at):
                return ""
        except OSError:
            return ""
        owner = f"{about.st_uid}:{about.st_gid}, mode {stat.S_IMODE(about.st_mode):04o}"
        return f"the application runs as user {self.uid}, and {path} is {owner}"


class Access:
    """What `worker` may do in a data_root; nothing is refused when nobody knows who works there."""

    def __init__(self, place: HostPath, worker: Worker | None) -> None:
        self._path, self._worker = str(place), worker
        self.denied = self._shut(place)  # why it does not even come to the slots; '' when it does

    def _shut(self, place: HostPath) -> str:
        if self._worker is None:
            return ""
        paths = [place.mount]  # where its way begins
        for part in place.parts:
            paths.append(os.path.join(paths[-1], part))
        reasons = (self._worker.refusal(path, ENTER) for path in paths)
        return next((reason for reason in reasons if reason), "")

    def refusal(self, root: int, names: Sequence[str], depth: int) -> str:
        """Why it cannot work in a slot, given the names down to the marker and how many of them are there."""
        if self._worker is None or self.denied:
            return ""
        for count in range(1, depth + 1):
            # A workspace is written in; what is above it is passed; the marker is read.
            wanted = {len(names): READ, len(names) - 1: READ | WRITE | ENTER}.get(count, ENTER)
            why = self._worker.refusal("/".join(names[:count]), wanted, root)
            if why:
                return why
        return ""

    def need(self) -> None:
        """Raises when it could not work in what is made with owner and mode of data_root."""
        why = self.denied
        if not why and self._worker is not None:
            why = self._worker.refusal(self._path, READ | WRITE | ENTER)
        if why:
            raise failure(self._path, "data-root-denied", why, OPEN_IT)


def _within(number: int, ranges: Ranges) -> bool:
    return any(first <= number < first + count for first, count in ranges)


def _has_acl(path: str, at: int | None) -> bool:
    """Whether others are let in by name, which no mode tells."""
    try:
        return bool(os.getxattr(path if at is None else f"/proc/self/fd/{at}/{path}", _ACL, follow_symlinks=False))
    except OSError:
        return False


def worker(process: int, container: str) -> Worker | None:
    """The process, if it is seen here and is of the container with this id; None otherwise."""
    try:
        folder = f"/proc/{process}/"
        if container not in _text(folder + "cgroup") and container not in _text(folder + "mountinfo"):
            return None  # the engine counts processes elsewhere than we do
        return parsed(_text(folder + "status"), _text(folder + "uid_map"), _text(folder + "gid_map"))
    except (OSError, ValueError, KeyError, IndexError):
        return None


def parsed(status: str, uid_map: str, gid_map: str) -> Worker:
    """Of the texts of the files with these names in /proc/PID (see proc(5)). Pure."""
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    groups = {int(fields["Gid"].split()[3]), *(int(word) for word in fields.get("Groups", "").split())}
    capabilities = int(fields["CapEff"], 16)
    uid = int(fields["Uid"].split()[3])  # the file system's
    return Worker(uid, frozenset(groups), capabilities, _ranges(uid_map.splitlines()), _ranges(gid_map.splitlines()))


def _ranges(lines: Iterable[str]) -> Ranges:
    return tuple((int(line.split()[1]), int(line.split()[2])) for line in lines if line.strip())


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as stream:
        return stream.read()
