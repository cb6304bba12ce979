# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole pool: made, grown, shrunk and repaired. What is whole is not touched, and what cannot be made is named."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from . import disk, leases, slots, status, transfers
from .limits import FAR, PROJECT, QUARANTINED, RESETTING, UPKEEP, username
from .models import PoolSize, Project, VisitorAllocation
from .status import Slot

log = logging.getLogger(__name__)


def provide(size: int | None = None) -> list[str]:
    """Bring the pool to its size and every slot into order; what is still wrong then, looked at anew.

    A size is remembered: without one, a restart must not undo what an operator has asked for. What somebody else has
    grown does not shrink by itself, either.
    """
    disk.check()
    with slots.lock(0, wait=True):
        if size:
            PoolSize.ask(size)  # first, so that the next run ends what this one could not
        disk.sweep_old()
        unsettled = _settle_all()
        seen = status.look()
        wanted = size or seen.wanted
        made = [number for number in range(1, wanted + 1) if number not in seen.slots]
        _enter(made)
        for number in made:
            _make(number, settled=number not in unsettled)
        for slot in sorted(seen.slots.values(), key=lambda slot: slot.number):
            _bring_into_order(slot, wanted)
        return status.look(alone=True).findings(wanted)


def renew_expired(between: Callable[[], None] = lambda: None) -> int:
    """Clean every slot whose lease has ended, or is no session's, or whose cleaner has died; count those that can be
    lent again. `between` is called after each. What was put aside comes last: to clear an expired slot makes room on a
    full disk, and the directory of those may be gone already.

    One slot may be to blame for a fault, and is quarantined. The next that has it shows that the fault is everybody's
    (StorageError): otherwise one bad moment of the disk would put the whole pool out of use.
    """
    cleaned, blame = 0, True
    rows = VisitorAllocation.objects.exclude(slots.FREE).order_by("visitor_number")
    for row in sorted(rows, key=lambda row: row.state == "resetting"):
        if _clean(row, blame=blame):
            cleaned += 1
        elif blame and row.state != "quarantined":
            blame = not VisitorAllocation.objects.filter(pk=row.pk, session_key=QUARANTINED).exists()
        between()
    return cleaned


def is_over(row: VisitorAllocation) -> bool:
    """Whether `renew_expired` would clean the slot, if nobody alive is at it."""
    return row.state in ("expired", "resetting") or _is_nobodys(row)


def _is_nobodys(row: VisitorAllocation) -> bool:
    return row.state == "leased" and not Session.objects.filter(session_key=row.session_key).exists()


def _clean(row: VisitorAllocation, *, blame: bool) -> bool:
    if row.state == "expired":
        return slots.renew(row.visitor_number, slots.expired(), wait=False, blame=blame)
    if row.state == "resetting":
        return slots.finish_dead(row.visitor_number, blame=blame)
    if _is_nobodys(row):
        return slots.renew(row.visitor_number, _of_session(row), wait=False, blame=blame)
    return False


def keep_up(between: Callable[[], None]) -> None:
    """What is to be done now and then: work and sessions whose time is over go. One process at a time is enough."""
    with slots.lock(UPKEEP, wait=False) as mine:
        if mine:
            SessionStore.clear_expired()
            cleaned = renew_expired(between)
            log.log(logging.INFO if cleaned else logging.DEBUG, "[VisitorPool] cleaned after their end: %d", cleaned)


def _settle_all() -> set[int]:
    """Every transfer that was killed is finished or undone; the slots where that cannot be done."""
    unsettled = set()
    for number in transfers.pending():
        try:
            slots.settle(number)
        except OSError as error:
            log.error("[VisitorPool] %s: what was taken out of it cannot be put back: %s", username(number), error)
            unsettled.add(number)
    return unsettled


@transaction.atomic
def _enter(numbers: list[int]) -> None:
    """Rows for slots of which there is nothing yet. They are put aside until their directories have been seen."""
    accounts = User.objects.bulk_create(User(username=username(n), password=make_password(None)) for n in numbers)
    Project.objects.bulk_create(Project(owner=account, slug=PROJECT, name=PROJECT) for account in accounts)
    now = timezone.now()
    VisitorAllocation.objects.bulk_create(_row(number, now) for number in numbers)


