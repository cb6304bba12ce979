# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.drift import (
    Drift,
    completed,
    container_drift,
    definition_drift,
    image_drift,
    missing,
    needs_hashes,
    orphan,
    state_drift,
    surplus,
)
from ansible_collections.shipshape.deploy.tests.unit.plugins.module_utils.engine.builders import (
    OTHER_IMAGE_ID,
    container,
    needs,
    project,
    seen,
)

P = project()
WEB = P.services["web"]
HASH = "com.docker.compose.config-hash"


def test_an_unchanged_container_has_no_drift():
    at = container(made_from=P)
    assert container_drift(P, WEB, at, seen(at), {}) == []


def test_a_changed_definition_is_named_by_field():
    at = container(made_from=project({"web": {"command": ["old"]}}))
    new = project({"web": {"command": ["new"]}})
    assert definition_drift(new, new.services["web"], at, {}) == [
        Drift("web", "p-web-1", "desired", "command", ["new"], ["old"], "recreate")
    ]


@pytest.mark.parametrize(
    ("before", "after", "wanted", "found"),
    [
        ({"A": "hunter22"}, {"A": "hunter23"}, "***", "***"),
        ({"A": "hunter22", "B": "1"}, {"B": "1"}, None, "***"),
        ({"B": "1"}, {"A": "hunter22", "B": "1"}, "***", None),
    ],
)
def test_a_value_that_may_be_secret_is_never_shown(before, after, wanted, found):
    new = project({"web": {"environment": after}})
    at = container(made_from=project({"web": {"environment": before}}))
    assert definition_drift(new, new.services["web"], at, {}) == [
        Drift("web", "p-web-1", "desired", "environment.A", wanted, found, "recreate")
    ]


@pytest.mark.parametrize(
    ("hashes", "label", "differs"),
    [({"web": "1"}, {HASH: "1"}, False), ({"web": "1"}, {HASH: "2"}, True), ({"web": "1"}, {}, True)],
)
def test_plain_compose_s_container_is_judged_by_its_hash(hashes, label, differs):
    found = definition_drift(P, WEB, container(labels=label), hashes)
    assert [entry.field for entry in found] == (["definition"] if differs else [])


def test_hashes_are_asked_for_only_where_a_container_bears_no_label_of_ours():
    assert not needs_hashes(seen(container(made_from=P)))
    assert not needs_hashes(seen())
    assert needs_hashes(seen(container(made_from=P), container("p-web-2")))
    assert needs_hashes(seen(container(labels={"io.shipshape.deploy.applied": '{"v": 2}'})))


@pytest.mark.parametrize(
    ("images", "differs"),
    [({"a": OTHER_IMAGE_ID}, True), ({}, False), ({"b": OTHER_IMAGE_ID}, False)],
    ids=["moved on", "unknown to the engine", "another reference"],
)
def test_image_drift(images, differs):
    at = container()
    found = image_drift(WEB, at, seen(at, images=images or {"-": "-"}))
    assert found == ([Drift("web", "p-web-1", "image", "a", "2" * 12, "1" * 12, "recreate")] if differs else [])


@pytest.mark.parametrize(
    ("state", "found", "action"),
    [
        ({"status": "running"}, None, None),
        ({"status": "running", "health": "healthy"}, None, None),
        ({"status": "running", "health": "starting"}, None, None),
        ({"status": "running", "health": "unhealthy"}, "unhealthy", "watch"),
        ({"status": "restarting"}, "restarting", "watch"),
        ({"status": "paused"}, "paused", "unpause"),
        ({"status": "created"}, "created", "start"),
        ({"status": "exited", "code": 1}, "exited (1)", "start"),
        ({"status": "exited", "code": 137}, "exited (137)", "start"),
        ({"status": "dead"}, "dead", "recreate"),
        ({"status": "removing"}, "removing", "recreate"),
    ],
)
def test_state_drift(state, found, action):
    assert [(entry.found, entry.action) for entry in state_drift(WEB, container(**state))] == (
        [(found, action)] if found else []
    )


JOB = project({"web": {}, "app": {"depends_on": needs("web", condition="service_completed_successfully")}})
SERVER = project({"web": {"ports": [{"target": 80}]}})


@pytest.mark.parametrize(
    ("found", "state", "done"),
    [
        (P, {}, True),
        (P, {"code": 1}, False),
        (P, {"restart": "no"}, True),
        (P, {"restart": "on-failure"}, True),
        (P, {"restart": "always"}, False),
        (P, {"restart": "unless-stopped"}, False),
        (P, {"health": "unhealthy"}, False),
        (P, {"status": "created"}, False),
        (P, {"status": "running"}, False),
        (SERVER, {}, False),
        (JOB, {}, True),
        (JOB, {"restart": "always"}, True),
        (JOB, {"code": 3}, False),
    ],
)
def test_a_job_that_is_done_and_a_server_that_was_stopped(found, state, done):
    at = container(**{"status": "exited", **state})
    service = found.services["web"]
    assert completed(service, at) is done
    assert (not state_drift(service, at)) is (done or at.status == "running")


@pytest.mark.parametrize(
    ("drift", "reason"),
    [
        (Drift("web", "c", "desired", "command", ["a"], ["b"], "recreate"), "command changed"),
        (Drift("web", "c", "desired", "labels.a", "1", None, "recreate"), "labels.a added"),
        (Drift("web", "c", "desired", "labels.a", None, "1", "recreate"), "labels.a removed"),
        (Drift("web", "c", "desired", "environment.A", "***", "***", "recreate"), "environment.A changed"),
        (Drift("web", "c", "desired", "definition", "1", "", "recreate"), "the definition changed"),
        (Drift("web", "c", "image", "a:1", "1", "2", "recreate"), "a:1 now means another image"),
        (Drift("web", "c", "state", "state", "running", "exited (1)", "start"), "it is exited (1)"),
        (missing(WEB, "p-web-1"), "it does not exist"),
        (surplus(WEB, container("p-web-2")), "scale changed"),
        (orphan(container()), "no service of that name"),
    ],
)
def test_reasons(drift, reason):
    assert drift.reason() == reason
    assert set(drift.as_dict()) == {"service", "container", "kind", "field", "wanted", "found", "action"}
