# SPDX-License-Identifier: GPL-3.0-or-later
"""Moving a project's directory to another account, so that being killed at any instant loses no byte.

Rows change in a transaction, directories do not. A file in the new account's directory says where the project comes
from, from before the rename until after the commit; whoever finds it asks the database whether the project is the new
account's, and undoes the rename if it is not.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from django.conf import settings
from django.db import transaction

from . import disk
from .limits import ACCOUNT, PROJECT, number_of
from .models import Project

MARK = ".from-"
# What no mark can be in: nothing, a file, or a directory of somebody else's.
NO_DIRECTORY = (FileNotFoundError, NotADirectoryError, PermissionError)


class OccupiedError(Exception):
    """Something lies where the project is to go. It is never overwritten."""


def move(slot: str, account: str) -> None:
    """Rename the project's directory. What is already there in the new account's name stays as it is, and wins."""
    place = disk.home(account)
    if not vacant(place):
        raise OccupiedError(str(place))
    place.mkdir(exist_ok=True)
    try:
        disk.own(place)
        (place / f"{MARK}{slot}").touch()
    except PermissionError:  # an empty directory, and somebody else's
        raise OccupiedError(str(place)) from None
    os.rename(disk.home(slot) / PROJECT, place / PROJECT)
    disk.sync(place, disk.home(slot))  # once the rows say so, the slot is cleared


def vacant(place: Path) -> bool:
    """Whether nothing lies there, or an empty directory. What cannot be looked into is somebody's."""
    try:
        return not (place.is_symlink() or os.listdir(place))
    except FileNotFoundError:
        return True
    except (NotADirectoryError, PermissionError):
        return False


def settle(slot: str) -> None:
    """Finish or undo what a killed transfer of this slot has left; the slot's lock is held. Afterwards there is no mark
    of it, or OSError says why: as long as there is one, the visitor's work may be elsewhere."""
    for mark in [place / f"{MARK}{slot}" for place in _accounts()]:
        if _is_there(mark):
            _settle(mark, slot)


def pending(account: str = "") -> dict[int, list[str]]:
    """The slots that a transfer (to `account`) was under way from, when it was killed or at this very moment; and to
    which accounts."""
    found: dict[int, list[str]] = {}
    for place in [disk.home(account)] if account else _accounts():
        with suppress(*NO_DIRECTORY):
            for name in os.listdir(place):
                number = number_of(name.removeprefix(MARK)) if name.startswith(MARK) else None
                if number is not None:
                    found.setdefault(number, []).append(place.name)
    return found


def _accounts() -> list[Path]:
    """What lies below the data root and is no slot's. Nothing is looked for behind a symlink."""
    names = (name for name in os.listdir(settings.VISITOR_DATA_ROOT) if ACCOUNT.fullmatch(name) and not number_of(name))
    return [place for name in sorted(names) if not (place := disk.home(name)).is_symlink()]


def _is_there(mark: Path) -> bool:
    with suppress(*NO_DIRECTORY):
        mark.lstat()
        return True
    return False


@transaction.atomic  # on SQLite this waits for a living transfer: nobody else writes until it has ended
def _settle(mark: Path, slot: str) -> None:
    place = mark.parent
    if not Project.objects.filter(owner__username=place.name, slug=PROJECT).exists():
        _undo(place, disk.home(slot))
    mark.unlink(missing_ok=True)
    with suppress(OSError):
        place.rmdir()  # only if it is empty


def _undo(place: Path, home: Path) -> None:
    """The work goes back to the slot. Each step is one rename, so it is whole somewhere, wherever this is killed."""
    if not os.path.lexists(place / PROJECT):
        return
    if os.path.lexists(home / PROJECT):
        # Somebody has made a project anew in the slot, where it seemed to be missing.
        if disk.untouched(home / PROJECT):
            disk.discard(home / PROJECT, home.name)
        else:
            os.rename(home / PROJECT, place / PROJECT / f"recovered-{secrets.token_hex(4)}")
    home.mkdir(exist_ok=True)
    os.rename(place / PROJECT, home / PROJECT)
