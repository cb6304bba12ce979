# SPDX-License-Identifier: GPL-3.0-or-later
"""The status text, the lines of consoles and logs; how full a pool is and how large it should be."""

from __future__ import annotations

import heapq
import random

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.pool import sizing
from ansible_collections.shipshape.deploy.plugins.module_utils.pool.console import events
from ansible_collections.shipshape.deploy.plugins.module_utils.pool.judge import Partition
from ansible_collections.shipshape.deploy.plugins.module_utils.pool.model import STATES
from ansible_collections.shipshape.deploy.plugins.module_utils.pool.text import status_text
from ansible_collections.shipshape.deploy.plugins.module_utils.report.finding import ShipshapeError

STATUS = "\n=== Visitor Pool Status ===\nTotal slots: 32\nAllocated: 0\nFree: 32\nExpired: 0\n"
CONSOLE = """[VisitorPool] ✓ Allocated: visitor-015
[VisitorPool] Project ID: 101
[VisitorPool] Project: default-project
[visitor-015] [Writer] Loading section content: manuscript/abstract
[visitor-015] [Writer] Saving 5 sections for manuscript
"""
EVENTS = [
    {"event": "allocated", "user": "visitor-015", "slot": 15},
    {"event": "project-id", "project_id": 101},
    {"event": "project", "project": "default-project"},
    {
        "event": "activity",
        "user": "visitor-015",
        "slot": 15,
        "component": "Writer",
        "message": "Loading section content: manuscript/abstract",
    },
    {
        "event": "activity",
        "user": "visitor-015",
        "slot": 15,
        "component": "Writer",
        "message": "Saving 5 sections for manuscript",
    },
]


def part(**counts: int) -> Partition:
    return Partition({name: counts.get(name, 0) for name in STATES}, 32, 0)


def test_the_status_text_is_the_seeds() -> None:
    assert status_text(part(allocatable=32)) == STATUS


def test_it_is_read_back() -> None:
    text = status_text(part(allocatable=7, leased=20, expired=3, missing=2))
    assert events(text) == [{"event": "status", "total": 32, "allocated": 20, "free": 7, "expired": 3}]
    assert events(text.replace("\n", "\r\n")) == events(text)


def test_console_lines() -> None:
    assert events(CONSOLE) == EVENTS


FRONTS = [
    "web-1  | ",
    "studio-web-1  | 2026-11-23T05:58:11.123456789Z ",
    "\x1b[36mweb-1  | \x1b[0m",
    "\x1b[36mweb-1  |\x1b[0m 2026-11-23T05:58:11.1Z ",
    "2026-11-23T05:58:11.123456789Z ",
]


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_in_logs_of_containers(front: str, end: str) -> None:
    lines = [*STATUS.splitlines(), *CONSOLE.splitlines(), "\x1b[32mVisitor pool ready\x1b[0m"]
    status = {"event": "status", "total": 32, "allocated": 0, "free": 32, "expired": 0}
    assert events("".join(f"{front}{line}{end}" for line in lines)) == [status, *EVENTS, {"event": "ready"}]


def test_two_containers_that_speak_at_once() -> None:
    other = [f"Initializing visitor pool... {at}" for at in range(3)]
    ours, theirs = [f"web-1     | {at}\n" for at in STATUS.splitlines()], [f"worker-1  | {at}\n" for at in other]
    text = "".join(line for pair in zip(ours[1:], theirs) for line in pair) + "".join(ours[4:])
    found = [at["event"] for at in events(text)]
    assert found == ["status", *["initializing"] * 3]


def test_in_noise_and_in_order() -> None:
    noise = "2026-11-23T05:58:11Z web-1  | GET /writer/ 200\n[Other] Allocated: nothing\nvisitor-001\n"
    noise += "web-1  | [2025-11-06 10:00:00 +0000] [7] [CRITICAL] WORKER TIMEOUT (pid:8)\n[7] [INFO] Booting worker\n"
    lines = [f"web-1  | 12:00:01 {line}\n" for line in CONSOLE.splitlines()]
    text = noise + "Initializing visitor pool...\n" + noise.join(lines) + STATUS + noise + "✓ Visitor pool ready\n"
    found = events(text)
    assert found[0] == {"event": "initializing"}
    assert found[1:6] == EVENTS
    assert [at["event"] for at in found[6:]] == ["status", "ready"]


