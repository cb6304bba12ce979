# SPDX-License-Identifier: GPL-3.0-or-later
"""Signing up: a new account, which takes over the visitor's project when there is one. The slot is made anew."""

from __future__ import annotations

import logging
import os

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction

from . import disk, leases, slots, transfers
from .leases import Lease
from .limits import PROJECT, username
from .models import Project

log = logging.getLogger(__name__)


class TakenError(Exception):
    """The name is somebody else's: in the database, or on disk."""


class EndedError(Exception):
    """The lease has ended, so what was the visitor's is no longer."""


def sign_up(name: str, password: str, lease: Lease | None) -> User:
    if lease is None:
        return _new(name, password)
    with slots.lock(lease.number, wait=True):
        account = _hand_over(name, password, lease)
        log.info("[VisitorPool] %s: its project is now %s's", lease.name, name)
        slots.finish(lease.number)
    return account


def _hand_over(name: str, password: str, lease: Lease) -> User:
    """Rows and directory move together or not at all: the rename is the last thing before the commit."""
    try:
        with transaction.atomic():
            transfers.settle(lease.name)
            _settle(name)
            if not leases.holds(lease, lock=True):
                raise EndedError
            account = _create(name, password)
            disk.mend(lease.name)  # a visitor who signs up before the first look has a workspace, too
            Project.objects.filter(pk=lease.project_id).update(owner=account, writer_initialized=True)
            slots.take(lease.number)
            _move(lease.name, name)
    except Exception:
        # What the database has not kept is undone on disk. When it cannot be asked now, whoever comes next will do it.
        transfers.settle(lease.name)
        raise
    transfers.settle(lease.name)
    return account


def _settle(name: str) -> None:
    """What a killed transfer to an account of this name has left. A living one has its slot's lock."""
    for number in transfers.pending(name):
        with slots.lock(number, wait=False) as mine:
            if mine:
                transfers.settle(username(number))


def _new(name: str, password: str) -> User:
    """Nobody's project to take over: an account with a workspace of its own."""
    with transaction.atomic():
        _settle(name)
        account = _create(name, password)
        project = Project.objects.create(owner=account, slug=PROJECT, name=PROJECT)
        if os.path.lexists(disk.home(name)):
            raise TakenError
    disk.mend(name)
    Project.objects.filter(pk=project.pk).update(writer_initialized=True)
    return account


def _create(name: str, password: str) -> User:
    try:
        with transaction.atomic():
            return User.objects.create_user(name, password=password)
    except IntegrityError:
        raise TakenError from None


def _move(slot: str, account: str) -> None:
    try:
        transfers.move(slot, account)
    except transfers.OccupiedError:
        raise TakenError from None
