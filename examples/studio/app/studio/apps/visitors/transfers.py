# SPDX-License-Identifier: GPL-3.0-or-later
"""Moving a project's directory to another account, so that being killed at any instant loses no byte.

Rows change in a transaction, directories do not. A file in the new account's directory says where the project comes
from, from before the rename until after the commit; whoever finds it asks the database whether the project is the new
account's, and undoes the rename if it is not.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from django.conf import settings

from . import disk
from .limits import ACCOUNT, PROJECT, number_of
from .models import Project

MARK = ".from-"


class OccupiedError(Exception):
    """Something lies where the project is to go. It is never overwritten."""


def move(slot: str, account: str) -> None:
    """Rename the project's directory. What is already there in the new account's name stays as it is, and wins."""
    place = disk.home(account)
    try:
        place.mkdir()
    except FileExistsError:
        if place.is_symlink() or os.listdir(place):
            raise OccupiedError(str(place)) from None
    disk.own(place)
    (place / f"{MARK}{slot}").touch()
    os.rename(disk.home(slot) / PROJECT, place / PROJECT)


def settle(slot: str) -> None:
    """Finish or undo what a killed transfer of this slot has left; the slot's lock is held."""
    for mark in sorted(Path(settings.VISITOR_DATA_ROOT).glob(f"*/{MARK}{slot}")):
        _settle(mark, slot)


def pending(account: str = "*") -> set[int]:
    """The slots that a transfer (to `account`) was under way from, when it was killed or at this very moment."""
    marks = Path(settings.VISITOR_DATA_ROOT).glob(f"{account}/{MARK}*")
    return {number for mark in marks if (number := number_of(mark.name.removeprefix(MARK)))}


def _settle(mark: Path, slot: str) -> None:
    place = mark.parent
    if not ACCOUNT.fullmatch(place.name) or place.is_symlink() or number_of(slot) is None:
        return
    if not Project.objects.filter(owner__username=place.name, slug=PROJECT).exists():
        if os.path.lexists(place / PROJECT) and not os.path.lexists(disk.home(slot) / PROJECT):
            disk.home(slot).mkdir(exist_ok=True)
            os.rename(place / PROJECT, disk.home(slot) / PROJECT)
        if os.path.lexists(place / PROJECT):
            return  # both are there: nothing is thrown away, and the mark says whose it was
    mark.unlink(missing_ok=True)
    with suppress(OSError):
        place.rmdir()  # only if it is empty