@pytest.mark.parametrize(
    "text", ["", "Total slots: 3\n", "[VisitorPool] Project ID: x", "=== Visitor Pool Status ===\n"]
)
def test_what_says_nothing(text: str) -> None:
    assert events(text) == []


@pytest.mark.parametrize(
    ("leased", "total", "expected"),
    [(25, 32, False), (26, 32, True), (4, 5, False), (5, 5, True), (0, 0, False), (0, 32, False), (8, 10, False)],
)
def test_the_alert_is_strictly_above_eighty_percent(leased: int, total: int, expected: bool) -> None:
    at = part(leased=leased, allocatable=total - leased)
    assert sizing.busy(at) == expected
    assert sizing.alert(at, False) == sizing.Alert(expected, expected, False)
    assert sizing.alert(at, True) == sizing.Alert(expected, False, not expected)


@pytest.mark.parametrize(
    ("other", "expected"),
    [("allocatable", False), ("expired", False), ("resetting", False), ("quarantined", True), ("missing", True)],
)
def test_what_serves_soon_makes_it_less_full_and_what_is_held_back_does_not(other: str, expected: bool) -> None:
    assert sizing.busy(part(**{"leased": 4, other: 1})) == expected


@pytest.mark.parametrize(
    ("visitors", "size"), [(0, 32), (100, 32), (500, 32), (501, 64), (1000, 64), (1001, 128), (9999, 128)]
)
def test_the_setup_guides_rule(visitors: float, size: int) -> None:
    assert sizing.recommended(visitors, None, 0) == size


@pytest.mark.parametrize(
    ("visitors", "hours", "conversion", "mean"),
    [(24, 1, 0, 1.0), (480, 1, 0, 20.0), (480, 1, 1, 10.0), (480, 2, 0.5, 30.0), (0, 24, 0, 0.0)],
)
def test_the_mean(visitors: float, hours: float, conversion: float, mean: float) -> None:
    assert sizing.load(visitors, hours, conversion) == pytest.approx(mean)
    size = sizing.recommended(visitors, hours, conversion)
    assert size is not None
    assert size >= mean / 0.8


@pytest.mark.parametrize(("mean", "size"), [(0, 0), (0.01, 1), (1, 5), (10, 18), (100, 125), (1000, 1250)])
def test_sizes(mean: float, size: int) -> None:
    assert sizing.by_sessions(mean) == size


@pytest.mark.parametrize(("visitors", "hours", "conversion"), [(-1, 1, 0), (1, -1, 0), (1, 1, 1.5), (1, 1, -0.1)])
def test_numbers_that_make_no_sense(visitors: float, hours: float, conversion: float) -> None:
    with pytest.raises(ShipshapeError):
        sizing.recommended(visitors, hours, conversion)


@pytest.mark.parametrize(("visitors", "hours", "conversion"), [(120, 1.5, 0.2), (700, 1.5, 0.1)])
def test_at_most_one_visitor_in_a_hundred_is_refused(visitors: float, hours: float, conversion: float) -> None:
    """Simulated over 400 days: visitors come whenever they like; who signs up leaves half-way through."""
    size = sizing.recommended(visitors, hours, conversion)
    assert size is not None
    chance = random.Random(5)
    now, ends, refused, came = 0.0, list[float](), 0, 0
    while now < 400 * 24:
        now += chance.expovariate(visitors / 24)
        came += 1
        while ends and ends[0] <= now:
            heapq.heappop(ends)
        if len(ends) >= size:
            refused += 1
            continue
        stays = hours * (chance.random() if chance.random() < conversion else 1)
        heapq.heappush(ends, now + stays)
    assert refused / came <= 0.012, f"{refused} of {came}"
