# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How full a pool is, when that is worth an alert, and how large it should be. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..report.finding import Finding, failure
from .judge import Partition
from .model import ALLOCATABLE, CLEANING, EXPIRED, LEASED

# More than 80 %: as integers, so that 4 of 5 is not more than 80 % by a rounding error.
_OF, _PARTS = 4, 5
_REFUSED = 0.01
_HOURS = 24.0


def usable(part: Partition) -> int:
    """The slots that serve: not those that are held back, or of which only something is there."""
    return sum(part.counts[name] for name in (ALLOCATABLE, LEASED, EXPIRED, CLEANING))


def busy(part: Partition) -> bool:
    """Whether strictly more than 80 % of the usable slots are leased."""
    return part.counts[LEASED] * _PARTS > usable(part) * _OF


def utilisation(part: Partition) -> float:
    return round(part.counts[LEASED] / usable(part), 4) if usable(part) else 0.0


@dataclass(frozen=True)
class Alert:
    """`raised` and `cleared` are true in the one look that saw the change."""

    active: bool
    raised: bool
    cleared: bool


def alert(part: Partition, before: bool) -> Alert:
    """`before`: whether the look before this one found the pool too full."""
    now = busy(part)
    return Alert(now, now and not before, before and not now)


def alert_finding(part: Partition) -> Finding:
    what = f"{part.counts[LEASED]} of its {usable(part)} usable slots are leased, more than 80 %"
    return Finding("warning", "pool", "pool-nearly-full", what, "Give it a larger size before it is exhausted")


def by_visitors(visitors_per_day: float) -> int:
    """The rule of thumb of the setup guide: 32 slots up to 500 visitors a day, 64 up to 1,000, 128 beyond."""
    return 32 if visitors_per_day <= 500 else 64 if visitors_per_day <= 1000 else 128


def load(visitors_per_day: float, session_hours: float, conversion: float) -> float:
    """How many slots are leased on average (Little's law: arrivals times the time that each stays). Who signs up frees
    his slot early: half-way through, on average."""
    return visitors_per_day * session_hours * (1 - conversion / 2) / _HOURS


def by_sessions(mean: float) -> int:
    """The smallest size at which the mean stays at 80 %, and at which at most one visitor in 100 finds no slot:
    visitors come in crowds, and a small pool cannot live off its mean (Erlang's formula B)."""
    size = refusing = 0
    refused = 1.0
    while refused > _REFUSED and mean > 0:
        refusing += 1
        refused = mean * refused / (refusing + mean * refused)
    size = math.ceil(round(mean * _PARTS / _OF, 9))
    return max(size, refusing)


def recommended(visitors_per_day: float | None, session_hours: float | None, conversion: float) -> int | None:
    """The size to give the pool; None when nobody said how many visitors come."""
    if visitors_per_day is None:
        return None
    if visitors_per_day < 0 or (session_hours is not None and session_hours < 0) or not 0 <= conversion <= 1:
        what = "visitors_per_day and session_hours cannot be negative, and conversion is a part of 1"
        raise failure("visitors_per_day", "option-invalid", what, "Give for instance 500, 1.5 and 0.1")
    if session_hours is None:
        return by_visitors(visitors_per_day)
    return by_sessions(load(visitors_per_day, session_hours, conversion))
