# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does what the plan says: rows and directories of many slots at once.

A slot is handed out by whoever sees a free row, so that row comes last: new slots are built on disk, then get user,
project and row in one transaction; a slot that is cleaned is first turned into `resetting`, then replaced on disk,
looked at, and only then offered again. Killed anywhere, the next run sees what is lacking and goes on.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

from ..report.finding import CRITICAL, INFO, WARNING, Finding, ShipshapeError, failure
from ..report.result import Report
from .disk import Root
from .entries import sync
from .model import QUARANTINED, RESETTING, Seen
from .plan import DRAIN, MAKE, QUARANTINE, REMOVE, Plan, Work, stray
from .records import Records
from .schema import PROJECTS, USERS
from .sight import Sight
from .store import UNREACHABLE, RowsRefusedError, chunks
from .template import Node, Template

# Slots at once. While slots are cleaned in SQLite nobody else can write, so those are fewer.
_BATCH, _BATCH_ALONE = 500, 20
_TRIGGERS = "See what the triggers of the application's tables do, then run this again"


class _UnclaimedError(ShipshapeError):
    """The database refused to have rows turned into `resetting`. Nothing was begun."""


@dataclass
class _Batch:
    """Slots that are worked on together. `failed` maps numbers to what went wrong; `ours` are those whose rows we have
    turned into `resetting`; `made` those whose directories we have put where none was; `touched` that more may have
    changed than actions tell; `retired` are names in the scratch directory."""

    works: list[Work]
    failed: dict[int, str] = field(default_factory=dict)
    ours: set[int] = field(default_factory=set)
    made: set[int] = field(default_factory=set)
    touched: bool = False
    retired: list[str] = field(default_factory=list)

    def good(self) -> list[Work]:
        return [work for work in self.works if work.number not in self.failed]

    def without(self, numbers: Collection[int]) -> None:
        self.works = [work for work in self.works if work.number not in numbers]


