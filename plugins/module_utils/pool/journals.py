# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a transfer writes down before it moves anything, in the scratch directory of data_root: one file a slot."""

from __future__ import annotations

import json
import os
import stat
from typing import Any

from ..report.finding import failure
from .data_root import SCRATCH, journal
from .disk import Root
from .entries import new_file, new_name, write
from .model import is_directory_name

_LONGEST = 1 << 16


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
        os.rename(temporary, journal(slot), src_dir_fd=scratch, dst_dir_fd=scratch)
        os.fsync(scratch)


def end(root: Root, slot: int) -> None:
    with root.scratch() as scratch:
        os.unlink(journal(slot), dir_fd=scratch)
        os.fsync(scratch)
    root.drop_scratch()


def read(root: Root, slot: int) -> dict[str, Any] | None:
    """What `begin` wrote; None when the transfer has ended at this moment. Whoever may write in data_root could have
    put something else there, which is not acted on."""
    try:
        with root.scratch() as scratch:
            fd = os.open(journal(slot), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=scratch)
        with os.fdopen(fd, encoding="utf-8") as stream:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ValueError("it is no file")
            return _checked(json.loads(stream.read(_LONGEST)), slot)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        what = f"an unfinished transfer has left this file, and it cannot be read: {error}"
        remedy = "Look at it by hand: it names the slot and the account; then remove it"
        raise failure(path(root, slot), "transfer-journal-unreadable", what, remedy) from error


def _checked(document: Any, slot: int) -> dict[str, Any]:
    if not isinstance(document, dict) or document.get("slot") != slot:
        raise ValueError("it is none of this slot")
    names = (document.get("user"), document.get("to"))
    if not all(isinstance(name, str) and is_directory_name(name) for name in names):
        raise ValueError("it names no account")
    if not isinstance(document.get("inode"), int) or not {"project_id", "made", "proof", "lease"} <= document.keys():
        raise ValueError("it lacks something")
    return document


def path(root: Root, slot: int) -> str:
    return os.path.join(root.path, SCRATCH, journal(slot))
