# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What module `visitor_pool` does with a pool: each of its states."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from ..engine.lock import locked
from ..report.finding import WARNING, Finding, failure
from . import plan
from .data_root import MARK, SCRATCH, told_of
from .judge import state
from .model import Seen, stranger
from .opening import Opened, application, raise_for
from .plan import QUARANTINE, REMOVE, Plan, Work
from .sight import Sight, tell

if TYPE_CHECKING:
    from .reconcile import Pool
    from .transfer import Transfer

_PATIENCE = 300.0
_PRODUCTION = ("production", "prod")


class Operation:
    """One call of module `visitor_pool`."""

    def __init__(self, opened: Opened, diff: bool) -> None:
        wish = opened.wish
        self._opened, self._diff = opened, diff
        self._options, self._report, self._check = wish.options, wish.report, wish.check
        self._made: Pool | None = None
        self._begun: Transfer | None = None

    def run(self) -> None:
        state_wanted = self._options["state"]
        if state_wanted == "reset":
            self._may_reset()
        if self._options["slots"] and state_wanted not in ("reset", "expired"):
            raise failure("slots", "option-invalid", f"says nothing with state: {state_wanted}", "Leave it out")
        if not (self._options["git_url"] or "https://").startswith(("http://", "https://")):
            raise failure("git_url", "option-invalid", "is no HTTP URL", "Write https://git.example.org")
        with self._alone():
            raise_for(self._opened.provide())
            self._report.add(*self._opened.differences)
            sight = self._opened.sight()
            with self._marked(sight), told_of(sight.root.path):
                self._run(sight, state_wanted)

    def _run(self, sight: Sight, state_wanted: str) -> None:
        if sight.root.unfinished():
            self._transfer(sight).heal()
        self._sweep(sight)
        before = sight.look()
        self._is_ours(sight, before)
        if sight.root.marks(MARK) and self._transfer(sight).heal_marks(before):
            before = sight.look()
        after: Seen | None = None
        if state_wanted == "transferred":
            raise_for(self._opened.transferable())
            options = (self._options[name] for name in ("slot", "session_key", "token", "to_user"))
            self._transfer(sight).run(*options)
            failed: list[Finding] = []
        else:
            stuck = self._begun.stuck if self._begun is not None else set()
            failed, after = self._converge(sight, state_wanted, before, stuck)
        seen = after or sight.look()
        self._report.findings = [at for at in self._report.findings if at.code != "table-missing"]
        tell(self._report, seen)
        refused = self._accounts(seen) if self._options["git_url"] else []
        unhealed = self._begun.failed if self._begun is not None else []
        raise_for([*unhealed, *failed, *refused])

    def _pool(self, sight: Sight) -> Pool:
        """Who changes what is seen. Most runs have nothing to change, and do without its code."""
        if self._made is None:
            self._made = self._opened.pool(sight)
        return self._made

    def _transfer(self, sight: Sight) -> Transfer:
        if self._begun is None:
            from .transfer import Transfer

            self._begun = Transfer(self._pool(sight), self._report, self._check)
        return self._begun

    def _sweep(self, sight: Sight) -> None:
        told = ("remove-leftovers", f"{sight.root.path}/{SCRATCH}", "a run that was killed has left them")
        if not sight.root.has_leftovers():
            return
        if self._check:
            self._report.planned(*told)
            return
        changed = self._report.changed
        with self._report.doing(*told):
            done, kept = self._pool(sight).root.sweep()
        self._report.changed = changed or done
        if kept:
            what = f"files of former visitors cannot be removed ({'; '.join(kept[:3])}); they are in no slot"
            remedy = f"See what holds them in {SCRATCH} there; the next run tries again"
            self._report.add(Finding(WARNING, sight.root.path, "leftovers-kept", what, remedy))

    def _is_ours(self, sight: Sight, seen: Seen) -> None:
        """Rows bear numbers only: with a wrong prefix everybody's leases would look like nobody's."""
        lost = {at.number for at in seen.slots.values() if at.lease is not None and at.user is None}
        if not lost:
            return
        named = {name: stranger(name, seen.settings) for name in sight.root.names()}
        others = {name: number for name, number in named.items() if number in lost}
        if not (others := sight.records.slots_called(others)):
            return
        name, number = min(others.items(), key=lambda at: at[1])
        what = (
            f"row {number} of the table of allocations has no {seen.settings.name(number)}, and {name} is an account "
            f"of the same kind with a {seen.settings.project}: the row is taken for that one's"
        )
        raise failure(name, "prefix-doubtful", what, "Nothing was done. Check `prefix`, or remove that account")

    def _converge(
        self, sight: Sight, state_wanted: str, seen: Seen, stuck: Collection[int]
    ) -> tuple[list[Finding], Seen | None]:
        """What went wrong, and the last look where it is still true. Slots that are `stuck` are left alone."""
        if seen.denied:
            sight.root.access.need()
        wanted = self._plan(seen, state_wanted).without(stuck)
        failed: list[Finding] = []
        first = plan.nobodys(seen, self._resets(seen, state_wanted)).without(stuck)
        if self._options["seed_command"] and plan.lacks(wanted, first):
            action = ("seed", self._options["service"], "the pool is not whole")
            if self._check:  # what is left to do after it, nobody can know
                self._foretell(sight, first)
                self._report.planned(*action)
                self._count(first)
                return [], seen
            failed = self._do(sight, first, seen)
            self._count(first)
            self._seed(action)
            seen = sight.look()
            names = {at.subject for at in failed}
            lost = {slot.number for slot in seen.slots.values() if slot.name in names}
            wanted = self._plan(seen, state_wanted).without({*stuck, *lost})
        if self._diff:
            self._report.diff = difference(wanted, seen)
        failed += self._blocked(wanted)
        if self._check:
            self._foretell(sight, wanted)
            self._count(wanted)
            return failed, seen
        failed += self._do(sight, wanted, seen)
        self._count(wanted)
        return failed, None if wanted else seen

    def _blocked(self, wanted: Plan) -> list[Finding]:
        if not wanted.blocked:
            return []
        from .reconcile import not_made

        return [not_made(at.name, f"its directory could not be made: {at.disk.blocked}") for at in wanted.blocked]

    def _do(self, sight: Sight, wanted: Plan, seen: Seen) -> list[Finding]:
        return self._pool(sight).run(wanted, seen) if wanted else []

    def _foretell(self, sight: Sight, wanted: Plan) -> None:
        if wanted:
            self._pool(sight).foretell(wanted)

    def _seed(self, action: tuple[str, str, str]) -> None:
        with self._report.doing(*action):
            application(self._opened.wish).run(self._options["service"], self._options["seed_command"], "seed_command")

    def _count(self, wanted: Plan) -> None:
        done = {(at.action, at.target) for at in self._report.actions}
        cleared = sum(1 for work in wanted.works if work.forced and ("clear-slot", work.name) in done)
        self._report.values["cleared"] = self._report.values.get("cleared", 0) + cleared

    def _plan(self, seen: Seen, state_wanted: str) -> Plan:
        given = self._options["slots"]
        for number in given:
            slot = seen.slot(number)
            if not (1 <= number <= seen.settings.size or slot.there) or slot.foreign:
                why = f"its user {slot.foreign}" if slot.foreign else f"the pool has {seen.settings.size} slots"
                what = f"there is no slot {number}: {why}"
                raise failure("slots", "slot-unknown", what, "Nothing was done; give numbers of slots")
        if state_wanted == "expired":
            return plan.expired(seen, given or None)
        return plan.present(seen, self._resets(seen, state_wanted))

    def _resets(self, seen: Seen, state_wanted: str) -> Collection[int]:
        """The slots to clear whatever their state."""
        given = self._options["slots"]
        if state_wanted != "reset":
            return ()
        if self._options["expired_only"]:
            return {work.number for work in plan.expired(seen, given or None).works}
        return given or seen.slots.keys()

    def _may_reset(self) -> None:
        where = (self._options["environment"] or "").strip().lower()
        if where in _PRODUCTION and not self._options["force"]:
            what = f"a reset throws away visitors' work, and this is {where}: nothing was done"
            raise failure("pool", "reset-refused", what, "Set force: true if that is what you want")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Two runs on one pool would take each other's work for that of a killed one."""
        if self._check:
            yield
            return
        with locked("visitor pool", os.path.realpath(str(self._opened.data_root())), _PATIENCE):
            yield

    @contextmanager
    def _marked(self, sight: Sight) -> Iterator[None]:
        if self._check:
            yield
            return
        with sight.root.locked(_PATIENCE), sight.records.store.run_lock():
            yield

    def _accounts(self, seen: Seen) -> list[Finding]:
        """Those of the git server; what went wrong, where that is not only to be told."""
        from .gitserver import GitServer

        server = GitServer(self._options["git_url"], self._options["git_token"] or "", self._report)
        names = [
            seen.settings.name(at)
            for at in range(1, seen.settings.size + 1)
            if seen.slot(at).user is not None and not seen.slot(at).foreign
        ]
        wrong = server.provide(names, seen.settings.project, check=self._check)
        if self._options["git_required"]:
            return wrong
        for finding in wrong:
            self._report.add(replace(finding, severity=WARNING))
        return []


def difference(wanted: Plan, seen: Seen) -> dict[str, str]:
    """The slots that the plan is about, before and after."""
    sides: tuple[list[str], list[str]] = ([], [])
    for work in sorted(wanted.works, key=lambda at: at.number):
        slot = work.slot
        lacks = f", without {', '.join(slot.missing)}" if slot.missing else ""
        sides[0].extend([f"{work.name}: {state(slot, seen)}{lacks}\n"] if slot.there else [])
        sides[1].extend(_after(work, seen))
    return {"before": "".join(sides[0]), "after": "".join(sides[1])}


def _after(work: Work, seen: Seen) -> list[str]:
    if work.kind == REMOVE:
        return []
    if work.kind == QUARANTINE:
        return [f"{work.name}: quarantined\n"]
    kept = work.slot.lease is not None and work.slot.lease.active and work.claim is None
    return [f"{work.name}: {state(work.slot, seen) if kept else 'allocatable'}\n"]
