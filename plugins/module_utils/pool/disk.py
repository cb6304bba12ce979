# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is changed of the pool on disk, from an open directory, name by name; see data_root.

Directories are built in `<data_root>/.visitor-pool` and renamed into place; what is replaced is renamed away first and
removed afterwards. So a slot's directory is whole at every moment, or not there.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from .data_root import SCRATCH, DataRoot
from .entries import new_file, new_name, put, remove, write
from .template import File, Link, Node
from .walk import DIRECTORY, OURS, holds_something, walk

# What a rename onto a directory that holds something, or onto no directory, says; and what a full disk does.
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Root(DataRoot):
    """One in which something is to be made."""

    @classmethod
    def on(cls, looked: DataRoot) -> Root:
        """The same open directory: whatever has its name by now is another."""
        made = cls.__new__(cls)
        made.__dict__.update(looked.__dict__)
        return made

    # -- making -----------------------------------------------------------------------------------------------------

    def make(self, name: str, workspace: Mapping[str, Node]) -> bool:
        """Puts the directory of a slot in place. False when there is one already that holds something: somebody has
        made it since it was looked for, and it is his."""
        with self.scratch() as scratch:
            built = self._built(scratch, self._slot(workspace))
            try:
                os.rename(built, name, src_dir_fd=scratch, dst_dir_fd=self.fd)
            except OSError as error:
                remove(scratch, built)
                if error.errno in _TAKEN:
                    return False
                raise
        return True

    def replace(self, name: str, workspace: Mapping[str, Node], sure: Callable[[], None] = lambda: None) -> str:
        """The same, whatever is there now: that is in the scratch directory afterwards, under the name returned (''
        for nothing). On a full disk what was there goes first: nobody is to see it again. `sure` raises when it must
        not go any more."""
        with self.scratch() as scratch:
            try:
                built = self._built(scratch, self._slot(workspace))
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                sure()
                remove(scratch, self.retire(name))
                built, retired = self._built(scratch, self._slot(workspace)), ""
            else:
                try:
                    sure()
                    retired = self.retire(name)
                except BaseException:
                    remove(scratch, built)
                    raise
            os.rename(built, name, src_dir_fd=scratch, dst_dir_fd=self.fd)
        return retired

    def _slot(self, workspace: Mapping[str, Node]) -> Mapping[str, Node]:
        tree = workspace
        for part in reversed((self._settings.project, *self._settings.path)):
            tree = {part: tree}
        return tree

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
                put(scratch, built, at, entry, isinstance(node, dict))
            except OSError:
                remove(scratch, built)
                raise

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

    def _create_file(self, at: int, name: str, file: File) -> None:
        mode = self._mode & (0o777 if file.executable else 0o666)
        fd = new_file(at, name, mode)
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

    def set_aside(self, name: str) -> str:
        """Gives a slot's project another name beside it; gives that name."""
        kept = f"{self._settings.project}.{new_name()}"
        at = os.open(name, DIRECTORY, dir_fd=self.fd)
        try:
            os.rename(self._settings.project, kept, src_dir_fd=at, dst_dir_fd=at)
        finally:
            os.close(at)
        return kept

    def move_set_aside(self, source: str, target: str) -> list[str]:
        """Moves what was set aside in a slot's directory to an account's; gives the names."""
        begins = f"{self._settings.project}.{OURS}"
        if not self.is_directory(source):
            return []
        old = os.open(source, DIRECTORY, dir_fd=self.fd)
        try:
            names = [name for name in os.listdir(old) if name.startswith(begins)]
            new = os.open(target, DIRECTORY, dir_fd=self.fd) if names else -1
            try:
                for name in names:
                    os.rename(name, name, src_dir_fd=old, dst_dir_fd=new)
            finally:
                if names:
                    os.close(new)
        finally:
            os.close(old)
        return names

    def made_at(self, name: str, entry: str) -> float | None:
        """When it was last changed, in seconds since 1970; None when it is not there."""
        with walk(self.fd, (name,)) as (depth, at, _blocked), suppress(FileNotFoundError):
            return os.stat(entry, dir_fd=at, follow_symlinks=False).st_mtime if depth else None
        return None

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

    def sweep(self) -> tuple[bool, list[str]]:
        """Removes what killed runs have left, and the scratch directory itself when nothing is in it. Gives whether
        that came to anything, and what could not be removed, and why: it is in nobody's way there."""
        kept: list[str] = []
        with self.scratch() as scratch:
            before = set(os.listdir(scratch))
            for name in self._leftovers(scratch):
                with _noting(kept, name):
                    remove(scratch, name)
            same = before == set(os.listdir(scratch))
        self.drop_scratch()
        return not (before and same), kept

    def drop_scratch(self) -> None:
        """Removes the scratch directory, if it is empty."""
        with suppress(OSError):
            os.rmdir(SCRATCH, dir_fd=self.fd)

    def empty(self, retired: Sequence[str]) -> list[str]:
        """Removes what was retired. Gives what could not be removed, and why: it stays in the scratch directory."""
        kept: list[str] = []
        with self.scratch() as scratch:
            for name in retired:
                with _noting(kept, name):
                    remove(scratch, name)
        return kept


@contextmanager
def _noting(kept: list[str], name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kept.append(f"{name}: {error.strerror}")
