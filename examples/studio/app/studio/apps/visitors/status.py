# SPDX-License-Identifier: GPL-3.0-or-later
"""What there is of the pool, counted from rows and directories: every slot of which anything exists is seen."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import connection
from django.db.models import QuerySet

from . import disk, leases, slots, transfers
from .limits import CROWDED, PREFIX, PROJECT, number_of, username
from .models import PoolSize, Project, VisitorAllocation

# States of slots that visitors have, or can have when they have been cleaned.
LENDABLE = ("allocatable", "leased", "expired", "resetting")


@dataclass
class Slot:
    """One slot, as it was found."""

    number: int
    account: User | None = None
    project: Project | None = None
    row: VisitorAllocation | None = None
    directory: bool = False
    workspace: bool = False
    unreadable: str = ""  # why its directory cannot be looked at
    orphan: bool = False  # leased, and no session can own it
    busy: bool = False  # somebody is at work on it, so that what it lacks is not missing

    @property
    def name(self) -> str:
        return username(self.number)

    @property
    def foreign(self) -> bool:
        return self.account is not None and leases.is_somebodys(self.account)

    @property
    def draining(self) -> bool:
        """The pool has shrunk: the slot goes when its lease ends."""
        return self.account is not None and not self.account.is_active

    def lacks(self) -> list[str]:
        return [
            what
            for what, there in (
                ("account", self.account is not None),
                ("project", self.project is not None),
                ("allocation row", self.row is not None),
                ("directory", self.directory),
                ("workspace", self.workspace or not self.directory),
            )
            if not there
        ]

    @property
    def state(self) -> str:
        """allocatable, leased, expired, resetting, quarantined or missing: exactly one of them."""
        if self.row is None or self.account is None or self.project is None or self.foreign:
            return "missing"
        if self.row.state != "free":
            return self.row.state
        return "missing" if self.lacks() or self.draining else "allocatable"

    def findings(self) -> list[str]:
        if self.foreign:
            return [f"{self.name}: the account is somebody's, and no slot's"]
        if self.busy:
            return []  # whoever is at work on it is not done yet
        found = [f"{self.name}: its {what} is missing" for what in self.lacks()]
        if self.unreadable:
            found.append(f"{self.name}: its directory cannot be read: {self.unreadable}")
        if self.orphan:
            found.append(f"{self.name}: its lease is no session's, and blocks it")
        if self.draining and self.row is not None and self.row.state != "leased":
            found.append(f"{self.name}: is left over from a larger pool")
        if self.row is not None and self.row.state == "quarantined":
            found.append(f"{self.name}: could not be cleaned, and is quarantined")
        if self.row is not None and self.row.state == "resetting":
            found.append(f"{self.name}: its cleaning was begun and has not ended")
        if self.project is not None and self.directory and self.project.writer_initialized != self.workspace:
            found.append(f"{self.name}: the database says otherwise than the disk about its workspace")
        return found


@dataclass
class Pool:
    slots: dict[int, Slot] = field(default_factory=dict)
    transfers: dict[int, list[str]] = field(default_factory=dict)  # that were begun and have not ended: to whom

    def at(self, number: int) -> Slot:
        return self.slots.setdefault(number, Slot(number))

    def count(self, state: str) -> int:
        return sum(slot.state == state for slot in self.slots.values())

    @property
    def total(self) -> int:
        """Without what is no slot, although its account is called like one."""
        return sum(not slot.foreign for slot in self.slots.values())

    @property
    def size(self) -> int:
        """The highest number that is in use and is to stay."""
        return max((n for n, slot in self.slots.items() if slot.row and slot.account and not slot.draining), default=0)

    @property
    def wanted(self) -> int:
        """How many slots there should be, when nobody says it."""
        return max(PoolSize.asked(), self.size)

    def findings(self, size: int | None = None) -> list[str]:
        """What is wrong, in words; `size` is how many slots there should be, or else what `provide` makes."""
        if not self.slots and size is None:
            return ["the pool has no slot: run manage.py create_visitor_pool"]
        there_should_be = range(1, (size or self.wanted) + 1)
        absent = [f"{username(n)}: nothing of it is there" for n in there_should_be if n not in self.slots]
        begun = [
            f"{username(n)}: the transfer of its project to {account} was begun and has not ended"
            for n in sorted(self.transfers)
            for account in self.transfers[n]
            if n not in self.slots or not self.slots[n].busy
        ]
        return [*absent, *begun, *(found for n in sorted(self.slots) for found in self.slots[n].findings())]

    def notes(self) -> list[str]:
        """What goes by itself."""
        return [f"{slot.name}: somebody is at work on it" for _, slot in sorted(self.slots.items()) if slot.busy]

    @property
    def usable(self) -> bool:
        """Whether there is a slot that somebody has, or can be lent."""
        return any(self.count(state) for state in ("allocatable", "leased", "expired"))

    @property
    def crowded(self) -> bool:
        """By the slots that can be lent: those that are missing or quarantined make it no less full."""
        return self.count("leased") > CROWDED * sum(self.count(state) for state in LENDABLE)

    def text(self) -> str:
        """The status, word for word as everybody's scripts expect it."""
        return (
            f"\n=== Visitor Pool Status ===\nTotal slots: {self.total}\nAllocated: {self.count('leased')}\n"
            f"Free: {self.count('allocatable')}\nExpired: {self.count('expired')}"
        )