def _row(number: int, now: datetime) -> VisitorAllocation:
    return VisitorAllocation(
        visitor_number=number,
        session_key=RESETTING,
        allocation_token=leases.no_token(),
        allocated_at=now,
        expires_at=FAR,
        is_active=True,
    )


def _make(number: int, *, settled: bool) -> None:
    """A slot that cannot be made leaves nothing behind; the others are made all the same."""
    try:
        made = slots.renew(number, slots.PUT_ASIDE, settled=settled)
    except disk.StorageError as error:
        log.error("[VisitorPool] %s", error)
        made = False
    if not made:
        with slots.lock(number, wait=True):
            _remove(number, slots.PUT_ASIDE)


def _remove(number: int, only: Q | None) -> None:
    """Remove a slot whose row is (still) in one of the states `only`; None: it has no row."""
    try:
        with transaction.atomic():
            if only is None or slots.take(number, only):
                transfers.settle(username(number))
                slots.delete_rows(number)
                disk.remove(username(number))
    except (OSError, slots.SlotError) as error:
        log.error("[VisitorPool] %s cannot be removed: %s", username(number), error)


def _bring_into_order(slot: Slot, wanted: int) -> None:
    try:
        _repair(slot) if slot.number <= wanted else _withdraw(slot)
    except disk.StorageError as error:
        log.error("[VisitorPool] %s", error)


def _withdraw(slot: Slot) -> None:
    """The pool shrinks: whoever has the slot keeps it until the lease ends, and then it goes."""
    if slot.foreign:
        return
    if slot.account is not None:
        User.objects.filter(pk=slot.account.pk).update(is_active=False)
    if slot.state == "leased" and not slot.orphan:
        return
    with slots.lock(slot.number, wait=True):
        _remove(slot.number, _not_leased(slot) if slot.row else None)


def _not_leased(slot: Slot) -> Q:
    """Everything but a lease that somebody has taken since we looked."""
    if slot.state == "missing" and slot.row is not None and slot.row.is_active:
        return slots.ANY  # nobody's: it has no account
    if slot.row is not None and slot.orphan:
        return _of_session(slot.row)
    return slots.FREE | slots.PUT_ASIDE | slots.expired()


def _of_session(row: VisitorAllocation) -> Q:
    return Q(is_active=True, session_key=row.session_key)


def _repair(slot: Slot) -> None:
    if slot.foreign:
        slots.quarantine(slot.number)  # its row, if it has one
        return
    if slot.draining and slot.account is not None:
        User.objects.filter(pk=slot.account.pk).update(is_active=True)
    if slot.row is None:
        # What lies in its directory is unknown, so it is made anew.
        _row(slot.number, timezone.now()).save()
        slots.renew(slot.number, slots.PUT_ASIDE)
    elif slot.row.state in ("resetting", "quarantined"):
        slots.renew(slot.number, slots.PUT_ASIDE)
    elif slot.account is None or slot.project is None:
        _end_phantom(slot)
    elif slot.orphan:
        slots.renew(slot.number, _of_session(slot.row))
    elif slot.row.is_active:
        _mend(slot)
    elif slot.row.state == "expired":
        slots.renew(slot.number, slots.UNCLEARED)
    elif slot.lacks():
        slots.renew(slot.number, slots.FREE)
    elif not slot.project.writer_initialized:
        Project.objects.filter(pk=slot.project.pk).update(writer_initialized=True)


def _end_phantom(slot: Slot) -> None:
    """A lease without an account or a project is nobody's. While a project is being handed over it only looks so."""
    with slots.lock(slot.number, wait=True):
        whole = Project.objects.filter(owner__username=slot.name, slug=PROJECT).exists()
        if not whole and slots.take(slot.number):
            slots.finish(slot.number)


def _mend(slot: Slot) -> None:
    """Of a slot that somebody has, only what is missing is made."""
    try:
        slots.mend(slot.number)
    except OSError as error:
        log.error("[VisitorPool] %s: its workspace cannot be made: %s", slot.name, error)
        with suppress(OSError):  # that it cannot be seen does not mean that it is not there
            workspace = disk.has_workspace(slot.name)
            Project.objects.filter(owner__username=slot.name, slug=PROJECT).update(writer_initialized=workspace)
