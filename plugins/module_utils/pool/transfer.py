# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Moves a visitor's project to the account that he has signed up for: database and disk together, or not at all.

A journal is written first. Then the directory is renamed while the transaction is open that makes the project the
account's and takes the lease from the visitor; the commit decides. Killed before it, the next run renames the directory
back, and the lease still holds; killed after it, the next run makes the slot anew.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ..report.finding import CRITICAL, WARNING, Finding, ShipshapeError, failure
from ..report.result import Report
from . import journals, plan
from .data_root import MARK
from .judge import has_ended, state
from .model import CLEANING, RESETTING, Lease, OnDisk, Seen, Slot, User, is_directory_name
from .receipts import Receipts, octets, proof
from .reconcile import Pool

_SLACK = 0.1  # seconds by which file systems are late
_HEALS = "Mend that, then run this again, or state: present: either finishes it or puts the project back"


class Transfer:
    """`failed`: what went wrong while healing. `stuck`: slots that nothing may be done to until somebody has looked,
    and in check mode those whose transfers a run would finish or undo."""

    def __init__(self, pool: Pool, report: Report, check: bool) -> None:
        self._pool, self._records, self._root = pool, pool.records, pool.root
        self._report, self._check = report, check
        self._receipts = Receipts(self._root.path)
        self.failed: list[Finding] = []
        self.stuck: set[int] = set()
        self._unsettled: set[int] = set()  # slots of whose former transfers a project is still about

    # -- what killed runs have left ---------------------------------------------------------------------------------

    def heal(self) -> None:
        """Finishes or undoes transfers that were not brought to their end. One that cannot be is told, and keeps nobody
        from the other slots."""
        for number in self._root.unfinished():
            with self._told_of(number):
                document = journals.read(self._root, number)
                if document is not None:
                    self._heal(number, document)

    def _heal(self, number: int, document: Mapping[str, Any]) -> None:
        told = ("heal-transfer", str(document["user"]), f"a transfer to {document['to']} was not finished")
        with self._alone_with(number) as locked:
            if not locked:
                self._pool.busy([number])
                self.stuck.add(number)
                return
            if self._is_lost(document):
                self._leave(document["user"], document["to"], journals.path(self._root, number))
                self._unsettled.add(number)
                return
            if self._check:
                self._report.planned(*told)
                self.stuck.add(number)
                return
            changed = self._report.changed
            try:
                with self._report.doing(*told):
                    committed = self._settle(document)
            except ShipshapeError:
                self._report.changed = changed
                raise
        if committed:
            self._finish(document)
        journals.end(self._root, number)

    @contextmanager
    def _alone_with(self, number: int) -> Iterator[bool]:
        """Whether nobody else is at the slot while this lasts. A look takes no locks."""
        if self._check:
            yield True
            return
        with self._records.store.slot_locks([number]) as locked, self._records.store.transaction():
            yield bool(locked)

    @contextmanager
    def _told_of(self, number: int) -> Iterator[None]:
        """What goes wrong with the transfer of one slot is noted, and the others go on."""
        try:
            yield
        except ShipshapeError as error:
            self.failed += error.findings
            self.stuck.add(number)
        except OSError as error:
            what = f"its transfer could be neither finished nor undone: {error.strerror or error}"
            name = self._pool.settings.name(number)
            self.failed.append(Finding(CRITICAL, name, "transfer-unfinished", what, _HEALS))
            self.stuck.add(number)

    def heal_marks(self, seen: Seen) -> bool:
        """What an application's own transfer has left when it was killed: a file `.from-SLOT` in the account's
        directory. Whether there was one that nobody alive is at work with."""
        found = False
        numbers = {slot.name: slot for slot in seen.slots.values() if not slot.foreign}
        for account, name in self._root.marks(MARK):
            slot = numbers.get(name)
            if slot is not None and self._pool.settings.number(account) is None:
                with self._told_of(slot.number):
                    found = self._heal_mark(slot, account) or found
        return found

    def _heal_mark(self, slot: Slot, account: str) -> bool:
        told = ("heal-transfer", slot.name, f"a transfer to {account} was not finished")
        mark = f"{MARK}{slot.name}"
        with self._alone_with(slot.number) as locked:
            made = self._root.made_at(account, mark)
            if not locked or made is None:
                return False  # somebody alive has done it, or is at it
            user, project = self._records.user(account), self._pool.settings.project
            committed = user is not None and project in self._records.slugs(user.id)
            moved = not committed and bool(self._root.inode(account, project))
            if moved and not self._is_of(self._records.lease(slot.number), made):
                self._leave(slot.name, account, f"{self._root.path}/{account}/{mark}")
                return False
            if self._check:
                self._report.planned(*told)
                self.stuck.add(slot.number)
                return True
            with self._report.doing(*told):
                if moved:
                    self._put_back(account, slot.name)
                self._root.remove_mark(account, mark)
        return True

    def _is_of(self, lease: Lease | None, made: float) -> bool:
        """Whether a mark that was made then is one of the lease that holds now. A clock that is off lets the work lie
        where it is, and never gives it to the next visitor."""
        if lease is None or not lease.active or lease.ours:
            return False
        since = self._records.since(lease)
        return since is not None and made >= since.timestamp() - _SLACK

    def _is_lost(self, document: Mapping[str, Any]) -> bool:
        """Whether the project lies with the account, which the database does not know of, and the lease that it was of
        is over: the slot may be somebody else's."""
        if self._root.inode(document["to"], self._pool.settings.project) != document["inode"]:
            return False
        owner = self._owner(document)
        if owner != document["user"]:
            return owner is None
        lease = self._records.lease(int(document["slot"]))
        return lease is None or not lease.active or _fingerprint(lease) != document.get("lease")

    def _leave(self, slot: str, account: str, record: str) -> None:
        project = self._pool.settings.project
        what = f"{account}/{project} was moved there in an earlier lease of {slot}, and is nobody's by the database"
        remedy = f"Look whose it is. Nothing was touched; remove {record} when it is settled"
        self._report.add(Finding(WARNING, account, "transfer-mark-old", what, remedy))

    def _put_back(self, account: str, slot: str) -> None:
        """What the slot's visitor has made there meanwhile is kept beside it."""
        if self._root.inode(slot, self._pool.settings.project):
            kept = self._root.set_aside(slot)
            what = f"a second project was made while the first was at {account}; it is kept as {slot}/{kept}"
            remedy = "Whoever holds the slot may want something of it; it goes when the lease ends"
            self._report.add(Finding(WARNING, slot, "transfer-two-projects", what, remedy))
        self._root.account(slot)
        self._root.move(account, slot)

    def _settle(self, document: Mapping[str, Any]) -> bool:
        """Whether the database has it; the disk then agrees."""
        source, target, project = document["user"], document["to"], self._pool.settings.project
        committed = bool(self._owner(document) == target)
        moved = self._root.inode(target, project) == document["inode"]
        try:
            if committed and self._root.inode(source, project) == document["inode"]:
                self._root.account(target)
                self._root.move(source, target)
            elif not committed:
                if moved:
                    self._put_back(target, source)
                if document["made"]:
                    self._root.drop_account(target)
        except OSError as error:
            where, back = (source, target) if committed else (target, source)
            what = (
                f"{where}/{project} belongs to {back} by the database, and cannot be moved there: "
                f"{error.strerror or error}"
            )
            remedy = "Nothing was removed. Move away what is in its place, then run this again"
            raise failure(source, "transfer-stuck", what, remedy) from error
        return committed

    def _owner(self, document: Mapping[str, Any]) -> str | None:
        """Which of the two the database gives the project to; None for neither."""
        for name in (document["user"], document["to"]):
            user = self._records.user(name)
            if user is not None and str(document["project_id"]) in map(str, self._records.project_ids(user.id)):
                return str(name)
        return None

    # -- moving -----------------------------------------------------------------------------------------------------

    def run(self, number: int, session_key: str, token: str, to_user: str) -> None:
        document: dict[str, Any] = {"slot": number, "to": to_user, "proof": proof(session_key, token)}
        if number in self.stuck:
            self._not_now(number)
            return
        if self._is_done(document):
            return
        if number in self._unsettled:
            what = "what an earlier transfer of it has moved is nobody's yet, and this one would hide that"
            remedy = "Settle that one first; the warning says how"
            raise failure(self._pool.settings.name(number), "transfer-refused", what, remedy)
        seen = self._pool.look()
        slot = seen.slot(number)
        if not self._owns(slot, seen, session_key, token):
            what = "that session and token hold no lease of it that is active and has not ended"
            remedy = "Nothing was moved. The visitor has to begin anew"
            raise failure(slot.name, "transfer-refused", what, remedy)
        target = self._target(to_user, slot)
        if not slot.user or not slot.project or not slot.disk.directory:
            what = f"it has no {', '.join(slot.missing)}, so there is nothing whole to move"
            raise failure(slot.name, "transfer-refused", what, "Run state: present, which repairs it, then this again")
        told = ("transfer-project", slot.name, f"to {to_user}")
        reason = "its project was transferred"
        if self._check:
            self._report.planned(*told)
            left = replace(slot, project=None, disk=OnDisk(present=True))
            self._pool.foretell(plan.cleared(left, seen, reason))
            return
        made = not self._root.inode(to_user)
        inode = self._root.inode(slot.name, self._pool.settings.project)
        document.update(project_id=_plain(slot.project.id), inode=inode, made=made, user=slot.name)
        document["lease"] = _fingerprint(slot.lease) if slot.lease is not None else ""
        changed = self._report.changed
        with self._report.doing(*told):
            try:
                with self._records.store.slot_locks([number]) as locked:
                    if not locked:
                        what = "somebody else moves or cleans it at this moment"
                        raise failure(slot.name, "transfer-refused", what, "Run this again")
                    self._move(slot, target, document, seen)
            except ShipshapeError:
                if number not in self.stuck:
                    self._report.changed = changed  # it is all as it was
                raise
        self._finish(document)
        journals.end(self._root, number)

    def _not_now(self, number: int) -> None:
        """What is left to do after healing, only a run can know. But a run that has done nothing has not done well."""
        if not (self._check or self.failed):
            what = "an earlier transfer of it was not finished, and somebody else moves or cleans it at this moment"
            raise failure(self._pool.settings.name(number), "transfer-refused", what, "Run this again")

    def _is_done(self, document: Mapping[str, Any]) -> bool:
        """Whether this very transfer is what an earlier run has done, and the account still has the project."""
        if not self._receipts.has(document["slot"], document["to"], document["proof"]):
            return False
        user = self._records.user(document["to"])
        return user is not None and self._pool.settings.project in self._records.slugs(user.id)

    def _owns(self, slot: Slot, seen: Seen, session_key: str, token: str) -> bool:
        """Compared in constant time, whatever there is to compare with."""
        lease = slot.lease
        held = lease.token if lease is not None else ""
        session = lease.session_key if lease is not None else ""
        fits = hmac.compare_digest(octets(self._records.stored(token)), octets(held))
        same = hmac.compare_digest(octets(session_key), octets(session))
        return (
            fits
            and same
            and bool(token and session_key)
            and lease is not None
            and lease.active
            and not lease.ours
            and not lease.odd
            and not has_ended(slot, seen.now)
            and not slot.foreign
        )

    def _target(self, to_user: str, slot: Slot) -> User:
        """The account, which has no project of that name, in the database or on disk."""
        project = self._pool.settings.project
        if not is_directory_name(to_user) or self._pool.settings.number(to_user) is not None:
            what = "is no account that a project can be moved to"
            raise failure(repr(to_user), "transfer-refused", what, "Give the name of the visitor's new account")
        user = self._records.user(to_user)
        if user is None:
            what = "there is no such account"
            raise failure(to_user, "transfer-refused", what, "Make it first; the transfer only moves the project")
        if self._root.inode(to_user) and not self._root.is_directory(to_user):
            what = f"what bears its name in {self._root.path} is no directory"
            raise failure(to_user, "transfer-refused", what, "Look at what it is and move it away")
        there = self._root.inode(to_user, project)
        if there or project in self._records.slugs(user.id):
            where = "on disk" if there else "in the database"
            what = f"it has a {project} already ({where}), which is never overwritten"
            remedy = f"The visitor's work stays in {slot.name} until the lease ends: move or rename the other project"
            raise failure(to_user, "transfer-target-exists", what, remedy)
        return user

    def _move(self, slot: Slot, target: User, document: Mapping[str, Any], seen: Seen) -> None:
        user, project, lease = slot.user, slot.project, slot.lease
        if user is None or project is None or lease is None:
            return  # it was looked at before
        journals.begin(self._root, slot.number, document)
        try:
            with self._records.store.transaction():
                if not (
                    self._records.turn([lease], RESETTING, seen.now)
                    and self._records.give(project.id, user.id, target.id)
                ):
                    what = "its lease has ended or changed at this very moment"
                    raise failure(slot.name, "transfer-refused", what, "Nothing was moved")
                self._root.account(target.name)
                self._root.move(slot.name, target.name)
        except (ShipshapeError, OSError) as error:
            self._undo(document, error)
            if isinstance(error, ShipshapeError):
                raise
            what = f"its project could not be moved to {target.name}: {error.strerror or error}"
            raise failure(slot.name, "transfer-failed", what, "All is as it was. Mend that, run this again") from error

    def _undo(self, document: Mapping[str, Any], error: Exception) -> None:
        try:
            if not self._settle(document):
                journals.end(self._root, int(document["slot"]))
        except (ShipshapeError, OSError) as second:
            self.stuck.add(int(document["slot"]))
            words = [at.findings[0].message if isinstance(at, ShipshapeError) else str(at) for at in (error, second)]
            what = f"the transfer to {document['to']} was interrupted ({words[0]}), and could not be undone: {words[1]}"
            remedy = "Run this again, or state: present: either finishes it or puts the project back. Nothing is lost"
            raise failure(document["user"], "transfer-unfinished", what, remedy) from error

    def _finish(self, document: Mapping[str, Any]) -> None:
        """What is left to do after the commit. The journal goes after the receipt is there."""
        number = int(document["slot"])
        seen = self._pool.look()
        slot = seen.slot(number)
        if state(slot, seen) == CLEANING:
            self._bring_along(document)
            failed = self._pool.run(plan.cleared(slot, seen, "its project was transferred"), seen)
            if failed:
                raise ShipshapeError(*failed)
        self._receipts.add(number, document["to"], document["proof"])

    def _bring_along(self, document: Mapping[str, Any]) -> None:
        """What was set aside when an interrupted transfer was undone is the same visitor's."""
        slot, account = document["user"], document["to"]
        for kept in self._root.move_set_aside(slot, account):
            self._report.findings = [
                at for at in self._report.findings if (at.code, at.subject) != ("transfer-two-projects", slot)
            ]
            what = f"a second project was made while the transfer was interrupted; it is kept as {account}/{kept}"
            remedy = "Whoever has the account may want something of it; remove it when that is settled"
            self._report.add(Finding(WARNING, account, "transfer-two-projects", what, remedy))


def _fingerprint(lease: Lease) -> str:
    return proof(lease.session_key, lease.token)


def _plain(value: Any) -> Any:
    return value if json.dumps(value, default=lambda _other: None) != "null" else str(value)
