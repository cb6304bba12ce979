# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole pool: made, grown, shrunk and repaired. What is whole is not touched, and what cannot be made is named."""

from __future__ import annotations

import logging
from datetime import datetime

from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from . import disk, leases, slots, status, transfers
from .limits import FAR, PROJECT, RESETTING, username
from .models import Project, VisitorAllocation
from .status import Slot

log = logging.getLogger(__name__)


def provide(size: int | None = None) -> list[str]:
    """Bring the pool to its size and every slot into order; what is still wrong then, looked at anew.

    Without a size it never shrinks: a restart must not undo what an operator has just grown.
    """
    with slots.lock(0, wait=True):
        disk.sweep_old()
        seen = status.look()
        wanted = size or max(settings.VISITOR_POOL_SIZE, seen.size)
        made = [number for number in range(1, wanted + 1) if number not in seen.slots]
        _enter(made)
        for number in made:
            _make(number)
        for slot in sorted(seen.slots.values(), key=lambda slot: slot.number):
            _repair(slot) if slot.number <= wanted else _withdraw(slot)
        return status.look().findings(wanted)


def renew_expired() -> int:
    """Clean every slot whose lease has expired, and count those that can be lent again."""
    numbers = VisitorAllocation.objects.filter(slots.expired()).order_by("visitor_number")
    return sum(slots.renew(n, slots.expired()) for n in list(numbers.values_list("visitor_number", flat=True)))


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


def _make(number: int) -> None:
    """A slot that cannot be made leaves nothing behind; the others are made all the same."""
    if not slots.renew(number, slots.PUT_ASIDE):
        with slots.lock(number, wait=True):
            _remove(number)


def _remove(number: int) -> None:
    try:
        with transaction.atomic():
            slots.delete_rows(number)
            disk.remove(username(number))
    except (OSError, slots.SlotError) as error:
        log.error("[VisitorPool] %s cannot be removed: %s", username(number), error)


def _withdraw(slot: Slot) -> None:
    """The pool shrinks: whoever has the slot keeps it until the lease ends, and then it goes."""
    if slot.foreign:
        return
    if slot.account is not None:
        User.objects.filter(pk=slot.account.pk).update(is_active=False)
    if slot.state == "leased":
        return
    with slots.lock(slot.number, wait=True):
        if slot.row is None or slots.take(slot.number, _not_leased(slot)):
            _remove(slot.number)


def _not_leased(slot: Slot) -> Q:
    """Everything but a lease that somebody has taken since we looked."""
    if slot.state == "missing" and slot.row is not None and slot.row.is_active:
        return slots.ANY  # nobody's: it has no account
    return slots.FREE | slots.PUT_ASIDE | slots.expired()


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
    elif slot.row.is_active:
        _mend(slot)
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
        with slots.lock(slot.number, wait=True):
            transfers.settle(slot.name)
            disk.mend(slot.name)
    except OSError as error:
        log.error("[VisitorPool] %s: its workspace cannot be made: %s", slot.name, error)
    workspace = disk.has_workspace(slot.name)
    Project.objects.filter(owner__username=slot.name, slug=PROJECT).update(writer_initialized=workspace)
