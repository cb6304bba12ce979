# SPDX-License-Identifier: GPL-3.0-or-later
"""A visit: the session's slot, or a slot for the session, or the reason why there is none."""

from __future__ import annotations

import logging
import random
import time

from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.models import Session
from django.db import transaction
from django.utils import timezone

from . import disk, leases, slots, transfers
from .leases import Lease
from .limits import HELD_BACK, PATIENCE_SECONDS, PROJECT, username
from .models import Project, VisitorAllocation

log = logging.getLogger(__name__)


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
    leases.forget(session)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        lease = _lend(session)
        if lease is not None:
            return lease
        make_room(patient=time.monotonic() < deadline)


def _lend(session: SessionBase) -> Lease | None:
    """Row and session change together: nobody is lent a slot that the session does not know of, nor two."""
    if not session.session_key or not session.exists(session.session_key):
        session.create()
    with transaction.atomic():
        # A second request of the same session waits here, and then finds what the first has got.
        stored = Session.objects.select_for_update().get(session_key=session.session_key)
        for key, value in stored.get_decoded().items():
            if key in leases.SESSION_KEYS:
                session[key] = value
        lease = leases.held(session)
        if lease is not None:
            return lease
        leases.forget(session)
        lease = leases.allocate(session.session_key)
        if lease is None:
            return None
        leases.remember(session, lease)
        session.save()
    if not usable(lease):
        return None
    log.info("[VisitorPool] ✓ Allocated: %s", lease.name)
    log.info("[VisitorPool] Project ID: %d", lease.project_id)
    log.info("[VisitorPool] Project: %s", PROJECT)
    return lease


def usable(lease: Lease) -> bool:
    """A row says that the slot is free; the disk says whether it is any good. What is missing is made."""
    if disk.has_workspace(lease.name):
        return True
    try:
        with slots.lock(lease.number, wait=True):
            transfers.settle(lease.name)
            disk.mend(lease.name)
    except OSError as error:
        log.error("[VisitorPool] %s has no workspace, and none can be made; it is quarantined: %s", lease.name, error)
        slots.quarantine(lease.number)
        return False
    Project.objects.filter(pk=lease.project_id).update(writer_initialized=True)
    return True


def make_room(*, patient: bool) -> None:
    """Clean a slot whose lease has expired, or whose cleaner has died. Raises ExhaustedError when there is none.

    First one more look: a statement that passes by what others are just taking may find nothing although nobody has
    everything. What has been committed at one moment tells.
    """
    if patient and leases.any_free():
        time.sleep(random.uniform(0, 0.004))
        return
    rows = list(VisitorAllocation.objects.order_by("visitor_number"))
    of = {state: [row for row in rows if row.state == state] for state in ("leased", "expired", "resetting")}
    for row in of["expired"]:
        if slots.renew(row.visitor_number, slots.expired(), wait=False):
            return
    for row in of["resetting"]:
        if slots.finish_dead(row.visitor_number):
            return
    being_cleaned = of["expired"] + of["resetting"]
    if patient and being_cleaned:
        time.sleep(random.uniform(0.005, 0.05))
        return
    # A lease without an account is nobody's.
    accounts = set(Project.objects.filter(slug=PROJECT).values_list("owner__username", flat=True))
    leased = [row for row in of["leased"] if username(row.visitor_number) in accounts]
    if leased:
        # Somebody may sign up meanwhile, so nobody is sent away for a day.
        ends = [(row.expires_at - timezone.now()).total_seconds() for row in leased]
        retry = int(min(max(min(ends, default=60), 60), 3600))
        raise ExhaustedError("saturated", f"{len(leased)} of {len(rows)} slots are lent", retry)
    if any(row.session_key in HELD_BACK for row in rows if row.is_active):
        raise ExhaustedError("quarantined", f"none of {len(rows)} slots could be cleaned", 600)
    raise ExhaustedError("unprovisioned", "there is no whole slot: run manage.py create_visitor_pool", 600)
