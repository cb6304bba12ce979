# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pool on disk. Everything is reached from an open directory, name by name, and no symbolic link is followed:
whoever may write in a workspace could put one there, and what we do we do as root.

Directories are built in `<data_root>/.visitor-pool` and renamed into place; what is replaced is renamed away first and
removed afterwards. So a slot's directory is whole at every moment, or not there.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from ..report.finding import failure
from .model import OnDisk, Settings
from .template import File, Link, Node
from .walk import DIRECTORY, OURS, holds_something, is_old, marked, new_name, remove, walk, write

SCRATCH = ".visitor-pool"
JOURNAL = "transfer-"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Root:
    """data_root, open. New entries get its owner and its mode."""

    def __init__(self, path: str, settings: Settings) -> None:
        self.path, self._settings = path, settings
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            what = f"cannot be used as data_root: {error.strerror}"
            remedy = "It must be a directory that is there, with the owner and the mode that all in it shall have"
            raise failure(path, "data-root-missing", what, remedy) from error
        about = os.fstat(self.fd)
        self._uid, self._gid, self._mode = about.st_uid, about.st_gid, stat.S_IMODE(about.st_mode)
        self._give_away = (about.st_uid, about.st_gid) != (os.geteuid(), os.getegid())

    def close(self) -> None:
        os.close(self.fd)

    # -- looking ----------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        return os.listdir(self.fd)

    def look(self, name: str) -> OnDisk:
        """What there is of the slot whose directory is called `name`."""
        wanted = (name, self._settings.project, *self._settings.path, *self._settings.marker)
        with walk(self.fd, wanted[:-1]) as (depth, at, blocked):
            workspace, obstacle = marked(at, wanted[-1]) if depth == len(wanted) - 1 else (False, blocked)
            where = f"{obstacle} (in {self.path})" if obstacle else ""
            return OnDisk(depth > 0 or bool(obstacle), depth >= 2, workspace, where)

    def inode(self, *parts: str) -> int:
        """Of what has this name; 0 when nothing has."""
        with walk(self.fd, parts[:-1]) as (depth, at, _blocked):
            if depth < len(parts) - 1:
                return 0
            with suppress(FileNotFoundError):
                return os.stat(parts[-1], dir_fd=at, follow_symlinks=False).st_ino
        return 0

    # -- making -----------------------------------------------------------------------------------------------------

    def make(self, name: str, workspace: Mapping[str, Node]) -> str:
        """Puts a new directory of a slot in place, whatever is there now. What was there is in the scratch directory
        afterwards, under the name returned ('' for nothing)."""
        tree: Mapping[str, Node] = workspace
        for part in reversed((self._settings.project, *self._settings.path)):
            tree = {part: tree}
        with self.scratch() as scratch:
            built = self._built(scratch, tree)
            retired = self.retire(name)
            os.rename(built, name, src_dir_fd=scratch, dst_dir_fd=self.fd)
        return retired

    def retire(self, name: str) -> str:
        """Moves a slot's directory into the scratch directory, in one step."""
        with self.scratch() as scratch:
            retired = new_name()
            try:
                os.rename(name, retired, src_dir_fd=self.fd, dst_dir_fd=scratch)
            except FileNotFoundError:
                return ""
            return retired

    def add(self, name: str, workspace: Mapping[str, Node]) -> None:
        """Adds what a slot's directory lacks: from the first directory on that is not there, or what a workspace
        without its marker lacks of the template. Nothing that is there is changed."""
        wanted = (name, self._settings.project, *self._settings.path)
        with walk(self.fd, wanted) as (depth, at, blocked):
            if blocked:
                raise OSError(errno.EEXIST, blocked)
            tree: Node = workspace
            for part in reversed(wanted[depth + 1 :]):
                tree = {part: tree}
            missing = {wanted[depth]: tree} if depth < len(wanted) else workspace
            for entry in sorted(missing):
                self._add(at, entry, missing[entry])

    def _add(self, at: int, entry: str, node: Node) -> None:
        """One entry, unless something is there that is not empty."""
        if holds_something(at, entry):
            if isinstance(node, dict) and stat.S_ISDIR(os.stat(entry, dir_fd=at, follow_symlinks=False).st_mode):
                inside = os.open(entry, DIRECTORY, dir_fd=at)
                try:
                    for name in sorted(node):
                        self._add(inside, name, node[name])
                finally:
                    os.close(inside)
            return
        with self.scratch() as scratch:
            built = self._built(scratch, node)
            try:
                os.rename(built, entry, src_dir_fd=scratch, dst_dir_fd=at)
            except OSError:
                remove(scratch, built)
                raise

    @contextmanager
    def scratch(self) -> Iterator[int]:
        """The scratch directory, open; made when it is not there."""
        try:
            fd = os.open(SCRATCH, DIRECTORY, dir_fd=self.fd)
        except FileNotFoundError:
            with suppress(FileExistsError):
                self._mkdir(self.fd, SCRATCH)
            fd = os.open(SCRATCH, DIRECTORY, dir_fd=self.fd)
        try:
            yield fd
        finally:
            os.close(fd)

    def _built(self, scratch: int, node: Node) -> str:
        name = new_name()
        before = os.umask(0)
        try:
            self._create(scratch, name, node)
        except BaseException:
            remove(scratch, name)
            raise
        finally:
            os.umask(before)
        return name

    def _create(self, at: int, name: str, node: Node) -> None:
        if isinstance(node, Link):
            os.symlink(node.target, name, dir_fd=at)
            if self._give_away:
                os.chown(name, self._uid, self._gid, dir_fd=at, follow_symlinks=False)
        elif isinstance(node, File):
            self._create_file(at, name, node)
        else:
            fd = self._mkdir(at, name)
            try:
                for entry in node:
                    self._create(fd, entry, node[entry])
            finally:
                os.close(fd)

    def _mkdir(self, at: int, name: str) -> int:
        os.mkdir(name, self._mode & 0o777, dir_fd=at)
        fd = os.open(name, DIRECTORY, dir_fd=at)
        if self._give_away:
            os.fchown(fd, self._uid, self._gid)
        os.fchmod(fd, self._mode)
        return fd

    def _create_file(self, at: int, name: str, file: File) -> None:
        mode = self._mode & (0o777 if file.executable else 0o666)
        fd = os.open(name, _NEW, mode, dir_fd=at)
        try:
            if file.content:
                write(fd, file.content)
            if self._give_away:
                os.fchown(fd, self._uid, self._gid)
                os.fchmod(fd, mode)
        finally:
            os.close(fd)

    # -- moving a project to a new account --------------------------------------------------------------------------

    def is_directory(self, name: str) -> bool:
        """Whether `name` is a directory, and not a link to one."""
        with walk(self.fd, (name,)) as (depth, _at, _blocked):
            return depth == 1

    def account(self, username: str) -> bool:
        """Makes the directory of an account; False when it is there already."""
        if self.inode(username):
            os.close(os.open(username, DIRECTORY, dir_fd=self.fd))  # raises for anything but a directory
            return False
        before = os.umask(0)
        try:
            os.close(self._mkdir(self.fd, username))
        finally:
            os.umask(before)
        return True

    def move(self, source: str, target: str) -> None:
        """Moves the project from one account's directory to another's. A project that is there already is not
        overwritten: a directory takes no other's place unless it is empty."""
        project = self._settings.project
        old = os.open(source, DIRECTORY, dir_fd=self.fd)
        try:
            new = os.open(target, DIRECTORY, dir_fd=self.fd)
            try:
                os.rename(project, project, src_dir_fd=old, dst_dir_fd=new)
                os.fsync(new)
            finally:
                os.close(new)
            os.fsync(old)
        finally:
            os.close(old)

    def remove_mark(self, account: str, name: str) -> None:
        at = os.open(account, DIRECTORY, dir_fd=self.fd)
        try:
            os.unlink(name, dir_fd=at)
        finally:
            os.close(at)

    def drop_account(self, username: str) -> None:
        """Removes the directory of an account, if it is empty."""
        with suppress(OSError):
            os.rmdir(username, dir_fd=self.fd)

    # -- the scratch directory --------------------------------------------------------------------------------------

    def write_journal(self, name: str, document: Any) -> None:
        """In one step, and on the disk when this returns."""
        with self.scratch() as scratch:
            temporary = new_name()
            fd = os.open(temporary, _NEW, 0o600, dir_fd=scratch)
            try:
                write(fd, json.dumps(document).encode())
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(temporary, f"{JOURNAL}{name}.json", src_dir_fd=scratch, dst_dir_fd=scratch)
            os.fsync(scratch)

    def remove_journal(self, name: str) -> None:
        with self.scratch() as scratch:
            os.unlink(f"{JOURNAL}{name}.json", dir_fd=scratch)
            os.fsync(scratch)
        self.drop_scratch()

    def journals(self) -> dict[str, Any]:
        """What unfinished transfers have left."""
        found: dict[str, Any] = {}
        if not self.inode(SCRATCH):
            return found
        with self.scratch() as scratch:
            for name in sorted(os.listdir(scratch)):
                number = name[len(JOURNAL) : -len(".json")]
                if name == f"{JOURNAL}{number}.json" and number.isdigit():
                    found[number] = self._journal(scratch, name)
        return found

    def _journal(self, scratch: int, name: str) -> Any:
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=scratch)
            with os.fdopen(fd, encoding="utf-8") as stream:
                return json.load(stream)
        except (OSError, ValueError) as error:
            where = os.path.join(self.path, SCRATCH, name)
            what = "an unfinished transfer has left this file, and it cannot be read"
            remedy = "Look at it by hand: it names the slot and the account; then remove it"
            raise failure(where, "transfer-journal-unreadable", what, remedy) from error

    def has_leftovers(self) -> bool:
        """Whether a killed run has left something, if only an empty scratch directory."""
        if not self.inode(SCRATCH):
            return False
        with self.scratch() as scratch:
            return bool(self._leftovers(scratch)) or not os.listdir(scratch)

    def sweep(self) -> None:
        """Removes what killed runs have left, and the scratch directory itself when nothing is in it."""
        with self.scratch() as scratch:
            for name in self._leftovers(scratch):
                with suppress(OSError):  # it is in nobody's way there, and the next run tries again
                    remove(scratch, name)
        self.drop_scratch()

    def _leftovers(self, scratch: int) -> list[str]:
        """What others have there is theirs for an hour."""
        names = os.listdir(scratch)
        return [at for at in names if at.startswith(OURS) or (not at.startswith(JOURNAL) and is_old(scratch, at))]

    def drop_scratch(self) -> None:
        """Removes the scratch directory, if it is empty."""
        with suppress(OSError):
            os.rmdir(SCRATCH, dir_fd=self.fd)

    def empty(self, retired: Sequence[str]) -> None:
        """Removes what was retired; raises for what cannot be removed, which stays in the scratch directory."""
        with self.scratch() as scratch:
            for name in retired:
                remove(scratch, name)
