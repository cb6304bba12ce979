# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be done to which slot, and why. Pure: check mode shows what is decided here, a run does it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from .judge import has_ended, phantom, state, unclean, wrong_flags
from .model import ALLOCATION, CLEANING, DIRECTORY, HELD, LEASED, MISSING, PROJECT, USER, WORKSPACE, Lease, Seen, Slot

MAKE, REMOVE, QUARANTINE, DRAIN = "make", "remove", "quarantine", "drain"

Told = tuple[str, str, str]  # action, target, reason


@dataclass(frozen=True)
class Work:
    """What is to be done to one slot. `claim`: its row is turned into `resetting` first, so that nobody is handed the
    slot meanwhile. `fresh`: whatever is on disk is replaced, not added to; `forced`: even if it is no directory."""

    kind: str
    slot: Slot
    told: tuple[Told, ...]
    claim: Lease | None = None
    fresh: bool = False
    forced: bool = False

    @property
    def number(self) -> int:
        return self.slot.number

    @property
    def name(self) -> str:
        return self.slot.name


@dataclass(frozen=True)
class Plan:
    """`blocked`: slots that are not made, because something else is in their places."""

    works: tuple[Work, ...] = ()
    strays: tuple[Lease, ...] = ()
    blocked: tuple[Slot, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.works or self.strays)

    def without(self, numbers: Collection[int]) -> Plan:
        works = tuple(work for work in self.works if work.number not in numbers)
        return Plan(works, self.strays, tuple(slot for slot in self.blocked if slot.number not in numbers))


def stray(lease: Lease) -> Told:
    return ("remove-allocation", f"row {lease.number}", "slots begin with 1")


def present(seen: Seen, reset: Collection[int] = ()) -> Plan:
    """Everything that the pool lacks; `reset` are slots to clear whatever their state."""
    size = seen.settings.size
    numbers = sorted({*range(1, size + 1), *seen.slots})
    works = [work for number in numbers for work in _present(seen.slot(number), seen, number in reset)]
    blocked = tuple(slot for slot in seen.slots.values() if slot.number not in reset and _in_the_way(slot, seen))
    return Plan(tuple(works), seen.strays, blocked)


def _in_the_way(slot: Slot, seen: Seen) -> bool:
    """Whether something else stands where the directory of a free slot is to be. No visitor puts it there, so it may be
    somebody's: he is told of it by a failure before the next run puts a clean slot in its place."""
    if slot.foreign or slot.disk.directory or not slot.disk.blocked or slot.number > seen.settings.size:
        return False
    return slot.lease is None or not (slot.lease.active or unclean(slot))


def _present(slot: Slot, seen: Seen, reset: bool) -> Iterator[Work]:
    if slot.foreign:
        yield from _shut(slot, seen)
        return
    reason = "reset was asked for" if reset and slot.lease is not None else _must_be_cleared(slot, seen)
    if slot.number > seen.settings.size:
        if slot.there and (reason or state(slot, seen) != LEASED):
            yield _removal(slot, f"the pool has {seen.settings.size} slots")
            return
        if slot.there and not slot.disk.blocked and (slot.missing or wrong_flags(slot)):
            yield _repair(slot, False)  # its visitor is still there
        if slot.user is not None and slot.user.active:
            told = ("drain-slot", slot.name, f"the pool has {seen.settings.size} slots")
            yield Work(DRAIN, slot, (told,))
    elif not reset and _in_the_way(slot, seen):
        if slot.lease is not None:
            told = ("quarantine-slot", slot.name, slot.disk.blocked)
            yield Work(QUARANTINE, slot, (told,), claim=slot.lease)
    elif reason:
        yield _clearing(slot, reason)
    elif not slot.there:
        yield Work(MAKE, slot, (("create-slot", slot.name, "nothing of it is there"),))
    elif slot.disk.blocked and state(slot, seen) == LEASED:
        return  # what a visitor has put there himself
    elif slot.missing or wrong_flags(slot) or _idle(slot):
        yield _repair(slot, reset, wanted=True)


def nobodys(seen: Seen, reset: Collection[int] = ()) -> Plan:
    """What an application's own seeding would pass on to the next visitor, because it makes the slot look whole: rows
    that no session can own, and directories of which nobody can tell whose they are. `reset` are cleared afterwards."""
    works: list[Work] = []
    for slot in seen.slots.values():
        orphan = slot.disk.present and (slot.user is None or slot.lease is None)
        if slot.foreign or slot.number in reset or not (orphan or phantom(slot)):
            continue
        if slot.user is None:  # the application makes it, from nothing
            works.append(_removal(slot, phantom(slot) or "its account is not there"))
        else:
            works += _present(slot, seen, False)
    return Plan(tuple(sorted(works, key=lambda work: work.number)))


