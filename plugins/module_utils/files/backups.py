# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies of replaced files, `<name>.<UTC time>~` beside the file, of which the newest few are kept."""

from __future__ import annotations

import errno
import os
import re
from datetime import datetime, timezone

from .atomic import Attributes, prepare
from .problems import explained

_STAMP = "%Y%m%dT%H%M%S%fZ"
_SUFFIX = re.compile(r"\.\d{8}T\d{12}Z~")
_LONGEST_BASE = 220  # bytes; with the stamp it stays below NAME_MAX
_NO_LINKS = (errno.EPERM, errno.EACCES, errno.EXDEV, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS)


def existing(target: str) -> list[str]:
    """The backups of `target`, oldest first."""
    directory, name = os.path.split(target)
    base = _base(name)
    try:
        names = os.listdir(directory or ".")
    except OSError:
        return []
    found = sorted(entry for entry in names if entry.startswith(base) and _SUFFIX.fullmatch(entry[len(base) :]))
    return [os.path.join(directory, entry) for entry in found]


def make(target: str) -> str:
    """Keeps the present `target` under a backup name, which is returned.

    A second name for the same file costs nothing and cannot be half-made: the rename that follows replaces the
    name, never the content. Where hard links are not to be had it is a verified copy.
    """
    newest = existing(target)[-1:]
    if newest and os.path.samefile(newest[0], target):
        return newest[0]  # of a run that was killed between backup and rename
    directory, name = os.path.split(target)
    while True:
        stamp = datetime.now(timezone.utc).strftime(_STAMP)
        path = os.path.join(directory, f"{_base(name)}.{stamp}~")
        try:
            os.link(target, path)
        except FileExistsError:
            continue
        except OSError as error:
            if error.errno not in _NO_LINKS:
                with explained(target, "keep a backup"):
                    raise
            _copy(target, path)
        return path


def _copy(target: str, path: str) -> None:
    with explained(target, "keep a backup"), open(target, "rb") as source:
        info = os.fstat(source.fileno())
        mine = os.geteuid() in (0, info.st_uid)
        owner, group = (info.st_uid, info.st_gid) if mine else (None, None)
        prepare(path, source, Attributes(info.st_mode & 0o7777, owner, group)).commit()


def _base(name: str) -> str:
    return os.fsencode(name)[:_LONGEST_BASE].decode(
        "utf-8", "ignore" if len(name) > _LONGEST_BASE else "surrogateescape"
    )
