# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a look at the pool amounts to: the state of each slot, counts that add up, the cause of an empty pool. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..report.finding import CRITICAL, INFO, WARNING, Finding
from .model import (
    ALLOCATABLE,
    ALLOCATION,
    CLEANING,
    DIRECTORY,
    EXPIRED,
    HELD,
    LEASED,
    MISSING,
    PROJECT,
    QUARANTINED,
    RESETTING,
    STATES,
    USER,
    WORKSPACE,
    Seen,
    Slot,
)

OK, DEGRADED, FAILED = "ok", "degraded", "failed"
UNPROVISIONED, SATURATED, HELD_BACK, SCHEMA = "unprovisioned", "saturated", "quarantined", "schema"
REMEDIES: Mapping[str, str] = {
    "": "",
    UNPROVISIONED: "Seed the pool: run module visitor_pool with state: present",
    SATURATED: "Wait until leases end, free those that have ended (state: expired), or give the pool a larger size",
    HELD_BACK: "See why its slots could not be cleaned, mend that, then run state: present, which tries again",
    SCHEMA: "Run the application's migrations, or mend option `schema`; the findings say where they differ",
}
_NO_SIZE = "Give the pool a size: it is 0, so it has no slots"


def state(slot: Slot, seen: Seen) -> str:
    """Which of STATES the slot is in."""
    lease = slot.lease
    if lease is None:
        return MISSING
    if not lease.active:
        if unclean(slot):
            return EXPIRED
        offered = slot.user is not None and slot.user.active is not False
        usable = not (slot.missing or slot.disk.denied or seen.denied)
        whole = offered and usable and slot.number <= seen.settings.size
        return ALLOCATABLE if whole else MISSING
    if lease.session_key == RESETTING:
        return CLEANING
    if lease.session_key == QUARANTINED:
        return HELD
    if slot.user is None or slot.project is None:
        return MISSING
    return EXPIRED if has_ended(slot, seen.now) else LEASED


def has_ended(slot: Slot, now: datetime) -> bool:
    """Whether a visitor's lease is over: strictly after its end. At the very instant it still holds, and one without an
    end, or with one that cannot be read, holds for good."""
    lease = slot.lease
    if lease is None or not lease.active or lease.ours or lease.expires_at is None:
        return False
    return lease.expires_at < now


def unclean(slot: Slot) -> bool:
    """Whether its row is free and still bears a session: somebody has freed it, and nobody has cleared it."""
    return slot.lease is not None and not slot.lease.active and bool(slot.lease.session_key)


def phantom(slot: Slot) -> str:
    """Why no session can own the slot's active row; '' when one can."""
    lease = slot.lease
    if lease is None or not lease.active or lease.session_key in (RESETTING, QUARANTINED):
        return ""
    if slot.user is None:
        return "its account is not there"
    if slot.project is None:
        return "its project is not there"
    if not lease.session_key or lease.ours:
        return "it names no session"
    return "" if lease.token else "it has no token"


def slots_of(seen: Seen) -> Iterator[Slot]:
    """The slots, by number. A number whose user is a real person's is none."""
    for number in sorted(seen.slots):
        slot = seen.slots[number]
        if slot.there and not slot.foreign:
            yield slot


@dataclass(frozen=True)
class Partition:
    """How many slots are in each state; `total` is their sum. `absent`: numbers up to the wanted size of which nothing
    is there."""

    counts: Mapping[str, int]
    wanted: int
    absent: int

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def as_dict(self) -> dict[str, int]:
        return {"total": self.total, **self.counts, "wanted": self.wanted, "absent": self.absent}


def partition(seen: Seen) -> Partition:
    counted = Counter(state(slot, seen) for slot in slots_of(seen))
    absent = sum(1 for number in range(1, seen.settings.size + 1) if not seen.slot(number).there)
    return Partition({name: counted[name] for name in STATES}, seen.settings.size, absent)


def cause(part: Partition) -> str:
    """Why nothing can be handed out; '' when something can. Where several are to blame, what most slots suffer from;
    what can be mended first among equals."""
    if part.counts[ALLOCATABLE]:
        return ""
    held = part.counts[HELD]
    wanting = part.counts[MISSING] + part.absent
    busy = part.counts[LEASED] + part.counts[EXPIRED] + part.counts[CLEANING]
    most = max(held, wanting, busy)
    if held and held == most:
        return HELD_BACK
    return SATURATED if busy > wanting else UNPROVISIONED


def wrong_flags(slot: Slot) -> dict[str, bool]:
    """Flags in the database that disagree with the disk: what each has to be."""
    wrong = {}
    if slot.user is not None and slot.user.flag is not None and slot.user.flag != slot.disk.directory:
        wrong[USER] = slot.disk.directory
    if slot.project is not None and slot.project.flag is not None and slot.project.flag != slot.disk.workspace:
        wrong[PROJECT] = slot.disk.workspace
    return wrong


# What a slot can lack, and whose flag can be wrong: the code of that, and for the former what is said.
_LACKS = {
    USER: ("user-missing", "has no user"),
    PROJECT: ("project-missing", "has no project in the database"),
    DIRECTORY: ("directory-missing", "has no project directory on disk"),
    WORKSPACE: ("workspace-missing", "has no workspace on disk"),
    ALLOCATION: ("allocation-missing", "has no row in the table of allocations"),
}
_WRONG_FLAG = {USER: "user-flag-wrong", PROJECT: "project-flag-wrong"}
OPEN_IT = (
    "Give it the owner and the mode that all in it shall have (chown, chmod), then run state: present. Where another "
    "service works there, name that one in `data_service`"
)
_OPEN = "Give it the owner of data_root (chown -R), or run state: present, which makes a free slot's anew"
_REPAIR = "Run module visitor_pool with state: present, which makes what is missing"


