# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks and volumes whose definition changed: seen, named, and left alone. Pure.

Neither can be changed, nor exist twice under one name: a network is replaced by taking everybody off it, a volume by
giving up its data. That is nobody's to do unasked, so the difference is told, with what would end it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .drift import NONE, Drift
from .look import Look
from .model import Project
from .observed import LABEL_PROJECT

_COMPOSE = "com.docker.compose."
# Wanted in Compose's words, live in the engine's; both are compared as booleans, False where nothing is said.
_SWITCHES = {"internal": "Internal", "attachable": "Attachable"}


def resource_drift(project: Project, look: Look) -> list[Drift]:
    """What the Compose file says of the project's own networks and volumes, and the engine does not hold."""
    return [
        *_differing(project, "networks", project.networks, look.networks, _network),
        *_differing(project, "volumes", project.volumes, look.volumes, lambda _wish, _live: iter(())),
    ]


def _differing(
    project: Project, section: str, names: Mapping[str, str], found: Mapping[str, Mapping[str, Any]], more: Any
) -> Iterator[Drift]:
    for name, key in sorted(names.items()):
        wish = (project.document.get(section) or {}).get(key) or {}
        live = found.get(name) or {}
        if (live.get("Labels") or {}).get(LABEL_PROJECT) != project.name:
            continue  # not there, or not Compose's: then it is used as it is
        for field, wanted, seen in (*_common(wish, live), *more(wish, live)):
            yield Drift("", name, "desired", f"{section}.{key}.{field}", wanted, seen, NONE)


def _common(wish: Mapping[str, Any], live: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    driver = wish.get("driver")
    if driver and driver != live.get("Driver") and driver != "default":
        yield "driver", driver, live.get("Driver")
    options = live.get("Options") or {}
    for key, value in sorted((wish.get("driver_opts") or {}).items()):
        if str(value) != options.get(key):
            yield f"driver_opts.{key}", str(value), options.get(key)
    wanted = {key: str(value) for key, value in _labels(wish.get("labels")).items()}
    present = {key: value for key, value in (live.get("Labels") or {}).items() if not key.startswith(_COMPOSE)}
    for key in sorted(wanted.keys() | present.keys()):
        if wanted.get(key) != present.get(key) and not key.startswith(_COMPOSE):
            yield f"labels.{key}", wanted.get(key), present.get(key)


def _labels(labels: Any) -> Mapping[str, Any]:
    return labels if isinstance(labels, Mapping) else {}


def _network(wish: Mapping[str, Any], live: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for field, key in _SWITCHES.items():
        if bool(wish.get(field)) != bool(live.get(key)):
            yield field, bool(wish.get(field)), bool(live.get(key))
    if wish.get("enable_ipv6") is not None and bool(wish["enable_ipv6"]) != bool(live.get("EnableIPv6")):
        yield "enable_ipv6", bool(wish["enable_ipv6"]), bool(live.get("EnableIPv6"))
    ipam = wish.get("ipam") or {}
    driver = (live.get("IPAM") or {}).get("Driver")
    if ipam.get("driver") and ipam["driver"] != driver:
        yield "ipam.driver", ipam["driver"], driver
    pools = (live.get("IPAM") or {}).get("Config") or []
    for number, pool in enumerate(ipam.get("config") or []):
        at = pools[number] if number < len(pools) else {}
        for field, key in {"subnet": "Subnet", "gateway": "Gateway", "ip_range": "IPRange"}.items():
            if pool.get(field) and pool[field] != at.get(key):
                yield f"ipam.config.{number}.{field}", pool[field], at.get(key)
