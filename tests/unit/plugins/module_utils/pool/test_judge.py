# SPDX-License-Identifier: GPL-3.0-or-later
"""States of slots, counts that add up, causes, and what is decided to be done: tables."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.pool import judge, plan
from ansible_collections.shipshape.deploy.plugins.module_utils.pool.model import (
    FOREVER,
    QUARANTINED,
    RESETTING,
    STATES,
    Lease,
    OnDisk,
    Project,
    Seen,
    Settings,
    Slot,
    User,
    is_directory_name,
    settings,
)
from ansible_collections.shipshape.deploy.plugins.module_utils.report.finding import ShipshapeError

NOW = datetime(2026, 10, 25, 1, 30, tzinfo=timezone.utc)  # the hour that clocks with summer time show twice
SECOND = timedelta(seconds=1)
WANTED = Settings(size=4)
WHOLE = OnDisk(present=True, directory=True, workspace=True)
BLOCKED = OnDisk(present=True, blocked="visitor-001 is no directory")
FREE = Lease(1, "", "t", NOW, False)
LEASED = Lease(1, "abc", "t", NOW + SECOND, True)


def slot(lease: Lease | None = FREE, number: int = 1, **keys: Any) -> Slot:
    whole = Slot(number, WANTED.name(number), User(1, WANTED.name(number)), Project(1, True), lease, WHOLE)
    return replace(whole, **keys)


def seen(*slots: Slot, size: int = 4) -> Seen:
    return Seen(replace(WANTED, size=size), NOW, {at.number: at for at in slots})


STATE_CASES = [
    (slot(), "allocatable"),
    (slot(None), "missing"),
    (slot(user=None), "missing"),
    (slot(project=None), "missing"),
    (slot(disk=OnDisk(present=True)), "missing"),
    (slot(disk=OnDisk(present=True, directory=True)), "missing"),
    (slot(number=5), "missing"),  # beyond the size nobody hands it out
    (slot(LEASED), "leased"),
    (slot(replace(LEASED, expires_at=NOW)), "leased"),  # at the very instant it still holds
    (slot(replace(LEASED, expires_at=NOW - timedelta(microseconds=1))), "expired"),
    (slot(replace(LEASED, expires_at=(NOW - SECOND).astimezone(timezone(timedelta(hours=2))))), "expired"),
    (slot(replace(LEASED, expires_at=(NOW + SECOND).astimezone(timezone(timedelta(hours=-9))))), "leased"),
    (slot(LEASED, disk=OnDisk()), "leased"),
    (slot(LEASED, user=None), "missing"),
    (slot(LEASED, project=None), "missing"),
    (slot(user=User(1, "visitor-001", active=False)), "missing"),
    (slot(LEASED, user=User(1, "visitor-001", active=False)), "leased"),
    (slot(LEASED, number=9), "leased"),
    (slot(Lease(1, RESETTING, "t", FOREVER, True)), "resetting"),
    (slot(Lease(1, QUARANTINED, "t", FOREVER, True)), "quarantined"),
    (slot(Lease(1, QUARANTINED, "t", FOREVER, True), user=None), "quarantined"),
]


@pytest.mark.parametrize(("at", "expected"), STATE_CASES)
def test_states(at: Slot, expected: str) -> None:
    assert judge.state(at, seen(at)) == expected


def test_every_mixture_adds_up() -> None:
    """All subsets of artefacts times all kinds of rows times both sides of the size: one state each, and no other."""
    rows = [None, FREE, LEASED, replace(LEASED, expires_at=NOW - SECOND), replace(LEASED, session_key="")]
    rows += [Lease(1, key, "t", FOREVER, True) for key in (RESETTING, QUARANTINED, "shipshape:new")]
    users = [None, User(1, "visitor-001"), User(1, "visitor-001", "is staff")]
    disks = [OnDisk(), OnDisk(True), OnDisk(True, True), WHOLE]
    for row, user, project, disk, number in itertools.product(rows, users, [None, Project(1)], disks, [1, 5]):
        at = slot(row, number=number, user=user, project=project, disk=disk)
        view = seen(at)
        part = judge.partition(view)
        assert part.total == (1 if at.there and not at.foreign else 0)
        assert set(part.counts) == set(STATES)
        handed = judge.state(at, view) == "allocatable"
        assert handed == (number == 1 and row == FREE and not at.missing)
        for planned in (plan.present(view), plan.expired(view), plan.present(view, {number})):
            mine = [work for work in planned.works if work.number == number]
            assert len(mine) <= 1
            if at.foreign:
                assert all(work.kind == "quarantine" for work in mine)
        # Whoever holds a slot keeps it, unless a reset is asked for.
        owned = (
            row is not None and row.active and row.session_key == "abc" and row.expires_at > NOW and user and project
        )
        if owned and not at.foreign:
            for planned in (plan.present(view), plan.expired(view)):
                assert not any(work.fresh or work.claim for work in planned.works if work.number == number)


CAUSES = [
    ({"allocatable": 1, "leased": 31}, 0, ""),
    ({}, 32, "unprovisioned"),
    ({}, 0, "unprovisioned"),
    ({"missing": 32}, 0, "unprovisioned"),
    ({"leased": 32}, 0, "saturated"),
    ({"leased": 30, "expired": 1, "resetting": 1}, 0, "saturated"),
    ({"leased": 31, "quarantined": 1}, 0, "saturated"),
    ({"quarantined": 32}, 0, "quarantined"),
    ({"leased": 16, "quarantined": 16}, 0, "quarantined"),
    ({"leased": 4}, 28, "unprovisioned"),
    ({"leased": 31, "missing": 1}, 0, "saturated"),
    ({"resetting": 2, "missing": 1}, 0, "saturated"),
    ({"expired": 2, "missing": 1}, 0, "saturated"),
]


@pytest.mark.parametrize(("counts", "absent", "expected"), CAUSES)
def test_causes(counts: dict[str, int], absent: int, expected: str) -> None:
    part = judge.Partition({name: counts.get(name, 0) for name in STATES}, 32, absent)
    assert judge.cause(part) == expected
    assert bool(judge.REMEDIES[expected]) == bool(expected)


HEALTHS = [
    ((slot(),), 1, "ok"),
    ((slot(), slot(LEASED, number=2)), 2, "ok"),
    ((slot(), slot(replace(LEASED, expires_at=NOW - SECOND), number=2)), 2, "ok"),  # goes by itself
    ((slot(LEASED),), 1, "degraded"),  # who waits gets one
    ((slot(), slot(number=2, project=None)), 2, "degraded"),
    ((slot(),), 2, "degraded"),
    ((), 2, "failed"),
    ((slot(None),), 1, "failed"),
    ((slot(Lease(1, QUARANTINED, "t", FOREVER, True)),), 1, "failed"),
]


@pytest.mark.parametrize(("slots", "size", "expected"), HEALTHS)
def test_health(slots: tuple[Slot, ...], size: int, expected: str) -> None:
    view = seen(*slots, size=size)
    assert judge.summary(view, judge.findings(view))["health"] == expected


def test_seeding_is_no_remedy_for_a_pool_without_a_size() -> None:
    assert "size" in judge.summary(seen(size=0), [])["remedy"]
    assert judge.summary(seen(size=1), [])["remedy"] == judge.REMEDIES["unprovisioned"]


def test_a_pool_that_is_closed_to_the_application_has_nothing_to_offer() -> None:
    view = replace(seen(slot(), slot(LEASED, number=2), size=2), denied="closed")
    assert judge.partition(view).counts["allocatable"] == 0
    assert judge.partition(view).counts["leased"] == 1
    [said] = judge.findings(view)
    assert (said.subject, said.code, said.severity, said.message) == ("pool", "data-root-denied", "critical", "closed")
    assert judge.summary(view, [said])["health"] == "failed"


def test_each_cause_has_its_own_remedy() -> None:
    assert len(set(judge.REMEDIES.values())) == len(judge.REMEDIES)


# What an operator has to be told of a slot, and how badly; `size` is 4.
SAID = [
    (slot(), []),
    (slot(LEASED), []),
    (slot(replace(LEASED, expires_at=NOW - SECOND)), [("lease-ended", "info")]),
    (slot(replace(LEASED, active=False)), [("slot-not-cleared", "warning")]),
    (slot(replace(LEASED, session_key="")), [("lease-phantom", "warning")]),
    (slot(replace(LEASED, expires_at=None)), [("lease-endless", "warning")]),
    (slot(replace(LEASED, expires_at=None, odd="soon")), [("lease-unreadable", "critical")]),
    (slot(Lease(1, RESETTING, "t", FOREVER, True)), [("slot-resetting", "info")]),
    (slot(Lease(1, QUARANTINED, "t", FOREVER, True)), [("slot-quarantined", "warning")]),
    (slot(number=5), [("slot-surplus", "info")]),
    (slot(LEASED, number=5), [("slot-draining", "info")]),
    (slot(user=User(1, "visitor-001", active=False)), [("user-inactive", "warning")]),
    (slot(user=User(1, "visitor-001", flag=False)), [("user-flag-wrong", "warning")]),
    (slot(user=User(1, "visitor-001", flag=True), disk=OnDisk(True, True)),
     [("workspace-missing", "warning"), ("project-flag-wrong", "warning")]),
    (slot(user=User(1, "visitor-001", "is staff")), [("user-not-a-visitor", "warning")]),
    # A visitor may do that to his workspace; in a slot that nobody has it keeps the pool from being whole.
    (slot(LEASED, disk=replace(WHOLE, blocked="x")), [("directory-blocked", "warning")]),
    (slot(disk=replace(WHOLE, blocked="x")), [("directory-blocked", "critical")]),
    (slot(LEASED, disk=replace(WHOLE, denied="x")), [("directory-denied", "warning")]),
    (slot(disk=replace(WHOLE, denied="x")), [("directory-denied", "critical")]),
]  # fmt: skip


@pytest.mark.parametrize(("at", "expected"), SAID)
def test_what_is_said_of_a_slot(at: Slot, expected: list[tuple[str, str]]) -> None:
    found = [finding for finding in judge.findings(seen(at)) if finding.subject == at.name]
    assert [(finding.code, finding.severity) for finding in found] == expected


def test_each_flag_goes_by_its_own_artefact() -> None:
    without_workspace = slot(user=User(1, "visitor-001", flag=False), disk=OnDisk(True, True))
    assert judge.wrong_flags(without_workspace) == {"user": True, "project": False}
    assert judge.wrong_flags(slot(user=User(1, "visitor-001", flag=True))) == {}


@pytest.mark.parametrize("absent", [0, 1, 3])
def test_slots_of_which_nothing_is_there_are_said(absent: int) -> None:
    codes = [finding.code for finding in judge.findings(seen(slot(), size=1 + absent))]
    assert codes == (["slots-absent"] if absent else [])


PLANS = [
    (slot(), []),
    (slot(LEASED), []),
    (slot(replace(LEASED, expires_at=NOW - SECOND)), []),  # that is for state: expired
    (Slot(1, "visitor-001"), ["create-slot"]),
    (slot(project=None), ["create-project"]),
    (slot(user=None), ["create-user", "rebuild-directory"]),
    (slot(None), ["create-allocation", "rebuild-directory"]),
    (slot(None, disk=OnDisk()), ["create-directory", "create-allocation"]),
    (slot(disk=OnDisk(present=True)), ["create-directory"]),
    (slot(LEASED, disk=OnDisk(present=True, directory=True)), ["create-workspace"]),
    (slot(LEASED, project=Project(1, False)), ["mark-project"]),
    (slot(LEASED, user=None), ["clear-slot", "create-user"]),
    (slot(LEASED, project=None), ["clear-slot", "create-project"]),
    (slot(user=User(1, "visitor-001", active=False)), ["activate-user"]),
    (slot(replace(LEASED, session_key="")), ["clear-slot"]),
    (slot(replace(LEASED, session_key="shipshape:unknown")), ["clear-slot"]),
    (slot(replace(LEASED, expires_at=None)), []),
    (slot(replace(LEASED, active=False)), ["clear-slot"]),
    (slot(LEASED, disk=OnDisk(present=True, blocked="scitex is no directory")), []),
    (slot(disk=BLOCKED), ["quarantine-slot"]),
    (slot(None, disk=BLOCKED), []),
    (slot(Lease(1, QUARANTINED, "t", FOREVER, True), disk=BLOCKED), ["clear-slot"]),
    (slot(Lease(1, RESETTING, "t", FOREVER, True), disk=BLOCKED), ["clear-slot"]),
    (slot(replace(LEASED, active=False), disk=BLOCKED), ["clear-slot"]),
    (slot(Lease(1, RESETTING, "t", FOREVER, True)), ["clear-slot"]),
    (slot(Lease(1, QUARANTINED, "t", FOREVER, True)), ["clear-slot"]),
    (slot(user=User(1, "visitor-001", "is staff")), ["quarantine-slot"]),
    (slot(None, user=User(1, "visitor-001", "is staff")), []),
    (slot(Lease(1, QUARANTINED, "t", FOREVER, True), user=User(1, "visitor-001", "is staff")), []),
]


@pytest.mark.parametrize(("at", "blocks"), [(at, told in ([], ["quarantine-slot"])) for at, told in PLANS])
def test_what_is_in_the_way_of_a_slot_is_cleared_by_a_reset_alone(at: Slot, blocks: bool) -> None:
    looked = seen(at, size=1)
    assert bool(plan.present(looked).blocked) == (blocks and at.disk == BLOCKED)
    assert not plan.present(looked, reset={1}).blocked


@pytest.mark.parametrize(("at", "expected"), PLANS)
def test_what_present_does(at: Slot, expected: list[str]) -> None:
    works = plan.present(seen(at, size=1)).works
    assert [told[0] for work in works for told in work.told] == expected


AGO = NOW - SECOND
EXPIRES = [
    (slot(), []),
    (slot(LEASED), []),
    (slot(replace(LEASED, expires_at=NOW)), []),
    (slot(replace(LEASED, expires_at=AGO)), ["its lease has ended"]),
    (slot(replace(LEASED, active=False)), ["it was freed without being cleared"]),
    # Whoever has put it aside may have left the end of the lease in it.
    (slot(Lease(1, RESETTING, "t", AGO, True)), ["it was not cleaned to the end"]),
    (slot(Lease(1, QUARANTINED, "t", AGO, True)), []),
    (slot(replace(LEASED, expires_at=AGO), user=User(1, "visitor-001", "is staff")), []),
]


@pytest.mark.parametrize(("at", "reasons"), EXPIRES)
def test_what_expired_does(at: Slot, reasons: list[str]) -> None:
    assert [told[2] for work in plan.expired(seen(at)).works for told in work.told] == reasons
    assert plan.expired(seen(at), {2}).works == ()


RESETS = [
    (slot(), ["clear-slot"]),
    (slot(LEASED), ["clear-slot"]),
    (slot(None), ["create-allocation", "rebuild-directory"]),
    (Slot(1, "visitor-001"), ["create-slot"]),  # nothing is there to be cleared
    (slot(number=5), ["remove-slot"]),
    (slot(LEASED, number=5), ["remove-slot"]),
    (slot(LEASED, user=User(1, "visitor-001", "is staff")), ["quarantine-slot"]),
]


@pytest.mark.parametrize(("at", "expected"), RESETS)
def test_what_a_reset_does(at: Slot, expected: list[str]) -> None:
    works = plan.present(seen(at), {at.number}).works
    assert [told[0] for work in works if work.number == at.number for told in work.told] == expected


# What an application's own seeding must not find: it would make it whole, and so somebody's next.
NOBODYS = [
    (slot(), []),
    (slot(LEASED), []),
    (slot(replace(LEASED, expires_at=NOW - SECOND)), []),
    (slot(user=None), ["remove-slot"]),
    (slot(None), ["create-allocation", "rebuild-directory"]),
    (slot(None, user=None), ["remove-slot"]),
    (slot(LEASED, user=None), ["remove-slot"]),
    (slot(LEASED, user=None, disk=OnDisk()), ["remove-slot"]),
    (slot(replace(LEASED, session_key="")), ["clear-slot"]),
    (slot(user=None, disk=OnDisk()), []),
    (slot(None, disk=OnDisk()), []),
    (slot(None, user=User(1, "visitor-001", "is staff")), []),
]


@pytest.mark.parametrize(("at", "expected"), NOBODYS)
def test_what_nobody_owns(at: Slot, expected: list[str]) -> None:
    view = seen(at)
    assert [told[0] for work in plan.nobodys(view).works for told in work.told] == expected
    assert plan.nobodys(view, {at.number}).works == ()  # what is to be cleared is cleared after the seeding


SURPLUS = [
    (slot(number=5), True),
    (slot(None, number=5), True),
    (Slot(5, "visitor-005", disk=OnDisk(present=True)), True),
    (slot(LEASED, number=5), False),
    (slot(LEASED, number=5, project=None), True),
    (slot(replace(LEASED, expires_at=NOW - SECOND), number=5), True),
    (slot(LEASED, number=5, user=None), True),
    (slot(Lease(5, QUARANTINED, "t", FOREVER, True), number=5), True),
]


@pytest.mark.parametrize(("at", "removed"), SURPLUS)
def test_what_is_beyond_the_size(at: Slot, removed: bool) -> None:
    works = plan.present(seen(at, size=0)).works
    assert [told[0] for work in works for told in work.told] == (["remove-slot"] if removed else [])


def test_rows_of_no_slot_are_removed_and_named() -> None:
    view = replace(seen(slot(), size=1), strays=(replace(FREE, number=0), replace(FREE, number=-3)))
    assert [at.number for at in plan.present(view).strays] == [0, -3]
    assert {at.code for at in judge.findings(view)} == {"lease-phantom"}
    assert judge.partition(view).total == 1


NUMBERS = [
    ("visitor-001", 1),
    ("visitor-032", 32),
    ("visitor-1000", 1000),
    ("visitor-0001", None),
    ("visitor-1", None),
    ("visitor-000", None),
    ("visitor--01", None),
    ("visitor-\u0660\u0660\u0661", None),
    ("visitor-", None),
    ("alice", None),
    ("Visitor-001", None),
]


@pytest.mark.parametrize(("name", "number"), NUMBERS)
def test_which_slot_a_name_is(name: str, number: int | None) -> None:
    assert WANTED.number(name) == number
    assert number is None or WANTED.name(number) == name


@pytest.mark.parametrize("name", ["alice", "a.b", "A@b+c-d", "_x", "ä" * 127, "x" * 150])
def test_accounts_that_have_a_directory(name: str) -> None:
    assert is_directory_name(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".visitor-pool", ".x", "a/b", "../a", "a\0", "a\n", "ä" * 128, "x" * 151]
)
def test_accounts_whose_names_lead_elsewhere(name: str) -> None:
    assert not is_directory_name(name)


@pytest.mark.parametrize("prefix", ["", "..", "../x", "a/b", "x\0", ".x", "-x", "x1", "x" * 70, "ü-"])
def test_prefixes_that_could_lead_elsewhere(prefix: str) -> None:
    given = {"size": 1, "prefix": prefix, "project": "p", "workspace": {"path": "a", "marker": "b"}}
    with pytest.raises(ShipshapeError):
        settings(given)


@pytest.mark.parametrize(("size", "wrong"), [(-1, True), (0, False), (1_000_000, False), (1_000_001, True)])
def test_sizes_that_a_pool_can_have(size: int, wrong: bool) -> None:
    given = {"size": size, "prefix": "visitor-", "project": "p", "workspace": {"path": "", "marker": "m"}}
    if not wrong:
        assert settings(given).size == size
        return
    with pytest.raises(ShipshapeError) as caught:
        settings(given)
    assert caught.value.findings[0].subject == "size"
