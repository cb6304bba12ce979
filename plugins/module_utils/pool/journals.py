# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a transfer writes down before it moves anything, in the scratch directory of data_root: one file a slot."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Any

from ..report.finding import failure
from .disk import JOURNAL, SCRATCH, Root
from .walk import new_file, new_name, write


def begin(root: Root, slot: int, document: Any) -> None:
    """In one step, and on the disk when this returns."""
    with root.scratch() as scratch:
        temporary = new_name()
        fd = new_file(scratch, temporary, 0o600)
        try:
            write(fd, json.dumps(document).encode())
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, _name(slot), src_dir_fd=scratch, dst_dir_fd=scratch)
        os.fsync(scratch)


def end(root: Root, slot: int) -> None:
    with root.scratch() as scratch:
        os.unlink(_name(slot), dir_fd=scratch)
        os.fsync(scratch)
    root.drop_scratch()


def unfinished(root: Root) -> dict[int, Any]:
    """By slot, what transfers that were not brought to their end have left."""
    found: dict[int, Any] = {}
    if not root.inode(SCRATCH):
        return found
    with root.scratch() as scratch:
        for name in sorted(os.listdir(scratch)):
            number = name[len(JOURNAL) : -len(".json")]
            if number.isdigit() and name == _name(int(number)):
                with suppress(FileNotFoundError):  # its transfer has ended at this moment
                    found[int(number)] = _read(root, scratch, name)
    return found


def _read(root: Root, scratch: int, name: str) -> Any:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=scratch)
        with os.fdopen(fd, encoding="utf-8") as stream:
            return json.load(stream)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        where = os.path.join(root.path, SCRATCH, name)
        what = "an unfinished transfer has left this file, and it cannot be read"
        remedy = "Look at it by hand: it names the slot and the account; then remove it"
        raise failure(where, "transfer-journal-unreadable", what, remedy) from error


def path(root: Root, slot: int) -> str:
    return os.path.join(root.path, SCRATCH, _name(slot))


def _name(slot: int) -> str:
    return f"{JOURNAL}{slot}.json"