def look(*, alone: bool = False) -> Pool:
    """All that is there now. Raises StorageError when the data root itself cannot be looked at.

    `alone`: whoever asks has just been at work on every slot, and what is not whole is nobody else's unfinished work.
    """
    disk.check_root()
    pool = Pool(transfers=transfers.pending())
    accounts, rows = User.objects.filter(username__startswith=PREFIX), VisitorAllocation.objects.all()
    _look_at_rows(pool, accounts, rows)
    for number in _directories(Path(settings.VISITOR_DATA_ROOT)):
        pool.at(number)
    _find_orphans([slot for slot in pool.slots.values() if slot.state == "leased"])
    for slot in pool.slots.values():
        _look_at_disk(slot)
    for slot in list(pool.slots.values()):
        if slot.row and not slot.foreign and (slot.number in pool.transfers or slot.findings()):
            _look_closer(pool, slot, alone=alone)
    return pool


def _look_at_rows(pool: Pool, accounts: QuerySet[User], rows: QuerySet[VisitorAllocation]) -> None:
    for account in accounts:
        number = number_of(account.username)
        if number is not None:
            pool.at(number).account = account
    owners = {slot.account.pk: slot for slot in pool.slots.values() if slot.account}
    for project in Project.objects.filter(slug=PROJECT, owner__in=accounts):
        if project.owner_id in owners:
            owners[project.owner_id].project = project
    for row in rows.filter(visitor_number__gte=1):
        pool.at(row.visitor_number).row = row


def _look_closer(pool: Pool, slot: Slot, *, alone: bool) -> None:
    """What is not whole may be somebody's work that is not done yet, who then has the slot's lock, or the pool's.

    If nobody has, they may have ended since the first look, so only a second one tells. On SQLite the word `resetting`
    is all that there is to see of them.
    """
    number = slot.number
    resetting = slot.row is not None and slot.row.state == "resetting"
    if connection.vendor != "postgresql":
        slot.busy = resetting and not alone
        return
    with slots.lock(0, wait=False, shared=True) as nobody, slots.lock(number, wait=False) as mine:
        if not mine or (resetting and not nobody):
            slot.busy = True
            return
        begun = [account for account in pool.transfers.get(number, []) if number in transfers.pending(account)]
        new = Pool(transfers={number: begun})
        names = User.objects.filter(username=username(number))
        _look_at_rows(new, names, VisitorAllocation.objects.filter(visitor_number=number))
        _find_orphans([again for again in new.slots.values() if again.state == "leased"])
        _look_at_disk(new.at(number))
    del pool.slots[number]
    if new.at(number) != Slot(number):  # or else the pool has shrunk meanwhile
        pool.slots |= new.slots
    pool.transfers |= new.transfers


def _find_orphans(leased: list[Slot]) -> None:
    keys = {slot.number: slot.row.session_key for slot in leased if slot.row}
    known = set(Session.objects.filter(session_key__in=keys.values()).values_list("session_key", flat=True))
    for slot in leased:
        slot.orphan = keys.get(slot.number) not in known


def _look_at_disk(slot: Slot) -> None:
    try:
        slot.directory = disk.has_project(slot.name)
        slot.workspace = slot.directory and disk.has_workspace(slot.name)
    except OSError as error:
        slot.unreadable = error.strerror or str(error)


def _directories(root: Path) -> list[int]:
    if not root.is_dir():
        return []
    return [number for name in os.listdir(root) if (number := number_of(name))]