def lacks(wanted: Plan, first: Plan) -> bool:
    """Whether something is to be made that `first` does not make, and that is no clearing."""
    made = {work.number for work in first.works if work.kind == MAKE}
    return any(work.kind == MAKE and work.claim is None and work.number not in made for work in wanted.works)


def expired(seen: Seen, only: Collection[int] | None = None) -> Plan:
    """Leases that have ended, and slots that somebody was cleaning when he was killed."""
    works: list[Work] = []
    for number in sorted(seen.slots):
        slot = seen.slots[number]
        if slot.foreign or (only is not None and number not in only):
            continue
        if has_ended(slot, seen.now) or unclean(slot) or state(slot, seen) == CLEANING:
            reason = "its lease has ended" if has_ended(slot, seen.now) else _must_be_cleared(slot, seen)
            works += cleared(slot, seen, reason).works
    return Plan(tuple(works))


def cleared(slot: Slot, seen: Seen, reason: str) -> Plan:
    """One slot, which is made anew, or goes when the pool has shrunk."""
    beyond = slot.number > seen.settings.size
    return Plan((_removal(slot, reason) if beyond else _clearing(slot, reason),))


def _must_be_cleared(slot: Slot, seen: Seen) -> str:
    """Why the slot cannot be trusted to be clean though nobody uses it; '' when it can."""
    why = phantom(slot)
    if why:
        return f"no session can own its lease: {why}"
    if unclean(slot):
        return "it was freed without being cleared"
    kind = state(slot, seen)
    if kind == CLEANING:
        return "it was not cleaned to the end"
    if kind == HELD:
        return "it was quarantined"
    return slot.disk.denied if kind == MISSING and slot.lease is not None else ""


def _shut(slot: Slot, seen: Seen) -> Iterator[Work]:
    """The account of a real person must not be handed out, whatever the table of allocations says."""
    if slot.lease is not None and state(slot, seen) != HELD:
        told = ("quarantine-slot", slot.name, f"its user {slot.foreign}")
        yield Work(QUARANTINE, slot, (told,), claim=slot.lease)


def _removal(slot: Slot, reason: str) -> Work:
    return Work(REMOVE, slot, (("remove-slot", slot.name, reason),), claim=slot.lease)


def _clearing(slot: Slot, reason: str) -> Work:
    told = [("clear-slot", slot.name, reason)]
    told += [(f"create-{artefact}", slot.name, "it is missing") for artefact in slot.missing if artefact in _ROWS]
    told += _flags(slot, wanted=True)
    return Work(MAKE, slot, tuple(told), claim=slot.lease, fresh=True, forced=True)


_ROWS = (USER, PROJECT, ALLOCATION)


def _idle(slot: Slot) -> bool:
    return slot.user is not None and slot.user.active is False


def _flags(slot: Slot, *, wanted: bool) -> list[Told]:
    told = [("activate-user", slot.name, "it is not active")] if wanted and _idle(slot) else []
    return [*told, *((f"mark-{artefact}", slot.name, "its flag disagrees with the disk") for artefact in _marks(slot))]


def _marks(slot: Slot) -> list[str]:
    """Flags that are wrong once directory and workspace are there."""
    found = []
    if slot.user is not None and slot.user.flag is False:
        found.append(USER)
    if slot.project is not None and slot.project.flag is False:
        found.append(PROJECT)
    return found


def _repair(slot: Slot, reset: bool, *, wanted: bool = False) -> Work:
    """Adds what is missing; a slot that is not `wanted` any more goes on draining. Where there is no account, or no row
    that tells who used it last, what lies on disk may be anybody's: it is replaced."""
    fresh = reset or bool({USER, ALLOCATION} & set(slot.missing))
    told = []
    for artefact in slot.missing:
        if artefact == WORKSPACE and not slot.disk.directory:
            continue  # comes with its directory
        if artefact in _ROWS or not (fresh and slot.disk.present):
            told.append((f"create-{artefact}", slot.name, "it is missing"))
    if fresh and slot.disk.present:
        told.append((f"rebuild-{DIRECTORY}", slot.name, "nobody can tell whose files are in it"))
    told += _flags(slot, wanted=wanted)
    claim = slot.lease if fresh and slot.lease is not None else None
    return Work(MAKE, slot, tuple(told), claim=claim, fresh=fresh, forced=reset)
