# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Performs a plan of `tree`: everything that can fail for want of space comes before the first visible change."""

from __future__ import annotations

import os
import resource
import shutil
import stat
import sys
import tarfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import IO

from ..report.finding import Action, ShipshapeError, failure
from ..report.result import Report
from .atomic import Attributes, Pending, prepare, sweep, sync_directories
from .manifest import DIRECTORY, FILE, JUST_MADE, LINK, Record, State, merged, shown
from .problems import explained
from .tree_plan import ATTRIBUTES, CREATE, Owner, Plan, Step, writes
from .tree_state import StateDirectory

_THREADS = 8
# Contents up to this size are handed to the threads whole, at most so many more than there are threads.
_SMALL = 256 * 1024
_AHEAD = 32


class Applier:
    """One run. `rendered` holds the contents that came with the call, `archive` is a tar of the others."""

    def __init__(
        self,
        state: StateDirectory,
        plan: Plan,
        before: Record,
        owner: Owner,
        rendered: Mapping[str, bytes],
        archive: str | None,
        report: Report,
    ) -> None:
        self.state = state
        self.dest = state.dest
        self.plan = plan
        self.before = before
        self.owner = owner
        self.rendered = rendered
        self.archive = archive
        self.report = report
        self.backup = state.new_backup()
        self.kept = False
        self.first: Action | None = None  # done by the caller, to be told once the rest can be done
        self.pending: dict[str, Pending | _Unheld] = {}
        self._descriptors = _descriptors()
        self._undo: list[Callable[[], None]] = []
        self._touched: set[str] = set()
        self._unfinished: list[Step] = []

    def run(self) -> None:
        """Raises ShipshapeError; what was only prepared by then is undone, what was done is in the report."""
        try:
            self._begin()
            self._prepare()
        except BaseException:
            self._roll_back()
            raise
        try:
            if self.first is not None:
                self.report.changed = True
                self.report.actions.append(self.first)
            for step in self.plan.steps:
                self._perform(step)
            self._finish()
        finally:
            for pending in self.pending.values():
                pending.discard()
            self.state.unpark()

    # Nothing of src is visible yet

    def _begin(self) -> None:
        coming = {**self.plan.record}
        for step in self.plan.steps:
            if step.entry is not None and step.entry.kind == DIRECTORY:
                modes = (step.entry.mode, step.entry.mode | stat.S_IRWXU)
                interim = (State(DIRECTORY, attributes=(mode, -1, -1)) for mode in modes)
                coming[step.path] = (JUST_MADE, *interim)
        self._undo.append(self._restore_record)
        self._undo.append(lambda: shutil.rmtree(self.backup, ignore_errors=True))
        self.state.save(merged(self.before, coming))
        self.state.park()
        for directory in self._swept():
            sweep(directory)
        for step in self.plan.steps:
            if step.entry is not None and step.entry.kind == DIRECTORY:
                self._make_room(step)
                self._make_directory(step)

    def _swept(self) -> list[str]:
        """Where a killed run may have left temporaries; after a clean one only where this run writes."""
        names = {step.path for step in self.plan.contents()}
        if not self.before.complete:
            names = {*self.before.shipped, *self.plan.record}
        return sorted({os.path.dirname(self._full(name)) for name in names})

    def _make_room(self, step: Step) -> None:
        """A file of ours where a directory shall be is set aside, to be put back if the rest cannot be prepared."""
        for number, gone in enumerate(step.clears):
            full, aside = self._full(gone.path), os.path.join(self.state.parked, f"{number}-{os.urandom(4).hex()}")
            self._keep(gone)
            with explained(full, "set it aside"):
                os.rename(full, aside)
            self._undo.append(lambda full=full, aside=aside: os.rename(aside, full))  # type: ignore[misc]

    def _make_directory(self, step: Step) -> None:
        full = self._full(step.path)
        self._unfinished.append(step)
        with explained(full, "create the directory" if step.action == CREATE else "change the directory"):
            if step.action == CREATE:
                os.mkdir(full, 0o700)
                self._undo.append(lambda: os.rmdir(full))
            elif stat.S_IRWXU & ~step.found.mode:
                os.chmod(full, step.found.mode | stat.S_IRWXU)
                self._undo.append(lambda: os.chmod(full, step.found.mode))

    def _prepare(self) -> None:
        waiting: dict[str, list[Step]] = {}
        for step in self.plan.contents():
            if step.path in self.rendered:
                self._prepare_one(step, self.rendered[step.path])
            else:
                waiting.setdefault(step.wanted.content, []).append(step)
        # What a file takes is waiting for the disk, and the disk takes many together in the time of a few.
        with ThreadPoolExecutor(_THREADS) as pool:
            self._prepare_all(waiting, pool)
        if waiting:
            step = next(iter(waiting.values()))[0]
            message = "its content was not in what the controller sent"
            raise failure(shown(step.path), "archive-incomplete", message, "Run again")

    def _prepare_all(self, waiting: dict[str, list[Step]], pool: ThreadPoolExecutor) -> None:
        running: deque[Future[None]] = deque()
        for digest, content in _members(self.archive):
            steps = waiting.pop(digest, [])
            entry = steps[0].entry if steps else None
            if entry is not None and entry.size <= _SMALL:
                data = content.read()
                running.extend(pool.submit(self._prepare_one, step, data) for step in steps)
            else:
                for number, step in enumerate(steps):
                    if number == 0:
                        self._prepare_one(step, content)
                        continue
                    with open(self.pending[steps[0].path].path, "rb") as copy:
                        self._prepare_one(step, copy)
            while len(running) > _AHEAD:
                running.popleft().result()
        for future in running:
            future.result()

    def _prepare_one(self, step: Step, content: bytes | IO[bytes]) -> None:
        attributes = Attributes(step.wanted.mode, self.owner.uid, self.owner.gid)
        full = self._full(step.path)
        if step.found.kind in (DIRECTORY, LINK):
            # A link that becomes a file: not what it points to is replaced, but the link.
            beside = os.path.join(os.path.dirname(full), f".shipshape-{os.urandom(4).hex()}")
            pending = prepare(beside, content, attributes, expected_sha256=step.wanted.content)
            pending.dest = pending.target = full
        else:
            pending = prepare(full, content, attributes, expected_sha256=step.wanted.content)
        self.pending[step.path] = pending if len(self.pending) < self._descriptors else _Unheld(pending)

    def _roll_back(self) -> None:
        for pending in self.pending.values():
            pending.discard()
        for undo in reversed(self._undo):
            with suppress(OSError, ShipshapeError):
                undo()
        self.state.unpark()

    def _restore_record(self) -> None:
        if self.before == Record():
            self.state.forget()
        else:
            self.state.save(self.before)

    # From here on it shows

    def _perform(self, step: Step) -> None:
        self._check_way(step)
        if step.entry is None:
            self._remove(step)
            return
        if step.entry.kind == DIRECTORY:
            for gone in step.clears:
                with self.report.doing(gone.action, shown(gone.path), gone.reason):
                    pass  # done by _make_room
        else:
            for gone in step.clears:
                self._remove(gone)
        with self.report.doing(step.action, shown(step.path), step.reason):
            with explained(self._full(step.path), step.action):
                self._put(step)

    def _check_way(self, step: Step) -> None:
        """Minutes may have passed since the look: who may write below dest could have put a link on the way by now."""
        folder = os.path.dirname(self._full(step.path))
        if os.path.realpath(folder) != folder:
            message = f"{folder} has become a symbolic link while the contents were being written"
            raise failure(shown(step.path), "path-in-the-way", message, "Find out who did that, then run again")

    def _put(self, step: Step) -> None:
        full = self._full(step.path)
        self._touched.add(full)
        if step.action == ATTRIBUTES and step.wanted.kind == FILE:
            self._set_attributes(full, step.wanted.mode)
        elif step.action == ATTRIBUTES and step.wanted.kind == LINK:
            self._own(full)
        elif writes(step):
            self._keep(step)
            self.pending.pop(step.path).commit(sync=False)
        elif step.wanted.kind == LINK:
            self._keep(step)
            self._put_link(full, step.wanted.content)

    def _put_link(self, full: str, text: str) -> None:
        aside = os.path.join(self.state.parked, os.urandom(8).hex())
        os.symlink(text, aside)
        self._own(aside)
        try:
            os.rename(aside, full)
        except OSError:
            # Another file system is mounted below dest. A link is made in one step only where nothing is.
            with suppress(FileNotFoundError):
                os.unlink(full)
            os.symlink(text, full)
            self._own(full)

    def _own(self, full: str) -> None:
        if self.owner != Owner():
            os.chown(full, *self.owner.numbers(), follow_symlinks=False)

    def _set_attributes(self, full: str, mode: int) -> None:
        fd = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if self.owner != Owner():
                os.fchown(fd, *self.owner.numbers())
            os.fchmod(fd, mode)  # last: a change of owner clears setuid
        finally:
            os.close(fd)

    def _remove(self, step: Step) -> None:
        full = self._full(step.path)
        self._keep(step)
        self._touched.add(full)
        with self.report.doing(step.action, shown(step.path), step.reason):
            with explained(full, "remove it"):
                if step.found.kind == DIRECTORY:
                    os.rmdir(full)
                else:
                    os.unlink(full)

    def _finish(self) -> None:
        for step in reversed(self._unfinished):
            full = self._full(step.path)
            with explained(full, "set owner and mode"):
                self._own(full)
                made = stat.S_IMODE(os.lstat(full).st_mode)
                os.chmod(full, step.wanted.mode | (made & stat.S_ISGID))
                self._touched.add(full)
        sync_directories(path for path in self._touched if os.path.isdir(os.path.dirname(path)))
        self.state.unpark()
        self.state.save(Record({path: self._final(path, states) for path, states in self.plan.record.items()}))

    def _final(self, path: str, states: tuple[State, ...]) -> tuple[State, ...]:
        if JUST_MADE not in states:
            return states
        info = os.lstat(self._full(path))
        return (State(DIRECTORY, attributes=(stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid)),)

    def _keep(self, step: Step) -> None:
        """What is there now goes to the backup as well, as a second name of the same file where that works."""
        if not step.keep:
            return
        full, copy = self._full(step.path), os.path.join(self.backup, step.path)
        with explained(copy, "back up"):
            os.makedirs(os.path.dirname(copy), 0o700, exist_ok=True)
            self.kept = True
            if step.found.kind == LINK:
                os.symlink(step.found.content, copy)
                return
            try:
                os.link(full, copy, follow_symlinks=False)
            except OSError:
                shutil.copy2(full, copy, follow_symlinks=False)

    def _full(self, path: str) -> str:
        return os.path.join(self.dest, path)


