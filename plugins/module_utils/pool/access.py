# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the application may work in a directory. Modules look as root, to whom everything is open; the application
may be somebody else, and after an image with another user all its directories are another's.

Who calls a pool broken that works has it cleared for nothing. So whatever is not certain counts as open.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..report.finding import failure
from .data_root import Anyone
from .judge import OPEN_IT
from .walk import HostPath

READ, WRITE, ENTER = 4, 2, 1
_OVERRIDE, _READ_SEARCH, _SETUID = 1 << 1, 1 << 2, 1 << 7  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_SETUID
# Lists of those who are let in by name, which no mode tells: POSIX, and what NFS 4 and ZFS have.
_LISTS = ("system.posix_acl_access", "system.nfs4_acl", "system.nfs4_acl_xdr", "system.richacl")
# Where owner and mode decide. On others (NFS, CIFS, FUSE) a server or a program does, whatever they say.
_DECIDING = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "jfs", "overlay", "tmpfs", "ramfs"}

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Worker:
    """A process of the application, with the numbers that the file system has. `uids` and `gids`: the first and how
    many of those over whose files its `capabilities` reach. `mount`: where its way to data_root begins, a path on this
    machine; '' for data_root itself."""

    uid: int
    groups: frozenset[int]
    capabilities: int = 0
    uids: Ranges = ()
    gids: Ranges = ()
    mount: str = ""

    @property
    def certain(self) -> bool:
        """Whether it is the one that works: what may become another user starts those that do (gunicorn, nginx, s6)."""
        return not self.capabilities & _SETUID or bool(self.capabilities & _OVERRIDE)

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


class Access(Anyone):
    """What `workers` may do in a data_root: what one of them may is open. Nothing is refused when nobody knows who
    works there, or when modes do not decide."""

    def __init__(self, place: HostPath, workers: Sequence[Worker]) -> None:
        self._path = str(place)
        known = bool(workers) and all(at.certain for at in workers) and _modes_decide(self._path)
        self._workers = tuple(dict.fromkeys(workers)) if known else ()
        ways = [(worker, self._shut(worker)) for worker in self._workers]
        self.denied = _by_all(why for _worker, why in ways)  # why none even comes to the slots; '' when one does
        self._workers = tuple(worker for worker, why in ways if not why) or self._workers

    def _shut(self, worker: Worker) -> str:
        paths = [worker.mount or self._path]
        for part in filter(None, self._path[len(paths[0]) :].split("/")):
            paths.append(os.path.join(paths[-1], part))
        reasons = (worker.refusal(at, ENTER) for at in paths)
        return next((reason for reason in reasons if reason), "")

    def refusal(self, root: int, names: Sequence[str], depth: int) -> str:
        """Why none can work in a slot, given the names down to the marker and how many of them are there."""
        return "" if self.denied else _by_all(_of_slot(worker, root, names, depth) for worker in self._workers)

    def need(self) -> None:
        """Raises when it could not work in what is made with owner and mode of data_root."""
        why = self.denied or _by_all(at.refusal(self._path, READ | WRITE | ENTER) for at in self._workers)
        if why:
            raise failure(self._path, "data-root-denied", why, OPEN_IT)


def _by_all(reasons: Iterable[str]) -> str:
    """The first of them, if everybody has one."""
    first = ""
    for reason in reasons:
        if not reason:
            return ""
        first = first or reason
    return first


def _of_slot(worker: Worker, root: int, names: Sequence[str], depth: int) -> str:
    for count in range(1, depth + 1):
        # A workspace is written in; what is above it is passed; the marker is read.
        wanted = {len(names): READ, len(names) - 1: READ | WRITE | ENTER}.get(count, ENTER)
        why = worker.refusal("/".join(names[:count]), wanted, root)
        if why:
            return why
    return ""


def _modes_decide(path: str) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            about = _text(f"/proc/self/fdinfo/{fd}")
        finally:
            os.close(fd)
        [number] = [line.split()[1] for line in about.splitlines() if line.startswith("mnt_id:")]
        return decided(_text("/proc/self/mountinfo"), number)
    except (OSError, ValueError, IndexError):
        return False


def decided(mountinfo: str, number: str) -> bool:
    """Whether owner and mode decide in the mount of this number (see proc(5)). Pure."""
    for line in mountinfo.splitlines():
        mount, _dummy, about = line.partition(" - ")
        words = mount.split()
        if words[0] == number:
            return about.split()[0] in _DECIDING and "idmapped" not in words[5].split(",")
    return False


def _within(number: int, ranges: Ranges) -> bool:
    return any(first <= number < first + count for first, count in ranges)


def _has_acl(path: str, at: int | None) -> bool:
    try:
        names = os.listxattr(path if at is None else f"/proc/self/fd/{at}/{path}", follow_symlinks=False)
    except OSError:
        return False
    return any(name in names for name in _LISTS)


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
