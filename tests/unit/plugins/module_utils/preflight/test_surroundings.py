# SPDX-License-Identifier: GPL-3.0-or-later
"""Which networks of the engine are in the way of a project's own, as a table."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.model import project_from
from ansible_collections.shipshape.deploy.plugins.module_utils.preflight import surroundings

OTHER = {"Name": "other", "Scope": "local", "IPAM": {"Driver": "default", "Config": [{"Subnet": "10.9.0.0/16"}]}}


def overlaps(network: dict[str, Any], *there: dict[str, Any]) -> list[str]:
    document = {
        "name": "p",
        "services": {"web": {"image": "x", "networks": {"own": None}}},
        "networks": {"own": {"name": "p_own", **network}},
    }
    return [one.finding.code for one in surroundings.overlapping(project_from(document), there)]


def own(subnet: str, driver: str = "", ipam: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {"ipam": {"config": [{"subnet": subnet}]}}
    found.update({"driver": driver} if driver else {})
    found["ipam"].update({"driver": ipam} if ipam else {})
    return found


CASES = [
    (own("10.9.3.0/24"), OTHER, True),
    (own("10.8.0.0/15"), OTHER, True),
    (own("10.10.0.0/24"), OTHER, False),
    (own("fd00::/64"), OTHER, False),
    (own("10.9.3.0/24", driver="macvlan"), OTHER, True),  # the engine keeps one book of all that is its own
    ({}, OTHER, False),
    (own("10.9.3.0/24"), {**OTHER, "Name": "p_own"}, False),  # it has them itself
    (own("nonsense"), OTHER, False),
    # A swarm keeps another, and so does whoever asks a DHCP server.
    (own("10.9.3.0/24"), {**OTHER, "Scope": "swarm"}, False),
    (own("10.9.3.0/24", driver="overlay"), OTHER, False),
    (own("10.9.3.0/24", ipam="dhcp"), OTHER, False),
    (own("10.9.3.0/24"), {**OTHER, "IPAM": {"Driver": "dhcp", "Config": [{"Subnet": "10.9.0.0/16"}]}}, False),
    (own("10.9.3.0/24"), {"Name": "host", "Scope": "local", "IPAM": {"Driver": "default", "Config": None}}, False),
]


@pytest.mark.parametrize(("network", "there", "expected"), CASES)
def test_addresses_that_another_network_has(network: dict[str, Any], there: dict[str, Any], expected: bool) -> None:
    assert overlaps(network, there) == (["subnet-in-use"] if expected else [])
