# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The target's half of a diff of `tree`. The controller adds what the new text is where only it knows that."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from .envfile import differences, is_rendered
from .manifest import FILE, LINK, Entry, Record, is_env_name, shown
from .problems import explained
from .tree_look import MISSING, Found
from .tree_plan import REMOVE, Owner, Plan, Step, writes

# The key under which an entry says which place in the manifest its `after` has; the action plugin takes it out.
SOURCE = "_source"
LARGEST = 100 * 1024
_MOST = 4 * 1024 * 1024
_HIDDEN = "(content not shown)\n"


class Differ:
    """Reads what is replaced, so it has to be asked before that happens."""

    def __init__(
        self, dest: str, wanted: Sequence[Entry], before: Record, owner: Owner, rendered: Mapping[str, bytes]
    ) -> None:
        self.dest = dest
        self.before = before
        self.rendered = rendered
        self.owner = owner
        self.places = {entry.path: place for place, entry in enumerate(wanted)}
        self.room = _MOST

    def entries(self, plan: Plan) -> list[dict[str, Any]]:
        return [self._entry(step) for outer in plan.steps for step in (*outer.clears, outer)]

    def _entry(self, step: Step) -> dict[str, Any]:
        full = shown(os.path.join(self.dest, step.path))
        head = {"before_header": full, "after_header": full}
        if not writes(step) and not (step.action == REMOVE and step.found.kind == FILE):
            return {**head, "before": _outline(step.found), "after": self._wanted(step)}
        if step.path in self.rendered:
            return {**head, **self._rendered(step)}
        private = step.entry.private if step.entry is not None else is_env_name(step.path)
        hidden = private or (step.found.kind == FILE and not step.found.mode & 0o044)
        before = self._text(step.path, step.found, hidden)
        if step.entry is None:
            return {**head, "before": before, "after": ""}
        if hidden:
            return {**head, "before": before, "after": f"(new content not shown, {step.entry.size} bytes)\n"}
        return {**head, "before": before, "after": "", SOURCE: self.places[step.path]}

    def _rendered(self, step: Step) -> dict[str, str]:
        """Names of variables and which change. A file that we did not write ourselves is not taken apart: a line of
        a value that spans several would look like a name."""
        after = self.rendered[step.path]
        before = b""
        if step.found.kind == FILE and step.found.matches(self.before.shipped.get(step.path, ())):
            before = self._read(step.path)
        ours = is_rendered(before)
        old, new = differences(before if ours else b"", after)
        return {"before": old if ours or step.found.kind == MISSING else _HIDDEN, "after": new}

    def _text(self, path: str, found: Found, hidden: bool) -> str:
        if found.kind == MISSING:
            return ""
        if found.kind != FILE:
            return _outline(found)
        if hidden:
            return _HIDDEN
        if found.size > min(LARGEST, self.room):
            return f"({found.size} bytes, too much to show)\n"
        self.room -= found.size
        return as_text(self._read(path))

    def _wanted(self, step: Step) -> str:
        entry, found = step.entry, step.found
        if entry is None:
            return "absent\n"
        uid = found.uid if self.owner.uid is None else self.owner.uid
        gid = found.gid if self.owner.gid is None else self.owner.gid
        ownership = _ownership(uid, gid) if uid >= 0 and gid >= 0 else ""
        if entry.kind == LINK:
            return f"link to {shown(entry.content)}\n{ownership}"
        return f"{entry.kind}, mode {entry.mode:04o}\n{ownership}"

    def _read(self, path: str) -> bytes:
        full = os.path.join(self.dest, path)
        with explained(full, "read it for the diff"), open(full, "rb") as stream:
            return stream.read()


def as_text(content: bytes) -> str:
    """Content as a side of a diff."""
    try:
        if b"\0" not in content:
            return content.decode()
    except UnicodeDecodeError:
        pass
    return f"(binary, {len(content)} bytes)\n"


def _outline(found: Found) -> str:
    if found.kind == MISSING:
        return "absent\n"
    if found.kind == LINK:
        return f"link to {shown(found.content)}\n{_ownership(found.uid, found.gid)}"
    return f"{found.kind}, mode {found.mode:04o}\n{_ownership(found.uid, found.gid)}"


def _ownership(uid: int, gid: int) -> str:
    return f"owner {uid}, group {gid}\n"
