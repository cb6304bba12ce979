# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A container and the one that takes its place: their names and labels, and what the latter takes along. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LABEL_SERVICE = "com.docker.compose.service"
LABEL_NUMBER = "com.docker.compose.container-number"
LABEL_HASH = "com.docker.compose.config-hash"

# How a container was created, as far as `docker update` can change it: in the engine's words, and in Compose's.
LABEL_CREATED = "io.shipshape.deploy.created"
UPDATABLE = {
    "BlkioWeight": "blkio_config.weight",
    "CpuPeriod": "cpu_period",
    "CpuQuota": "cpu_quota",
    "CpuShares": "cpu_shares",
    "CpusetCpus": "cpuset",
    "CpusetMems": "CpusetMems",  # Compose has no word for it
    "Memory": "mem_limit",
    "MemoryReservation": "mem_reservation",
    "MemorySwap": "memswap_limit",
    "NanoCpus": "cpus",
    "PidsLimit": "pids_limit",
    "RestartPolicy": "restart",
}


@dataclass(frozen=True)
class Inherited:
    """A mount of a replaced container that its successor may take along. `declared`: the image calls it a volume."""

    type: str
    source: str
    target: str
    read_only: bool
    declared: bool

    def as_mount(self) -> dict[str, Any]:
        flag = {"ReadOnly": True} if self.read_only else {}
        return {"Type": self.type, "Source": self.source, "Target": self.target, **flag}


@dataclass(frozen=True)
class Place:
    """Where one new container belongs: the service's `number`, and the id of the container that it replaces, if any."""

    number: int
    name: str
    replaces: str = ""
    mounts: Sequence[Inherited] = ()


@dataclass(frozen=True)
class Successor:
    """A container that Compose created through the view."""

    id: str
    service: str
    place: Place
    temporary_name: (
        str  # the name that it bears in the engine until it takes over; its final one when nothing stood there
    )


def temporary_name(final_name: str) -> str:
    """The name of a successor while the container that it replaces still bears the final one."""
    return f"{final_name}.shipshape-new"


def retired_name(final_name: str) -> str:
    """The name of a replaced container between its successor's taking over and its own removal."""
    return f"{final_name}.shipshape-old"


def final_name(name: str) -> tuple[str, str]:
    """(final name, role) of a container's name; role is 'new', 'old' or '' for one that bears its final name."""
    for role in ("new", "old"):
        head, found, tail = name.rpartition(f".shipshape-{role}")
        if found and not tail:
            return head, role
    return name, ""


def updatable(host: Mapping[str, Any]) -> dict[str, Any]:
    """What `docker update` can change, in one form: what is not set, and what the engine fills in, is left out."""
    found = {key: host[key] for key in UPDATABLE if host.get(key) not in (None, 0, "", -1)}
    policy = found.pop("RestartPolicy", None) or {}
    if policy.get("Name") not in (None, "", "no"):
        retries = policy.get("MaximumRetryCount") or 0
        found["RestartPolicy"] = f"{policy['Name']}:{retries}" if retries else policy["Name"]
    return found
