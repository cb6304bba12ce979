# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether disk and memory suffice. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..engine.model import Project, Service
from ..report.finding import CRITICAL, WARNING
from .seen import Seen, about, seen

# What a registry stores is compressed: on the disk it is two to three times that, and the archive lies beside it
# while it is unpacked.
_UNPACKED = 4
# Files of an image with a whole distribution and an application's dependencies in it.
_FILES_AN_IMAGE = 50_000
# The engine refuses less.
_SMALLEST_LIMIT = 6 << 20


@dataclass(frozen=True)
class Room:
    """What a file system has left. `inodes` is None where it makes them as it needs them."""

    path: str
    free: int
    inodes: int | None


@dataclass(frozen=True)
class Load:
    """What is to come onto the disk: `images` in number, and the compressed size of those that are pulled, in bytes."""

    pulled: int = 0
    images: int = 0


def disk(room: Room, load: Load, keep: int) -> Iterator[Seen]:
    """Room on the engine's data root for what is to come, and for `keep` bytes besides."""
    need = load.pulled * _UNPACKED
    how = "Make room (docker system df tells what there is; docker image prune removes what nothing uses)"
    if room.free < need + keep:
        what = f"{size(room.free)} are free"
        what += f", but pulling {load.images} images takes about {size(need)}" if need else ""
        what += f" and {size(keep)} are to stay free (disk_free)" if need else f", less than disk_free ({size(keep)})"
        # With nothing to fetch the deploy may well succeed: whoever reads this decides.
        yield seen(CRITICAL if load.images else WARNING, room.path, "disk-space-low", what, how, ())
    if room.inodes is not None and room.inodes < _FILES_AN_IMAGE * max(load.images, 1):
        what = f"room for {room.inodes} more files only, whatever their size"
        what += f", and {load.images} images are to come" if load.images else ""
        severity = CRITICAL if load.images and room.inodes < _FILES_AN_IMAGE * load.images // 10 else WARNING
        yield seen(severity, room.path, "disk-inodes-low", what, f"{how}: a file takes one, however small", ())


def memory(project: Project, total: int) -> Iterator[Seen]:
    """Limits and reservations against each other, and against the machine's memory (`total` bytes)."""
    limits: dict[str, int] = {}
    reserved, too_large = 0, False
    for service in project.in_order():
        limit, reservation = _asked(service, "limits", "mem_limit"), _asked(service, "reservations", "mem_reservation")
        limits[service.name] = limit * service.scale
        reserved += reservation * service.scale
        if 0 < limit < _SMALLEST_LIMIT:
            what = f"its memory limit of {size(limit)} is below 6 MiB, the least that the engine accepts"
            yield seen(CRITICAL, service.name, "memory-limit-invalid", what, "Raise it, and mind the unit (64m, 1g)")
        elif 0 < limit < reservation:
            what = f"its memory limit of {size(limit)} is below its reservation of {size(reservation)}"
            yield seen(
                CRITICAL, service.name, "memory-limit-invalid", what, "Raise the limit, or lower the reservation"
            )
        elif total and limit > total:
            too_large = True
            what = f"its memory limit of {size(limit)} is more than the machine has ({size(total)})"
            how = "Lower it: it will not hold the container back before the machine runs out"
            yield seen(WARNING, service.name, "memory-limit-above-machine", what, how)
    together = sum(limits.values())
    users = [name for name, limit in limits.items() if limit]
    if total and reserved > total:
        what = f"all reservations together are {size(reserved)}, and the machine has {size(total)}"
        yield seen(WARNING, "memory", "memory-overcommitted", what, "Reserve less, or take a larger machine", ())
    elif total and together > total and not too_large:
        what = f"the limits of {about(users)} together are {size(together)}, and the machine has {size(total)}"
        how = "If all use what they may, the kernel ends one of them: lower the limits, or take a larger machine"
        yield seen(WARNING, "memory", "memory-overcommitted", what, how, ())


def _asked(service: Service, section: str, older: str) -> int:
    deploy: Any = (service.definition.get("deploy") or {}).get("resources") or {}
    value = (deploy.get(section) or {}).get("memory") or service.definition.get(older) or 0
    return int(value) if str(value).isdigit() else 0


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
