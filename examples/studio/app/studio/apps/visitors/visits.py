# SPDX-License-Identifier: GPL-3.0-or-later
"""A visit: the session's slot, or a slot for the session, or the reason why there is none."""

from __future__ import annotations

import logging
import random
import time
from contextlib import suppress

from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.models import Session
from django.db import DatabaseError, Error, transaction
from django.utils import timezone

from . import disk, leases, slots
from .leases import Lease
from .limits import PATIENCE_SECONDS, PROJECT, QUARANTINED, username
from .models import PoolSize, Project, VisitorAllocation

log = logging.getLogger(__name__)

# Slots that can be lent when they have been cleaned, in this order.
UNCLEAN = ("expired", "resetting")


class ExhaustedError(Exception):
    """No slot can be lent. The cause decides what an operator does, so they are told apart."""

    def __init__(self, cause: str, detail: str, retry_after: int) -> None:
        super().__init__(f"{cause}: {detail}")
        self.cause, self.retry_after = cause, retry_after


def lease_for(session: SessionBase) -> Lease:
    """The slot that the session has, or the lowest free one. When none is, an expired one is cleaned."""
    lease = leases.held(session)
    if lease is not None:
        return lease
    before = session.session_key
    try:
        return _new_lease_or_cause(session)
    except ExhaustedError:
        leave(session, before)
        raise


def leave(session: SessionBase, before: str | None) -> None:
    """A session that was begun for this visit ends with it: no browser learns of it from an answer that is an error."""
    if session.session_key != before:
        with suppress(Error):
            session.flush()


def _new_lease_or_cause(session: SessionBase) -> Lease:
    try:
        disk.check_root()
        return _new_lease(session)
    except disk.StorageError as error:
        raise ExhaustedError("storage", str(error), 60) from error


def _new_lease(session: SessionBase) -> Lease:
    deadline, blame = time.monotonic() + PATIENCE_SECONDS, True
    while True:
        # Who can be lent nothing gets no session either: without a cookie, each hit would leave one behind.
        lease = _lend(session) if leases.any_free() else None
        if lease is None:
            blame = make_room(patient=time.monotonic() < deadline, blame=blame)
        elif usable(lease, blame=blame):
            break
        else:
            blame = False
    log.info("[VisitorPool] ✓ Allocated: %s", lease.name)
    log.info("[VisitorPool] Project ID: %d", lease.project_id)
    log.info("[VisitorPool] Project: %s", PROJECT)
    return lease


def _lend(session: SessionBase) -> Lease | None:
    """Row and session change together: nobody is lent a slot that the session does not know of, nor two."""
    if not session.session_key or not session.exists(session.session_key):
        session.create()
    with transaction.atomic():
        # A second request of the same session waits here, and then finds what the first has got.
        stored = Session.objects.select_for_update().filter(session_key=session.session_key).first()
        if stored is None:
            return None  # deleted this very moment: the next try begins a new one
        for key, value in stored.get_decoded().items():
            if key in leases.SESSION_KEYS:
                session[key] = value
        lease = leases.held(session)
        if lease is not None:
            return lease
        lease = leases.allocate(session.session_key)
        if lease is None:
            return None
        leases.remember(session, lease)
        session.save()
    return lease


def usable(lease: Lease, *, blame: bool = True) -> bool:
    """A row says that the slot is free; the disk says whether it is any good. What is missing is made.

    One slot in a request may be to blame for a fault, and is quarantined. When a second one has it, too, the fault is
    the data root's (StorageError): otherwise one visit after another would put a whole pool out of use.
    """
    try:
        if not disk.has_workspace(lease.name):
            slots.mend(lease.number)
    except OSError as error:
        if not blame or disk.everybodys(error):
            give_back(lease)
            raise disk.StorageError(f"{lease.name} has no workspace: {error}") from error
        log.error("[VisitorPool] %s has no workspace, and none can be made; it is quarantined: %s", lease.name, error)
        slots.quarantine(lease.number, leases.bears(lease))
        return False
    return True


def give_back(lease: Lease) -> None:
    """A slot goes back that its visitor has not seen. Another request of the session may have, so it is cleaned."""
    try:
        with slots.lock(lease.number, wait=True):
            if slots.take(lease.number, leases.bears(lease)):
                slots.finish(lease.number, blame=False)
    except (OSError, DatabaseError) as error:
        log.warning("[VisitorPool] %s was not cleaned when it was given back: %s", lease.name, error)


def make_room(*, patient: bool, blame: bool = True) -> bool:
    """Clean a slot whose lease has expired, or whose cleaner has died. Raises ExhaustedError when there is none.

    First one more look: a statement that passes by what others are just taking may find nothing although nobody has
    everything. What has been committed at one moment tells. Returns whether a slot may still be blamed (see `usable`).
    """
    if patient and leases.any_free():
        time.sleep(random.uniform(0, 0.004))
        return blame
    rows = list(VisitorAllocation.objects.order_by("visitor_number"))
    unclean = [row for state in UNCLEAN for row in rows if row.state == state]
    for row in unclean:
        if _clean(row, blame=blame):
            return blame
        if VisitorAllocation.objects.filter(pk=row.pk, session_key=QUARANTINED).exists():
            return False
    if patient and unclean:
        time.sleep(random.uniform(0.005, 0.05))
        return blame
    raise _exhausted(rows)


def _clean(row: VisitorAllocation, *, blame: bool) -> bool:
    if row.state == "expired":
        return slots.renew(row.visitor_number, slots.expired(), wait=False, blame=blame)
    return slots.finish_dead(row.visitor_number, blame=blame)


def _exhausted(rows: list[VisitorAllocation]) -> ExhaustedError:
    """Why there is nothing to lend: what most slots suffer from, and among equals what can be mended first."""
    names = {row.visitor_number: username(row.visitor_number) for row in rows}
    projects = Project.objects.filter(slug=PROJECT, owner__username__in=names.values())
    whole = set(projects.values_list("owner__username", flat=True))
    held = sum(row.state == "quarantined" for row in rows)
    leased = [row for row in rows if row.state == "leased" and names[row.visitor_number] in whole]
    # What is free and could not be taken all the same is being taken by others.
    busy = len(leased) + sum(row.state in UNCLEAN for row in rows) + leases.count_free()
    wanting = max(len(rows), PoolSize.asked()) - held - busy
    detail = f"of {len(rows)} slots {busy} are lent or being cleaned, {held} could not be cleaned"
    if held and held >= max(busy, wanting):
        return ExhaustedError("quarantined", detail, 600)
    if busy <= wanting:
        return ExhaustedError("unprovisioned", f"{detail}: run manage.py create_visitor_pool", 600)
    # Somebody may sign up meanwhile, so nobody is sent away for a day.
    ends = [(row.expires_at - timezone.now()).total_seconds() for row in leased]
    return ExhaustedError("saturated", detail, int(min(max(min(ends, default=60), 60), 3600)))