class _Unheld:
    """A Pending that gave its descriptor back, because a tree can have more files than a process may hold open.

    What is lost is the lock that tells a sweep that the temporary is in use. No other run of tree sweeps meanwhile:
    dest has a lock of its own.
    """

    def __init__(self, pending: Pending) -> None:
        self.target = pending.target
        self.path = pending.path
        pending._release()

    def commit(self, *, sync: bool) -> None:
        with explained(self.target, "put the new file in place"):
            os.rename(self.path, self.target)
        self.path = ""
        if sync:
            sync_directories([self.target])

    def discard(self) -> None:
        if self.path:
            with suppress(OSError):
                os.unlink(self.path)


def _descriptors() -> int:
    """How many temporaries to hold open: half of what is allowed, there is other use for the rest."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return hard // 2 if hard != resource.RLIM_INFINITY else sys.maxsize


def _members(archive: str | None) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and content of each member, one after another, never more than one in memory."""
    if archive is None:
        return
    with explained(archive, "read what the controller sent"):
        try:
            with tarfile.open(archive, "r|", bufsize=1024 * 1024) as packed:
                for member in packed:
                    content = packed.extractfile(member)
                    if content is not None:
                        yield member.name, content
                    packed.members = []  # type: ignore[attr-defined]  # or it remembers every one
        except tarfile.TarError as error:
            message = f"what the controller sent is damaged ({error})"
            raise failure(archive, "archive-damaged", message, "Run again") from error
