# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the engine, its Compose plugin and its clock are fit for use. Pure."""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ..report.finding import CRITICAL, WARNING, Finding
from .seen import Seen, seen

OLDEST_ENGINE = "20.10"
OLDEST_COMPOSE = "2.26"
# Certificates, tokens and sessions are still good at that; what is more is a clock that nobody sets.
_SECONDS_OFF = 5.0

_DRIVERS = {
    "vfs": "copies every layer in full: each container takes the disk and the time of its whole image",
    "aufs": "is no longer part of the engine from 24.0 on",
    "overlay": "is no longer part of the engine from 24.0 on",
    "devicemapper": "is no longer part of the engine from 25.0 on",
}


def versions(told: Mapping[str, Any], compose: str, wanted_api: str) -> Iterator[Seen]:
    """Engine, interface and Compose; `told` is what the engine says of its version, `wanted_api` what the user asks
    for, `compose` the plugin's version ('' when it could not be told)."""
    version = str(told.get("Version") or "")
    if version and _older(version, OLDEST_ENGINE):
        what = f"the engine is {version}, and {OLDEST_ENGINE} is the oldest that this works with"
        yield seen(CRITICAL, "engine", "engine-too-old", what, "Upgrade it (role shipshape.deploy.engine does)", ())
    least, most = str(told.get("MinAPIVersion") or ""), str(told.get("ApiVersion") or "")
    if wanted_api != "auto" and most and (_older(most, wanted_api) or (least and _older(wanted_api, least))):
        what = f"api_version {wanted_api} is asked for, and the engine speaks {least or '?'} to {most}"
        yield seen(CRITICAL, "engine", "engine-api-version", what, "Leave api_version at auto", ())
    if compose and _older(compose, OLDEST_COMPOSE):
        what = f"the Compose plugin is {compose}, and {OLDEST_COMPOSE} is the oldest that this works with"
        how = "Upgrade it (role shipshape.deploy.engine does)"
        yield seen(CRITICAL, "engine", "compose-too-old", what, how, ())


def _older(version: str, than: str) -> bool:
    return _numbers(version) < _numbers(than)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def storage(info: Mapping[str, Any]) -> Iterator[Seen]:
    driver = str(info.get("Driver") or "")
    if driver in _DRIVERS:
        what = f"the engine's storage driver is {driver}, which {_DRIVERS[driver]}"
        how = "Use overlay2 (its images and containers have to be made anew)"
        yield seen(WARNING, "engine", "storage-driver", what, how, ())


def seconds_of(timestamp: str) -> float | None:
    """The engine's time (RFC 3339, in UTC or with an offset) in seconds since the epoch."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(?:Z|([+-])(\d\d):(\d\d))", timestamp)
    if found is None:
        return None
    whole, fraction, sign, hours, minutes = found.groups()
    at = calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float(fraction or 0)
    offset = (int(hours) * 3600 + int(minutes) * 60) * (-1 if sign == "-" else 1) if sign else 0
    return at - offset


def clock(timestamp: str, before: float, after: float) -> list[Finding]:
    """The engine's clock against the controller's. It was read at some moment between `before` and `after` there, so
    a slow connection is never taken for a wrong clock."""
    at = seconds_of(timestamp)
    if at is None or before - _SECONDS_OFF <= at <= after + _SECONDS_OFF:
        return []
    off, way = (before - at, "behind") if at < before else (at - after, "ahead of")
    what = f"the target's clock is {off:.0f} s {way} the controller's"
    how = "Set it by NTP (timedatectl set-ntp true): certificates, tokens and logs rely on it"
    return [Finding(WARNING, "clock", "clock-off", what, how)]
