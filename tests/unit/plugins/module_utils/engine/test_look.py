# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.connection import EngineRefusedError
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.endpoint import Endpoint
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.look import look
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.observed import containers, observed, place_name
from ansible_collections.shipshape.deploy.tests.unit.plugins.module_utils.engine.builders import container, project

REPLACES = {"com.docker.compose.replace": "p-web-1"}


@pytest.mark.parametrize(
    ("name", "labels", "role", "plain"),
    [
        ("p-web-1", {}, "", "p-web-1"),
        ("p-web-1.shipshape-new", {}, "new", "p-web-1"),
        ("p-web-1.shipshape-old", {}, "old", "p-web-1"),
        ("0123456789ab_p-web-1", REPLACES, "compose", "p-web-1"),
        # Compose keeps that label on a container that has long taken over.
        ("p-web-1", REPLACES, "", "p-web-1"),
        ("0123456789ab_p-web-1", {}, "", "0123456789ab_p-web-1"),
        ("0123456789a_p-web-1", REPLACES, "", "0123456789a_p-web-1"),
    ],
)
def test_roles(name, labels, role, plain):
    found = container(name, number=1, labels=labels)
    assert (found.role, place_name(found)) == (role, plain)


@pytest.mark.parametrize(
    ("labels", "service", "number"),
    [
        (None, "", 0),
        ({}, "", 0),
        ({"com.docker.compose.service": "web", "com.docker.compose.container-number": "12"}, "web", 12),
        ({"com.docker.compose.service": "web", "com.docker.compose.container-number": "x"}, "web", 0),
    ],
)
def test_labels_may_be_missing_or_odd(labels, service, number):
    found = observed({"Id": "i", "Name": "/x", "Config": {"Labels": labels}, "State": {"Status": "running"}})
    assert (found.service, found.number, found.applied) == (service, number, None)


@pytest.mark.parametrize(
    ("policy", "restarts"), [("always", True), ("unless-stopped", True), ("on-failure", False), ("", False)]
)
def test_who_is_started_again_after_it_has_ended_well(policy, restarts):
    assert container(restart=policy).restarts is restarts


@pytest.mark.parametrize(
    ("check", "has"),
    [(None, False), ({}, False), ({"Test": []}, False), ({"Test": ["NONE"]}, False), ({"Test": ["CMD", "a"]}, True)],
)
def test_healthchecks(check, has):
    assert observed({"Id": "i", "Name": "/x", "Config": {"Healthcheck": check}}).has_healthcheck is has


@pytest.mark.parametrize(("wanted", "seconds"), [(None, 10), (0, 0), (90, 90)])
def test_stop_seconds(wanted, seconds):
    assert observed({"Id": "i", "Name": "/x", "Config": {"StopTimeout": wanted}}).stop_seconds == seconds


class FakeEngine:
    """Answers from `containers` (inspect documents); what is not there is a 404."""

    local = False
    endpoint = Endpoint("unix:///nowhere.sock")

    def __init__(self, *entries, gone=(), **rest):
        self.listed = [dict(entry.raw, Labels=entry.labels) for entry in entries]
        self.documents = {f"/containers/{entry.id}/json": entry.raw for entry in entries if entry.id not in gone}
        self.documents.update(rest)
        self.agreed = False

    def agree(self):
        self.agreed = True

    def get(self, path, **query):
        if path == "/containers/json":
            assert query["all"] == "1", "stopped containers count as well"
            return self.listed
        if path not in self.documents:
            raise EngineRefusedError(404, f"GET {path}", "No such object")
        return self.documents[path]


def of(name, project_name="p", **labels):
    return container(name, labels={"com.docker.compose.project": project_name, **labels})


def test_only_the_project_s_own_containers_and_no_one_off_ones():
    once = {"com.docker.compose.oneoff": "True"}
    engine = FakeEngine(of("p-web-2"), of("p-web-1"), of("q-web-1", "q"), of("p-web-run-1", **once), of("p-web-10"))
    assert [at.name for at in containers(engine, "p")] == ["p-web-1", "p-web-2", "p-web-10"]
    assert [at.name for at in containers(engine, "p", one_off=True)] == [
        "p-web-1",
        "p-web-run-1",
        "p-web-2",
        "p-web-10",
    ]


def test_a_container_that_went_away_in_the_meantime_is_not_there():
    engine = FakeEngine(of("p-web-1"), of("p-web-2"), gone=["id of p-web-1"])
    assert [at.name for at in containers(engine, "p")] == ["p-web-2"]


def test_a_refusal_that_is_no_404_is_told():
    class Refusing(FakeEngine):
        def get(self, path, **query):
            raise EngineRefusedError(500, path, "why")

    with pytest.raises(EngineRefusedError):
        containers(Refusing(), "p")


def test_a_look_at_everything():
    engine = FakeEngine(
        of("p-web-1"),
        **{
            "/networks": [{"Name": "p_default"}, {"Name": "bridge"}],
            "/volumes": {"Volumes": None},
            "/images/a/json": {"Id": "sha256:1", "Config": {"Volumes": {"/data": {}}}},
            "/images/studio%2Fb:2/json": {"Id": "sha256:2", "Config": None},
        },
    )
    found = look(engine, project({"web": {}, "b": {"image": "studio/b:2"}, "c": {"image": "nosuch"}}))
    assert engine.agreed
    assert [at.name for at in found.containers] == ["p-web-1"]
    assert found.images == {"a": "sha256:1", "studio/b:2": "sha256:2"}
    assert found.image_volumes == {"a": {"/data"}, "studio/b:2": frozenset()}
    assert (set(found.networks), found.volumes) == ({"p_default", "bridge"}, {})
