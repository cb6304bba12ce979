# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a directory on the target equal to a manifest: looks, plans, and performs the plan under a lock."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..report.finding import INFO, Action, Finding, failure
from ..report.result import Report
from . import tree_plan
from .atomic import Attributes
from .attributes import resolve as resolve_owner
from .manifest import Entry, Record, safe, shown
from .problems import explained
from .tree_look import look
from .tree_plan import Owner, Plan
from .tree_state import StateDirectory

if TYPE_CHECKING:
    from .tree_diff import Differ

# Runs a command; gives its exit code and standard output.
Run = Callable[[Sequence[str]], tuple[int, str]]

_RECORD = "record"
_PRUNE = "remove backup"
_NO_RECORD = "what is shipped was not recorded yet"
_NO_DEST = "dest is missing"
_CONTENT = (tree_plan.ADD, tree_plan.CHANGE, tree_plan.REMOVE)


@dataclass(frozen=True)
class Request:
    """One call. `rendered` holds the content of env files, `archive` is the path of a tar with the other contents."""

    dest: str
    wanted: Sequence[Entry]
    rendered: Mapping[str, bytes] = field(default_factory=dict)
    archive: str | None = None
    owner: str | None = None
    group: str | None = None
    backup: bool = False
    backup_keep: int = 5
    lock_timeout: float = 60
    files: Sequence[str] | None = None
    check: bool = False
    diff: bool = False


def converge(request: Request, report: Report, run: Run) -> list[int]:
    """Does it and tells `report`. Returns the places in `wanted` of the files whose content it needs first; nothing
    has been changed then."""
    dest = _destination(request.dest)
    return _Convergence(request, dest, report, run).converge()


