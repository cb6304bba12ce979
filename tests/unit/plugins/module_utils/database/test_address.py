# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a service would go when it is told a host's name."""

from __future__ import annotations

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.database.address import locate
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.model import project_from
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.observed import observed

NETWORKS = {"back": {"name": "p_back"}, "front": {"name": "p_front"}}


def project(web=None, db=None, **services):
    """Services web and db on network back, each as Compose resolves it."""
    on = {"image": "a", "networks": {"back": None}}
    entries = {"web": {**on, **(web or {})}, "db": {**on, **(db or {})}, **services}
    return project_from({"name": "p", "services": entries, "networks": NETWORKS})


def running(service="db", ip="172.18.0.2", network="p_back", status="running", aliases=None):
    endpoint = {"IPAddress": ip, "Aliases": aliases if aliases is not None else [service, f"p-{service}-1"]}
    return observed(
        {
            "Id": "ab" * 32,
            "Name": f"/p-{service}-1",
            "Config": {"Labels": {"com.docker.compose.service": service}},
            "State": {"Status": status},
            "NetworkSettings": {"Networks": {network: endpoint} if network else {}},
        }
    )


@pytest.mark.parametrize(
    ("host", "given", "containers", "ip"),
    [
        ("db", project(), [running()], "172.18.0.2"),
        ("DB.", project(), [running()], "172.18.0.2"),
        ("p-db-1", project(), [running()], "172.18.0.2"),
        ("database", project(), [running(aliases=["database"])], "172.18.0.2"),
        ("172.18.0.2", project(), [running()], "172.18.0.2"),
        ("10.9.9.9", project(), [running()], "10.9.9.9"),
        ("db.example.com", project(), [running()], "db.example.com"),  # for the resolver
        ("localhost", project(), [running("web", "172.18.0.3")], "172.18.0.3"),
        ("localhost", project(web={"network_mode": "host", "networks": None}), [], "127.0.0.1"),
        ("other", project(web={"extra_hosts": ["other=10.0.0.7"]}), [], "10.0.0.7"),
        ("other", project(web={"extra_hosts": {"other": ["10.0.0.8"]}}), [], "10.0.0.8"),
        ("gate", project(web={"extra_hosts": {"gate": "host-gateway"}}), [], "127.0.0.1"),
        ("pg", project(web={"links": ["db:pg"]}), [running()], "172.18.0.2"),
        # It shares another's network namespace: that one's networks count.
        (
            "db",
            project(side={"image": "a", "network_mode": "service:web"}),
            [running()],
            "172.18.0.2",
        ),
    ],
)
def test_where_a_name_leads(host, given, containers, ip):
    service = given.services["side" if "side" in given.services else "web"]
    found = locate(host, service, given, containers)
    assert found.ip == ip
    assert not found.why


@pytest.mark.parametrize(
    ("given", "containers", "coming", "words"),
    [
        (project(), [], True, "service db has no container yet"),
        (project(), [running(status="exited")], True, "container p-db-1 is exited"),
        (project(), [running(status="exited", network="")], True, "container p-db-1 is exited"),
        (project(db={"networks": {"front": None}}), [], False, "shares no network"),
        (project(), [running(network="p_front")], True, "not on the network that the Compose file puts it on"),
    ],
)
def test_why_it_leads_nowhere(given, containers, coming, words):
    found = locate("db", given.services["web"], given, containers)
    assert (found.ip, found.coming) == ("", coming)
    assert words in found.why
    assert found.remedy
