# SPDX-License-Identifier: GPL-3.0-or-later
"""Which mount a path is in, and where a part of a volume lies, as tables."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.pool import place
from ansible_collections.shipshape.deploy.plugins.module_utils.pool.access import Worker

ABOVE = [
    (["/data", "/data/users", "/srv"], "/data/users/visitor-001", "/data/users"),
    (["/data", "/data/users"], "/data/users", "/data/users"),
    (["/data", "/data/user"], "/data/users", "/data"),
    (["/"], "/data/users", "/"),
    (["/data/users/visitor-001"], "/data/users", None),
    ([], "/data", None),
]


@pytest.mark.parametrize(("places", "path", "expected"), ABOVE)
def test_the_deepest_mount_above_a_path(places: list[str], path: str, expected: str | None) -> None:
    assert place.above(places, path) == expected


def container(subpath: str | None, **mount: Any) -> dict[str, Any]:
    """As engines of API 1.45 tell of one (seen on 26.1.5): the part is only in what it was made with."""
    volume = {"Subpath": subpath} if subpath else {}
    made = [{"Type": "volume", "Source": "p_data", "Target": "/data/", "VolumeOptions": volume}]
    found = {"Type": "volume", "Name": "p_data", "Source": "/v/p_data/_data", "Destination": "/data", "RW": True}
    return {"Mounts": [{**found, **mount}], "HostConfig": {"Mounts": made}}


PARTS = [
    (container("users"), ["/v/p_data/_data/users"]),
    (container("a/b/"), ["/v/p_data/_data/a/b"]),
    (container("."), ["/v/p_data/_data"]),
    (container(None), ["/v/p_data/_data"]),
    (container("users", RW=False), []),
    (container("users", Source=""), []),
    ({"Mounts": [{"Source": "/srv", "Destination": "/data", "RW": True}], "HostConfig": {}}, ["/srv"]),
    ({"Mounts": [{"Source": "/srv", "Destination": "/data", "RW": True}], "HostConfig": {"Mounts": None}}, ["/srv"]),
    ({}, []),
]


@pytest.mark.parametrize(("raw", "expected"), PARTS)
def test_what_a_container_has_mounted_to_write(raw: dict[str, Any], expected: list[str]) -> None:
    assert place._to_write(raw) == expected


@pytest.mark.parametrize("unseen", [(), ("b",), ("a", "b")])
def test_nobody_is_judged_while_one_who_may_work_there_is_not_seen(
    monkeypatch: pytest.MonkeyPatch, unseen: tuple[str, ...]
) -> None:
    """Its processes are in another world, and it may be the one that can do what the others cannot."""
    mount = {"Source": "/srv", "Destination": "/data", "RW": True}
    raw = {"Mounts": [mount], "State": {"Pid": 1}}
    running = [SimpleNamespace(service="web", status="running", raw={**raw, "Id": name}) for name in ("a", "b")]
    worker = Worker(1000, frozenset())
    monkeypatch.setattr(place, "worker", lambda _process, name: None if name in unseen else worker)
    application: Any = place.Application(SimpleNamespace(local=True), None, None, running)  # type: ignore[arg-type]
    found = application.workers(["web"], "/srv/users")
    assert found == ([] if unseen else [replace(worker, mount="/srv")] * 2)