def findings(seen: Seen) -> Iterator[Finding]:
    """What is to be said of each slot, by number, then of the pool."""
    for number in sorted(seen.slots):
        yield from _of_slot(seen.slots[number], seen)
    if seen.denied:
        yield Finding(CRITICAL, "pool", "data-root-denied", seen.denied, OPEN_IT)
    for lease in seen.strays:
        what = f"the table of allocations has a row of slot {lease.number}, and slots begin with 1"
        yield Finding(WARNING, f"row {lease.number}", "lease-phantom", what, _REPAIR)
    part = partition(seen)
    if part.absent:
        what = f"of {part.absent} of its {part.wanted} slots nothing is there"
        yield Finding(WARNING, "pool", "slots-absent", what, REMEDIES[UNPROVISIONED])


def _of_slot(slot: Slot, seen: Seen) -> Iterator[Finding]:
    if slot.foreign:
        what = f"the user called {slot.name} {slot.foreign}: it is not a slot, and is not touched"
        remedy = "Give that account another name, or the pool another prefix"
        yield Finding(WARNING, slot.name, "user-not-a-visitor", what, remedy)
        return
    if not slot.there:
        return
    kind = state(slot, seen)
    leased = kind == LEASED
    severity = WARNING if leased else CRITICAL
    if slot.disk.blocked:
        # A visitor can put a link where his workspace was. That is his business until his lease ends; then it goes.
        remedy = "Look at what it is and move it away; then run state: present"
        if kind == HELD:
            remedy += ", which puts a clean slot in its place, whatever it is"
        yield Finding(severity, slot.name, "directory-blocked", slot.disk.blocked, remedy)
    if slot.disk.denied:
        yield Finding(severity, slot.name, "directory-denied", slot.disk.denied, _OPEN)
    wanted = slot.number <= seen.settings.size
    if wanted or leased:
        for artefact in slot.missing:
            code, what = _LACKS[artefact]
            yield Finding(WARNING, slot.name, code, what, _REPAIR)
        if wanted and slot.user is not None and slot.user.active is False:
            yield Finding(WARNING, slot.name, "user-inactive", "its user is not active, so it is not offered", _REPAIR)
        for artefact, there in wrong_flags(slot).items():
            what = f"its {artefact} is marked {not there}, and the disk says {there}"
            yield Finding(WARNING, slot.name, _WRONG_FLAG[artefact], what, _REPAIR)
    yield from _of_lease(slot, seen)


def _of_lease(slot: Slot, seen: Seen) -> Iterator[Finding]:
    beyond = slot.number > seen.settings.size
    kind = state(slot, seen)
    reason = phantom(slot)
    if reason:
        what = f"no session can own its lease: {reason}"
        yield Finding(WARNING, slot.name, "lease-phantom", what, "Run state: present, which frees it")
    elif kind == HELD:
        what = "could not be cleaned or repaired, and is not handed out"
        yield Finding(WARNING, slot.name, "slot-quarantined", what, REMEDIES[HELD_BACK])
    elif kind == CLEANING:
        what = "is being cleaned, or was when somebody was killed"
        yield Finding(INFO, slot.name, "slot-resetting", what, "The next run finishes it")
    elif beyond and kind == LEASED:
        what = f"is beyond the size of {seen.settings.size}, and stays until its lease ends"
        yield Finding(INFO, slot.name, "slot-draining", what, "A later run of state: present removes it")
    elif beyond:
        what = f"is beyond the size of {seen.settings.size}"
        yield Finding(INFO, slot.name, "slot-surplus", what, "Run state: present, which removes it")
    elif kind == EXPIRED and unclean(slot):
        what = "its row is free and still bears a session: whoever freed it has not cleared it"
        yield Finding(WARNING, slot.name, "slot-not-cleared", what, "Run state: expired or present, which clears it")
    elif kind == EXPIRED:
        yield Finding(INFO, slot.name, "lease-ended", "its lease has ended", "Run state: expired, which frees it")
    elif kind == LEASED and slot.lease is not None and slot.lease.expires_at is None:
        yield _endless(slot.name, slot.lease.odd)


def _endless(name: str, odd: str) -> Finding:
    remedy = "Mend the row, or free the slot with state: reset and its number in `slots`"
    if odd:
        what = f"when its lease ends cannot be read ({odd!r}), so it is taken for one that goes on"
        return Finding(CRITICAL, name, "lease-unreadable", what, remedy)
    return Finding(WARNING, name, "lease-endless", "its lease has no end, so it is never freed", remedy)


def health(why: str, found: Iterable[Finding]) -> str:
    """`ok`, `degraded` or `failed`, given the cause of an empty pool and what is to be said of the slots. Who waits
    for a slot of a full pool gets one; of a pool that is empty for another reason never."""
    if why and why != SATURATED:
        return FAILED
    return DEGRADED if why or any(at.severity in (CRITICAL, WARNING) for at in found) else OK


def summary(seen: Seen, found: Iterable[Finding]) -> dict[str, Any]:
    """What both modules return of a look, in which `found` is to be said of the slots."""
    part = partition(seen)
    why = cause(part)
    remedy = _NO_SIZE if why == UNPROVISIONED and not part.wanted else REMEDIES[why]
    return {"slots": part.as_dict(), "health": health(why, found), "cause": why, "remedy": remedy}
