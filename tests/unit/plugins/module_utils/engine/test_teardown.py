# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import signal

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.teardown import (
    Teardown,
    anonymous_volumes,
    waves,
)
from ansible_collections.shipshape.deploy.plugins.module_utils.report.result import Report
from ansible_collections.shipshape.deploy.tests.unit.plugins.module_utils.engine.builders import container, project


def at(service, *needed, number=1):
    """A container with Compose's own label of what it depends on."""
    label = ",".join(f"{name}:service_started:false" for name in needed)
    labels = {"com.docker.compose.depends_on": label} if needed else {}
    return container(f"p-{service}-{number}", service=service, labels=labels)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([], []),
        ([at("a")], ["a"]),
        ([at("a"), at("b")], ["a b"]),
        ([at("db"), at("web", "db")], ["web", "db"]),
        ([at("db"), at("web", "db"), at("proxy", "web")], ["proxy", "web", "db"]),
        # db is stopped after the last of those that need it, however far away.
        ([at("db"), at("web", "db"), at("proxy", "web", "db")], ["proxy", "web", "db"]),
        ([at("db"), at("cache"), at("web", "db", "cache"), at("job", "db")], ["web job", "db cache"]),
        ([at("web", "db"), at("web", "db", number=2), at("db")], ["web web", "db"]),
        ([at("web", "gone"), at("db")], ["web db"]),
        # Compose would not have started circles, but their containers must go all the same.
        ([at("a", "b"), at("b", "a")], ["a", "b"]),
        ([at("a", "a")], ["a"]),
        ([at("a", "b"), at("b", "a", "db"), at("db")], ["a", "b", "db"]),
    ],
)
def test_order(found, expected):
    result = waves(found)
    assert [sorted(entry.service for entry in wave) for wave in result] == [sorted(line.split()) for line in expected]


def test_every_container_is_in_exactly_one_wave():
    found = [at(name, *needed) for name, needed in {"a": "bc", "b": "c", "c": "a", "d": "ad", "e": ""}.items()]
    assert sorted(entry.name for wave in waves(found) for entry in wave) == sorted(entry.name for entry in found)


def test_a_label_may_be_empty_or_lack_the_details():
    odd = container("p-web-1", labels={"com.docker.compose.depends_on": "db,,cache:"})
    result = waves([at("db"), at("cache"), odd])
    assert [len(wave) for wave in result] == [1, 2]


def test_many_ways_to_the_same_service_are_not_all_walked():
    """40 layers of 3 services that all need each other have 3^40 ways through them."""
    layers = [[f"s{layer}-{number}" for number in range(3)] for layer in range(40)]
    found = [at(name, *below) for above, below in zip(layers, [*layers[1:], []]) for name in above]

    def too_slow(*_):
        raise AssertionError("the order was not found within 2 s")

    before = signal.signal(signal.SIGALRM, too_slow)
    signal.alarm(2)
    try:
        assert [len(wave) for wave in waves(found)] == [3] * 40
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


ANONYMOUS = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("mount", "found"),
    [
        ({"Type": "volume", "Name": ANONYMOUS}, {ANONYMOUS: "/data of p-db-1"}),
        ({"Type": "volume", "Name": "p_data"}, {}),
        ({"Type": "volume", "Name": ANONYMOUS[:12]}, {}),
        ({"Type": "volume", "Name": f"{ANONYMOUS}0"}, {}),
        ({"Type": "bind", "Source": f"/srv/{ANONYMOUS}"}, {}),
        ({"Type": "volume"}, {}),
    ],
)
def test_anonymous_volumes(mount, found):
    """Called after the first, by name, of those that mount it."""
    mount = {"Destination": "/data", **mount}
    assert anonymous_volumes([container(mounts=[mount]), container("p-db-1", mounts=[mount])]) == found


class Engine:
    """What the engine holds of project `p` and of others; nobody may change anything through it."""

    def __init__(self, *found):
        self._found = found

    def get(self, path, **query):
        mine, others = {"com.docker.compose.project": "p"}, {"com.docker.compose.project": "q"}
        if path == "/containers/json":
            return [{"Id": at.id, "Labels": {**at.labels, **mine}} for at in self._found]
        if path == "/networks":
            return [{"Name": "p_default", "Labels": mine}, {"Name": "q_default", "Labels": others}, {"Name": "bridge"}]
        if path == "/volumes":
            entries = [("p_data", mine), ("q_data", others), ("lone", None), (ANONYMOUS, None)]
            return {"Volumes": [{"Name": name, "Labels": labels} for name, labels in entries]}
        return next(at.raw for at in self._found if path == f"/containers/{at.id}/json")


STOPPED = container("p-job-1", service="job", status="exited", code=0)
# `docker compose run --no-deps` says nothing of what it needs; the service's other container does.
ONCE = container("p-web-run-1", labels={"com.docker.compose.oneoff": "True"})
DATA = container("p-db-1", service="db", mounts=[{"Type": "volume", "Name": ANONYMOUS, "Destination": "/d"}])
WEB = container("p-web-1", labels={"com.docker.compose.depends_on": "db:service_started:false"})


@pytest.mark.parametrize(
    ("what", "services", "volumes", "planned"),
    [
        ("stopped", [], None, ["stop p-web-1", "stop p-db-1"]),
        ("stopped", ["db"], None, ["stop p-db-1"]),
        (
            "absent",
            [],
            False,
            ["remove p-job-1", "remove p-web-1", "remove p-web-run-1", "remove p-db-1", "remove network p_default"],
        ),
        (
            "absent",
            [],
            True,
            [
                "remove p-job-1",
                "remove p-web-1",
                "remove p-web-run-1",
                "remove p-db-1",
                "remove network p_default",
                "remove volume p_data",
                "remove volume /d of p-db-1",
            ],
        ),
        # The networks and named volumes are those of the other services as well.
        ("absent", ["db"], True, ["remove p-db-1", "remove volume /d of p-db-1"]),
        ("absent", ["job"], False, ["remove p-job-1"]),
    ],
)
def test_what_belongs_to_the_project_and_nothing_else(what, services, volumes, planned):
    report = Report()
    teardown = Teardown(Engine(DATA, STOPPED, WEB, ONCE), project(), report, check=True)
    if what == "stopped":
        teardown.stopped(services)
    else:
        teardown.absent(services, volumes)
    assert [f"{entry.action} {entry.target}" for entry in report.actions] == planned


def test_where_there_is_nothing_nothing_is_changed():
    class Empty(Engine):
        def get(self, path, **query):
            return {"Volumes": None} if path == "/volumes" else []

    report = Report()
    Teardown(Empty(), project(), report, check=False).absent([], True)
    assert not report.changed
    assert report.actions == []