class _Convergence:
    def __init__(self, request: Request, dest: str, report: Report, run: Run) -> None:
        self.request = request
        self.dest = dest
        self.report = report
        self.run = run
        self.state = StateDirectory(dest)
        self.wanted = {safe(entry.path): entry for entry in request.wanted}
        resolved = resolve_owner(dest, Attributes(owner=request.owner, group=request.group), None)
        self.owner = Owner(resolved.uid, resolved.gid)
        # Not as `dest`: AnsibleModule would add that path's owner, mode and size to the result.
        report.values.update(resolved=dest, files={}, bind_mounts={}, backup_dir=None)
        self._tell_files(Plan())

    def converge(self) -> list[int]:
        if self.request.check or not self.state.exists():
            # Without a state directory there is nobody to lock out, and nothing shall be made for a mere look.
            plan, before = self._plan()
            needed = self._needed(plan)
            if self.request.check:
                self._announce(plan, before)
                return []
            if needed:
                return needed
        undo = self._make_destination()
        try:
            with self.state.locked(self.request.lock_timeout):
                plan, before = self._plan()
                needed = self._needed(plan)
                if not needed and (plan.steps or plan.new_record):
                    self._apply(plan, before, made=[path for path in undo if path != self.state.path])
                    undo = []
                return needed
        finally:
            self._unmake(undo)

    def _plan(self) -> tuple[Plan, Record]:
        before = self.state.load() if self.state.exists() else Record()
        found = look(self.dest, self.wanted, before.shipped)
        plan = tree_plan.make(self.wanted, before, found, self.owner, backup=self.request.backup)
        plan.new_record = plan.new_record or not self.state.exists()
        return plan, before

    def _needed(self, plan: Plan) -> list[int]:
        """What has to be sent before the plan can be performed."""
        if self.request.archive is not None:
            return []
        paths = {step.path for step in plan.contents() if step.path not in self.request.rendered}
        self._check_space(plan)
        return [place for place, entry in enumerate(self.request.wanted) if entry.path in paths]

    def _check_space(self, plan: Plan) -> None:
        """Before anything is sent: what is known not to fit is not worth the way."""
        needed = sum(step.entry.size for step in plan.contents() if step.entry is not None)
        place = self.dest
        while not os.path.isdir(place):
            place = os.path.dirname(place)
        with explained(place, "look at the free space"):
            space = os.statvfs(place)
        free = (space.f_bfree if os.geteuid() == 0 else space.f_bavail) * space.f_frsize
        if space.f_blocks and needed > free:
            message = f"{needed / 1e6:.1f} MB are to be shipped, {free / 1e6:.1f} MB are free"
            raise failure(place, "disk-full", message, "Free space there (df -h), then run again")

    def _make_destination(self) -> list[str]:
        """Makes what is missing of dest, its parents and the state directory; returns what was made."""
        missing: list[str] = []
        place = self.dest
        while not os.path.lexists(place):
            missing.append(place)
            place = os.path.dirname(place)
        made: list[str] = []
        try:
            for path in reversed(missing):
                with explained(path, "create the directory"):
                    os.mkdir(path, 0o755)
                made.append(path)
            if missing and self.owner != Owner():
                with explained(self.dest, "set the owner"):
                    os.chown(self.dest, *self.owner.numbers())
            if not self.state.exists():
                self.state.make()
                made.append(self.state.path)
        except BaseException:
            self._unmake(made)
            raise
        return made

    def _unmake(self, made: Sequence[str]) -> None:
        """What was made for a run that then did nothing goes again, unless somebody uses it already."""
        with suppress(OSError):
            if self.state.path in made:
                self.state.remove_empty()
            for path in reversed([path for path in made if path != self.state.path]):
                os.rmdir(path)

    def _announce(self, plan: Plan, before: Record) -> None:
        """Check mode: the same plan, told and not done."""
        if not os.path.lexists(self.dest):
            self.report.planned(tree_plan.CREATE, self.dest, _NO_DEST)
        for outer in plan.steps:
            for step in (*outer.clears, outer):
                self.report.planned(step.action, shown(step.path), step.reason)
        if plan.new_record and not plan.steps:
            self.report.planned(_RECORD, self.state.path, _NO_RECORD)
        if any(step.keep for outer in plan.steps for step in (*outer.clears, outer)):
            for path in self.state.surplus(self.request.backup_keep, coming=1):
                self.report.planned(_PRUNE, path, self._why_pruned())
        self._tell(plan, before)
        if any(tree_plan.is_compose_file(step.path) for step in plan.steps):
            message = "which services mount what changes cannot be told before the changed Compose file is in place"
            self.report.add(Finding(INFO, self.dest, "bind-mounts-unknown", message))
        else:
            self._tell_mounts(plan)

    def _apply(self, plan: Plan, before: Record, made: Sequence[str]) -> None:
        self._tell(plan, before)
        from .tree_apply import Applier  # most runs find nothing to do

        applier = Applier(
            self.state, plan, before, self.owner, self.request.rendered, self.request.archive, self.report
        )
        if self.dest in made:
            applier.first = Action(tree_plan.CREATE, self.dest, _NO_DEST)
        try:
            if plan.steps:
                applier.run()
            else:
                with self.report.doing(_RECORD, self.state.path, _NO_RECORD):
                    applier.run()
        finally:
            self._tell_files(plan)
        if applier.kept:
            self.report.values["backup_dir"] = applier.backup
            for path in self.state.surplus(self.request.backup_keep):
                with self.report.doing(_PRUNE, path, self._why_pruned()):
                    self.state.remove_backup(path)
        self._tell_mounts(plan)

    def _why_pruned(self) -> str:
        return f"only {self.request.backup_keep} are kept"

    def _tell(self, plan: Plan, before: Record) -> None:
        self.report.add(*plan.findings)
        self._tell_files(plan)
        if self.request.diff:
            self.report.diff = self._differ(before).entries(plan)

    def _differ(self, before: Record) -> Differ:
        from .tree_diff import Differ

        return Differ(self.dest, self.request.wanted, before, self.owner, self.request.rendered)

    def _tell_files(self, plan: Plan) -> None:
        """What has been done of the plan, or in check mode would be."""
        done = {(action.action, action.target) for action in self.report.actions}

        def listed(*actions: str) -> list[str]:
            return sorted(path for action in actions for path in plan.paths(action) if (action, path) in done)

        self.report.values["files"] = {
            "added": listed(tree_plan.ADD),
            "changed": listed(tree_plan.CHANGE, tree_plan.ATTRIBUTES),
            "removed": listed(tree_plan.REMOVE),
        }

    def _tell_mounts(self, plan: Plan) -> None:
        changed = [path for action in _CONTENT for path in plan.paths(action)]
        if changed and os.path.isdir(self.dest):
            from .tree_mounts import resolve

            mounts, findings = resolve(self.run, self.dest, self.request.files, self.request.rendered, changed)
            self.report.values["bind_mounts"] = mounts
            self.report.add(*findings)


def _destination(dest: str) -> str:
    """dest itself may be reached through links; below it none is followed."""
    if not os.path.isabs(dest) or os.path.normpath(dest) == "/":
        message = "is not an absolute path of a directory that can be a project's own"
        raise failure(dest, "invalid-dest", message, "Give a path such as /srv/shop")
    real = os.path.realpath(dest)
    if os.path.islink(dest) and not os.path.exists(dest):
        message = f"is a symbolic link to {real}, which does not exist"
        raise failure(dest, "dangling-link", message, "Remove the link, or create what it points to")
    with explained(dest, "look at it"):
        try:
            if not stat.S_ISDIR(os.lstat(real).st_mode):
                message = "is there and is not a directory"
                raise failure(dest, "dest-not-a-directory", message, "Move it away, or give another dest")
        except FileNotFoundError:
            pass
    return real
