# SPDX-License-Identifier: GPL-3.0-or-later
"""Signing up: a new account, which takes over the visitor's project when there is one. The slot is made anew."""

from __future__ import annotations

import logging
from collections.abc import Callable

from django.contrib.auth.models import User
from django.db import Error, IntegrityError, transaction

from . import disk, leases, slots, transfers
from .leases import Lease
from .limits import ACCOUNT, PROJECT, number_of, username
from .models import Project

log = logging.getLogger(__name__)


class TakenError(Exception):
    """The name is somebody else's, in the database or on disk; or the account has a project already."""


class EndedError(Exception):
    """The slot has been cleaned, so what was the visitor's is no longer there."""


@disk.trouble()
def sign_up(name: str, password: str, lease: Lease | None) -> User:
    """A new account. What was written is handed over also when the lease has ended, as long as it is there."""
    if lease is None:
        return _new(name, password)
    return _hand_over(name, lease, lambda: _create(name, password))


@disk.trouble()
def take_over(account: User, lease: Lease) -> None:
    """An account that there was already gets the visitor's project, if it has none."""
    name = account.username
    if not ACCOUNT.fullmatch(name) or number_of(name):
        raise TakenError
    _hand_over(name, lease, lambda: account)


@disk.trouble()
def settle(name: str, *, wait: bool) -> None:
    """What a killed transfer to an account of this name has left. A living one has its slot's lock."""
    for number in transfers.pending(name):
        with slots.lock(number, wait=wait) as mine:
            if mine:
                transfers.settle(username(number))


def _hand_over(name: str, lease: Lease, account_for: Callable[[], User]) -> User:
    account = None
    try:
        with slots.lock(lease.number, wait=True):
            settle(name, wait=False)
            account = _move_all(name, lease, account_for)
            log.info("[VisitorPool] %s: its project is now %s's", lease.name, name)
            slots.finish(lease.number)
    except (OSError, Error):
        if account is None:
            raise
        # The work has moved, and nothing undoes that any more. The slot is cleaned later, by whoever finds it.
        log.exception("[VisitorPool] %s: was not cleaned after its project had become %s's", lease.name, name)
    return account


def _move_all(name: str, lease: Lease, account_for: Callable[[], User]) -> User:
    """Rows and directory move together or not at all: the rename is the last thing before the commit."""
    try:
        with transaction.atomic():
            transfers.settle(lease.name)
            if not leases.holds(lease, lock=True, ended=True):
                raise EndedError
            account = account_for()
            disk.mend(lease.name)  # a visitor who signs up before the first look has a workspace, too
            _give(lease, account)
            slots.take(lease.number)
            _move(lease.name, name)
    except Exception:
        # What the database has not kept is undone on disk. When it cannot be asked now, whoever comes next will do it.
        transfers.settle(lease.name)
        raise
    return account


def _give(lease: Lease, account: User) -> None:
    try:
        with transaction.atomic():
            visit = leases.digest(lease.token)
            Project.objects.filter(pk=lease.project_id).update(owner=account, writer_initialized=True, visit=visit)
    except IntegrityError:  # it has one
        raise TakenError from None


def _new(name: str, password: str) -> User:
    """Nobody's project to take over: an account with a workspace of its own."""
    settle(name, wait=False)
    with transaction.atomic():
        account = _create(name, password)
        project = Project.objects.create(owner=account, slug=PROJECT, name=PROJECT)
        if not transfers.vacant(disk.home(name)):
            raise TakenError
    try:
        disk.mend(name)
        Project.objects.filter(pk=project.pk).update(writer_initialized=True)
    except (OSError, Error):
        log.exception("[VisitorPool] %s has no workspace yet: the writer's page offers to make one", name)
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