class Pool(Sight):
    """One pool: its rows, its directories, its template."""

    records: Records
    root: Root

    def __init__(self, sight: Sight, template: Template, report: Report) -> None:
        rows = sight.records
        super().__init__(Records(rows.store, rows.schema, rows.settings), Root.on(sight.root))
        self.template, self.report = template, report

    # -- doing ------------------------------------------------------------------------------------------------------

    def foretell(self, plan: Plan) -> None:
        """Check mode: the same, in the same order."""
        if self._can(plan):
            self.template.check()
        for lease in plan.strays:
            self.report.planned(*stray(lease))
        for works in self._batches(plan.works):
            for told in (told for work in works for told in work.told):
                self.report.planned(*told)

    def run(self, plan: Plan, seen: Seen) -> list[Finding]:
        """Does it all; gives a critical finding for each slot with which it did not work, the others go on."""
        if self._can(plan):
            self.template.tree()  # before anything is begun that needs it
        if plan.strays:
            with self._timed([stray(lease) for lease in plan.strays]):
                self.records.remove_rows([lease.number for lease in plan.strays])
        failed: list[Finding] = []
        for batch in self._batches(plan.works):
            failed += self._batch(batch, seen)
        return failed

    def _can(self, plan: Plan) -> bool:
        """Whether slots are to be made. Raises for what would be in the way of each of them."""
        made = [work for work in plan.works if work.kind == MAKE]
        if made:
            self.root.access.need()
            new = {USERS: [at.slot.user is None or at.fresh for at in made]}
            new[PROJECTS] = [at.slot.project is None or at.fresh for at in made]
            parts = [part for part in new if any(new[part])]
            self.records.rehearse(max(at.number for at in made), self.records.store.now(), parts)
        return bool(made)

    def _batches(self, works: Sequence[Work]) -> Iterator[list[Work]]:
        """New slots first: they can be handed out while others are cleaned."""
        alone = self.records.store.own_lock
        for kind in (MAKE, REMOVE, QUARANTINE, DRAIN):
            for claimed in (False, True):
                some = [work for work in works if work.kind == kind and (work.claim is not None) == claimed]
                for part in chunks(some, _BATCH_ALONE if alone and claimed else _BATCH):
                    yield list(part)

    def _batch(self, works: list[Work], seen: Seen) -> list[Finding]:
        """These slots together; one by one when the database refuses to have all of them in hand at once, as with an
        index that lets a session have one slot only."""
        try:
            return self._together(works, seen)
        except _UnclaimedError as error:
            if len(works) > 1:
                return [finding for work in works for finding in self._batch([work], seen)]
            return [not_made(works[0].name, error.findings[0].message)]

    def _together(self, works: list[Work], seen: Seen) -> list[Finding]:
        started = time.monotonic()
        held = {work.number for work in works if work.slot.lease is not None}
        with self.records.store.slot_locks(held) as locked:
            self.busy(held - locked)
            batch = _Batch([work for work in works if work.number in locked or work.number not in held])
            changed, self.report.changed = self.report.changed, True  # also when this ends in the middle
            done = len(self.report.actions)
            try:
                self._do(batch, seen)
            except ShipshapeError as error:
                lost = error.findings[0].code == UNREACHABLE  # then nobody knows
                self.report.changed = changed or lost or batch.touched or bool(batch.made)
                raise
        self.report.changed = changed or batch.touched or len(self.report.actions) > done
        return self._told(batch, time.monotonic() - started)

    def _do(self, batch: _Batch, seen: Seen) -> None:
        self._claim(batch, seen)
        alone = self.records.store.own_lock and bool(batch.ours)
        with self.records.store.transaction() if alone else nullcontext():
            if alone:  # since the claim was committed somebody else may have cleaned them
                still = self.records.resetting(batch.ours)
                batch.without(batch.ours - still)
                batch.ours &= still
            self._work(batch, seen)
        self._throw_away(batch)

    def _claim(self, batch: _Batch, seen: Seen) -> None:
        """Turns rows into `resetting`. Who was quicker keeps his slot: it is not worked on."""
        batch.without(self._mended(batch))
        leases = {work.number: work.claim for work in batch.works if work.claim is not None}
        try:
            turned = batch.ours = self.records.turn(list(leases.values()), RESETTING, seen.now)
        except RowsRefusedError as error:
            raise _UnclaimedError(*error.findings) from error
        batch.touched = bool(turned)
        lost = leases.keys() - turned
        # A directory without a row is replaced or removed, and until that has been done nobody else may offer it.
        for work in batch.works:
            disk = work.slot.disk
            replaced = work.fresh and disk.present and (work.forced or not disk.blocked)
            if work.slot.lease is None and (replaced or work.kind == REMOVE):
                (turned if self._entered(work.number, seen) else lost).add(work.number)
                batch.touched = bool(turned)
        self.busy(lost)
        batch.without(lost)

    def _entered(self, number: int, seen: Seen) -> bool:
        """Whether the row that was missing is there now, and ours."""
        try:
            with self.records.store.transaction():
                self.records.add_allocations([number], seen.now, resetting=True)
        except ShipshapeError:
            if not self.records.entered([number]):
                raise
            return False
        return True

    def _mended(self, batch: _Batch) -> set[int]:
        """Slots whose lease had no account or project when we looked, and has both now: somebody can own it."""
        lost = [
            work.number
            for work in batch.works
            if work.claim is not None and work.claim.active and None in (work.slot.user, work.slot.project)
        ]
        mended = self.records.whole(lost)
        self.busy(mended)
        return mended

    def busy(self, numbers: Collection[int]) -> None:
        what = "somebody takes, frees or cleans it at this moment, so it was left as it is"
        names = (self.settings.name(number) for number in sorted(numbers))
        self.report.add(*(Finding(INFO, name, "slot-busy", what, "The next run looks again") for name in names))

    def _work(self, batch: _Batch, seen: Seen) -> None:
        kind = batch.works[0].kind if batch.works else QUARANTINE
        if kind == MAKE:
            self._build(batch)
            self._in_database(batch, lambda works: self._complete(works, batch, seen))
            self._give_up(batch, seen)
        elif kind == REMOVE:
            self._in_database(batch, self._remove)
            self._unbuild(batch, batch.good())
            self._tell_held(batch, self.records.quarantine(batch.failed.keys() & batch.ours, seen.now))
        elif kind == DRAIN:
            self.records.activate([work.slot.user.id for work in batch.works if work.slot.user is not None], False)
        else:
            self.records.quarantine(batch.ours, seen.now)

    # -- on disk ----------------------------------------------------------------------------------------------------

    def _build(self, batch: _Batch) -> None:
        tree = self.template.tree()
        taken = set()
        for work in batch.works:
            with _failing(batch, work, "its directory could not be made"):
                if work.slot.disk.blocked and not work.forced:
                    raise OSError(errno.EEXIST, work.slot.disk.blocked)
                if not self._put(batch, work, tree):
                    taken.add(work.number)
                    continue
                there = self.root.look(work.name)
                if not (there.directory and there.workspace):
                    raise OSError(errno.EIO, there.blocked or "its workspace is not whole after it was made")
                if there.denied and work.fresh:
                    raise OSError(errno.EACCES, there.denied)
        self.busy(taken)
        batch.without(taken)
        if batch.ours:  # who loses power is not to find the former visitor's files in a slot that is offered
            sync(self.root.fd)

    def _put(self, batch: _Batch, work: Work, tree: Mapping[str, Node]) -> bool:
        """What the slot lacks on disk. False when somebody else has made it since we looked: it is in use. Only what
        nobody can use, because its row is ours, is replaced."""
        try:
            if work.fresh and work.number in batch.ours:
                retired = self.root.replace(work.name, tree, lambda: self._is_still(work.number))
                batch.retired += [retired] if retired else []
            elif not work.slot.disk.present or work.fresh:
                if not self.root.make(work.name, tree):
                    return False
                batch.made.add(work.number)
            elif not work.slot.disk.workspace:
                batch.touched = True  # also when it ends half-way
                self.root.add(work.name, tree)
        except FileExistsError:
            return False
        return True

    def _is_still(self, number: int) -> None:
        """Raises when the row is not ours any more. With a connection that is lost the locks are gone: an application
        takes us for dead, cleans the slot itself and lends it, and its new visitor's files are not ours to remove."""
        if not (self.records.store.own_lock or self.records.resetting([number])):
            raise FileExistsError(errno.EEXIST, "somebody else has cleaned it meanwhile")

    def _unbuild(self, batch: _Batch, works: Sequence[Work]) -> None:
        for work in works:
            with _failing(batch, work, "its directory could not be removed"):
                retired = self.root.retire(work.name)
                batch.retired += [retired] if retired else []

    def _throw_away(self, batch: _Batch) -> None:
        kept: list[str] = []
        try:
            if batch.retired:
                kept = self.root.empty(batch.retired)
        except OSError as error:
            kept = [error.strerror or str(error)]
        if kept:
            what = f"files of former visitors could not be removed ({'; '.join(kept[:3])}); they are in no slot"
            remedy = "See what holds them in data_root/.visitor-pool; the next run tries again"
            self.report.add(Finding(WARNING, self.root.path, "leftovers-kept", what, remedy))
        self.root.drop_scratch()

    # -- in the database --------------------------------------------------------------------------------------------

    def _in_database(self, batch: _Batch, work: Callable[[Sequence[Work]], None]) -> None:
        """All at once; when the database refuses, one by one, so that the others go on."""
        good = batch.good()
        try:
            with self.records.store.transaction():
                work(good)
            return
        except ShipshapeError as error:
            if len(good) == 1:
                batch.failed[good[0].number] = error.findings[0].message
                return
        for one in good:
            with _failing(batch, one, ""), self.records.store.transaction():
                work([one])

    def _complete(self, works: Sequence[Work], batch: _Batch, seen: Seen) -> None:
        """Everything that these slots lack in the database; their directories are whole by now."""
        records, now = self.records, seen.now
        records.add_users([work.number for work in works if work.slot.user is None], now)
        owners = {work.number: work.slot.user.id for work in works if work.slot.user is not None}
        owners.update(records.ids([work.number for work in works if work.slot.user is None]))
        self._is_kept(works, owners.keys(), records.schema.users.name)
        cleared = [work for work in works if work.fresh]
        records.remove_projects([owners[work.number] for work in cleared if work.slot.others], keep=True)
        records.forget([(at.number, at.slot.user, at.slot.project) for at in cleared], now)
        records.add_projects({work.number: owners[work.number] for work in works if work.slot.project is None}, now)
        records.mark(
            [work.slot.user.id for work in works if work.slot.user is not None and work.slot.user.flag is False],
            [work.slot.project.id for work in works if work.slot.project is not None and not work.slot.project.flag],
        )
        wanted = [work.slot.user for work in works if work.number <= self.settings.size]  # the others drain
        idle = [user.id for user in wanted if user is not None and user.active is False]
        records.activate(idle, True)
        rowless = [work.number for work in works if work.slot.lease is None]
        records.add_allocations([number for number in rowless if number not in batch.ours], now)
        numbers = [work.number for work in works]
        self._is_kept(works, records.whole(numbers), records.schema.projects.name)
        self._is_kept(works, records.listed(numbers), records.schema.allocations.name)
        records.free({work.number for work in works} & batch.ours, now)

    def _is_kept(self, works: Sequence[Work], there: Collection[int], table: str) -> None:
        """A trigger can make something else of a row, and the database says nothing."""
        if any(work.number not in there for work in works):
            what = f"its row was added to {table} and is not there now: a trigger or rule makes something else of it"
            raise failure(self.records.store.spoken, "database-refused", what, _TRIGGERS)

    def _remove(self, works: Sequence[Work]) -> None:
        users = [work.slot.user.id for work in works if work.slot.user is not None]
        self.records.remove_projects(users, keep=False)
        self.records.remove(users, [work.number for work in works])
        if self.records.entered([work.number for work in works]):
            what = "its rows were removed and are still there: a trigger or rule keeps them"
            raise failure(self.records.store.spoken, "database-refused", what, _TRIGGERS)

    def _give_up(self, batch: _Batch, seen: Seen) -> None:
        """What did not work is not handed out: rows are kept back, and of a new slot nothing is left."""
        held = batch.failed.keys() & batch.ours
        self.records.quarantine(held, seen.now)
        free = [
            work.slot.lease
            for work in batch.works
            if work.number in batch.failed and work.claim is None and work.slot.lease and not work.slot.lease.active
        ]
        turned = self.records.turn(free, QUARANTINED, seen.now)
        self._tell_held(batch, held | turned)
        # What we have made for a slot that the database would not take; unless somebody else has entered it meanwhile.
        new = [at for at in batch.works if at.number in batch.failed and at.number in batch.made and not at.slot.there]
        theirs = self.records.entered([work.number for work in new]) if new else set()
        self.busy(theirs)
        for number in theirs:
            del batch.failed[number]
        self._unbuild(batch, [work for work in new if work.number not in theirs])
        batch.without(theirs)

    # -- telling ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _timed(self, told: Collection[tuple[str, str, str]]) -> Iterator[None]:
        self.report.changed = True
        started = time.monotonic()
        yield
        for entry in told:
            self.report.done(*entry, (time.monotonic() - started) / len(told))

    def _tell_held(self, batch: _Batch, numbers: Collection[int]) -> None:
        for number in sorted(numbers):
            self.report.done("quarantine-slot", self.settings.name(number), batch.failed[number], 0.0)

    def _told(self, batch: _Batch, seconds: float) -> list[Finding]:
        done = [told for work in batch.works if work.number not in batch.failed for told in work.told]
        for told in done:
            self.report.done(*told, seconds / len(done))
        return [not_made(self.settings.name(number), what) for number, what in sorted(batch.failed.items())]


def not_made(name: str, what: str) -> Finding:
    return Finding(CRITICAL, name, "slot-not-made", what, "Mend that, then run this again")


@contextmanager
def _failing(batch: _Batch, work: Work, what: str) -> Iterator[None]:
    """What goes wrong with one slot is noted, and the others go on; without a database none can."""
    try:
        yield
    except OSError as error:
        batch.failed[work.number] = f"{what}: {error.strerror or error}"
    except ShipshapeError as error:
        if error.findings[0].code == UNREACHABLE:
            raise
        batch.failed[work.number] = error.findings[0].message
