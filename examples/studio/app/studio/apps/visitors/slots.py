# SPDX-License-Identifier: GPL-3.0-or-later
"""Cleaning: a slot that was used is put aside, cleared, rebuilt and looked at before anybody else may have it.

The row says `resetting` from before the first file goes until the new directory has been seen. Who is killed in between
leaves that word behind, and the next who gets the slot's lock finishes: a living cleaner has the lock, a dead one not.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models import Q
from django.utils import timezone

from . import disk, leases, transfers
from .limits import FAR, HELD_BACK, LOCK, PROJECT, QUARANTINED, RESETTING, username
from .models import Project, VisitorAllocation

log = logging.getLogger(__name__)


class SlotError(Exception):
    """A slot cannot be what it should be; the message says why."""


@contextmanager
def lock(number: int, *, wait: bool, shared: bool = False) -> Iterator[bool]:
    """The slot's lock, or False when somebody else has it and there is no wish to wait.

    It is the connection's and not a transaction's, so it is taken outside of one: inside one that fails, it could not
    be given back.
    """
    if connection.vendor != "postgresql":
        yield True  # SQLite lets one writer in at a time, and the transaction that cleans is one
        return
    kind, which = "_shared" if shared else "", [LOCK, number]
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {'pg_advisory_lock' if wait else 'pg_try_advisory_lock'}{kind}(%s, %s)", which)
        mine = wait or bool(cursor.fetchone()[0])
    try:
        yield mine
    finally:
        if mine:
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT pg_advisory_unlock{kind}(%s, %s)", which)


def finish_dead(number: int, *, blame: bool = True) -> bool:
    """Finish what a dead cleaner has left. A module at work on the pool has lock 0, and may be at any slot."""
    with lock(0, wait=False, shared=True) as nobody:
        return nobody and renew(number, UNFINISHED, wait=False, blame=blame)


def expired() -> Q:
    """Leases strictly after their end, and slots that were freed uncleared; those that are put aside are no leases."""
    return UNCLEARED | (Q(is_active=True, expires_at__lt=timezone.now()) & ~Q(session_key__in=HELD_BACK))


ANY, FREE = Q(), Q(is_active=False, session_key="")
UNCLEARED = Q(is_active=False) & ~Q(session_key="")
PUT_ASIDE = Q(is_active=True, session_key__in=HELD_BACK)
UNFINISHED = Q(is_active=True, session_key=RESETTING)


def renew(number: int, only: Q = ANY, *, wait: bool = True, blame: bool = True, settled: bool = False) -> bool:
    """Put the slot aside if it is in one of the states `only`, clean it, and offer it. True when it is offered.

    A slot that cannot be cleaned is quarantined; one that is to go away (a pool that shrank) goes.
    """
    disk.check()  # before the first row changes: what cannot be cleaned now must not be put aside either
    with lock(number, wait=wait) as mine:
        return mine and take(number, only) and finish(number, blame=blame, settled=settled)


def take(number: int, only: Q = ANY) -> bool:
    """From now on nobody holds the slot. One statement, so a visit that comes at the same moment wins or loses it."""
    row = VisitorAllocation.objects.filter(only, visitor_number=number)
    return bool(row.update(is_active=True, session_key=RESETTING, allocation_token=leases.no_token(), expires_at=FAR))


def finish(number: int, *, blame: bool = True, settled: bool = False) -> bool:
    """Clean a slot that is put aside; its lock is held. `settled`: it is known that no transfer is to be settled first.

    A slot that cannot be cleaned is quarantined. But when the data root is in trouble, or (without `blame`) is likely
    to be, StorageError is raised, and the slot stays put aside for whoever comes when that is over.
    """
    name = username(number)
    try:
        with transaction.atomic():
            if not VisitorAllocation.objects.select_for_update().filter(UNFINISHED, visitor_number=number).exists():
                return False  # on SQLite somebody may have been faster, and the slot is lent again
            if not settled:
                transfers.settle(name)
            account = own_account(number)
            if account is not None and not account.is_active:
                disk.remove(name)
                delete_rows(number)
                return False
            make_rows(number)
            disk.replace(name)
            # Name and description were the former visitor's, too.
            fresh = {"name": PROJECT, "description": "", "writer_initialized": True}
            Project.objects.filter(owner__username=name, slug=PROJECT).update(**fresh)
            leases.free(number)
    except (OSError, SlotError) as error:
        if isinstance(error, OSError) and (not blame or disk.everybodys(error)):
            raise disk.StorageError(f"{name} cannot be cleaned: {error}") from error
        log.error("[VisitorPool] %s cannot be cleaned and is quarantined: %s", name, error)
        quarantine(number, UNFINISHED)
        return False
    return True


def settle(number: int) -> None:
    """What a killed transfer has taken out of a slot comes back, or is the account's."""
    with lock(number, wait=True):
        transfers.settle(username(number))


def mend(number: int) -> None:
    """Make what is missing of a slot that somebody has. What a killed transfer has taken is not: it comes back."""
    name = username(number)
    with lock(number, wait=True), transaction.atomic():
        transfers.settle(name)
        disk.mend(name)
        Project.objects.filter(owner__username=name, slug=PROJECT).update(writer_initialized=True)


def quarantine(number: int, only: Q = ANY) -> None:
    """Nobody is offered the slot until a repair has cleaned it."""
    VisitorAllocation.objects.filter(only, visitor_number=number).update(
        is_active=True, session_key=QUARANTINED, allocation_token=leases.no_token(), expires_at=FAR
    )


def own_account(number: int) -> User | None:
    account = User.objects.filter(username=username(number)).first()
    if account is not None and leases.is_somebodys(account):
        raise SlotError(f"the account {account.username} is somebody's, and no slot's")
    return account


def make_rows(number: int) -> None:
    """The account and the project of one slot, where they are missing."""
    account = own_account(number) or User.objects.create(username=username(number), password=make_password(None))
    Project.objects.get_or_create(owner=account, slug=PROJECT, defaults={"name": PROJECT})


def delete_rows(number: int) -> None:
    account = own_account(number)
    VisitorAllocation.objects.filter(visitor_number=number).delete()
    if account is not None:
        account.delete()
