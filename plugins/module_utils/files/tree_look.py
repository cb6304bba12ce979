# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is on the target now, at the paths that matter: those that shall be there and those that were shipped.

Nothing else is read, so a large data directory beside them costs nothing. No symbolic link is followed below dest.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

from .atomic import checksum
from .manifest import DIRECTORY, FILE, LINK, Entry, State
from .problems import explained

MISSING = "missing"
SPECIAL = "special"


@dataclass(frozen=True)
class Found:
    """One path as it is.

    `content` as in Entry; `inside`: what lies below a directory that shall go, relative to dest, as far as it matters.
    """

    kind: str = MISSING
    mode: int = 0
    uid: int = -1
    gid: int = -1
    size: int = 0
    content: str = ""
    inside: tuple[str, ...] = ()

    def matches(self, states: Iterable[State]) -> bool:
        """Whether this is as we left it."""
        return any(self._is(state) for state in states)

    def _is(self, state: State) -> bool:
        if state.kind != self.kind:
            return False
        if self.kind != DIRECTORY:
            return state.content == self.content
        if state.attributes is None:
            return False
        mode, uid, gid = state.attributes
        # A directory below one with the setgid bit gets that bit by itself.
        return (mode | stat.S_ISGID) == (self.mode | stat.S_ISGID) and uid in (-1, self.uid) and gid in (-1, self.gid)


def look(dest: str, wanted: Mapping[str, Entry], shipped: Iterable[str]) -> dict[str, Found]:
    """Every path of `wanted` and `shipped`, and each directory on the way there."""
    paths = {*wanted, *shipped}
    # More than that inside a directory, and some of it is not ours: no need to list a million uploads.
    enough = len(paths) + 1
    for path in tuple(paths):
        above = path.rpartition("/")[0]
        while above and above not in paths:
            paths.add(above)
            above = above.rpartition("/")[0]
    found: dict[str, Found] = {}
    for path in sorted(paths):
        above = path.rpartition("/")[0]
        if above and found[above].kind != DIRECTORY:
            found[path] = Found()  # behind a link it would not be ours
            continue
        entry = wanted.get(path)
        stays = entry is not None and entry.kind == DIRECTORY
        found[path] = _look(dest, path, 0 if stays else enough)
    return found


def _look(dest: str, path: str, listed: int) -> Found:
    full = os.path.join(dest, path)
    with explained(full, "look at it"):
        try:
            info = os.lstat(full)
        except FileNotFoundError:
            return Found()
        mode, uid, gid, size = stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_size
        if stat.S_ISDIR(info.st_mode):
            return Found(DIRECTORY, mode, uid, gid, inside=tuple(islice(_below(full, path), listed)))
        if stat.S_ISLNK(info.st_mode):
            return Found(LINK, mode, uid, gid, content=os.readlink(full))
        if stat.S_ISREG(info.st_mode):
            return Found(FILE, mode, uid, gid, size, checksum(full) or "")
        return Found(SPECIAL, mode, uid, gid)


def _below(full: str, path: str) -> Iterable[str]:
    """Everything in a directory, links not followed."""
    with os.scandir(full) as items:
        for item in items:
            yield f"{path}/{item.name}"
            if item.is_dir(follow_symlinks=False):
                yield from _below(item.path, f"{path}/{item.name}")
