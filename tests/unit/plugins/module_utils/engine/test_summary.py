# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.plan import Wishes, plan
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.summary import diff, services_summary
from ansible_collections.shipshape.deploy.tests.unit.plugins.module_utils.engine.builders import (
    OTHER_IMAGE_ID,
    container,
    needs,
    project,
    seen,
)

P = project()


@pytest.mark.parametrize(
    ("scale", "states", "worst"),
    [
        (1, [{}], "running"),
        (1, [{"health": "healthy"}], "running"),
        (1, [{"health": "starting"}], "starting"),
        (1, [{"health": "unhealthy"}], "unhealthy"),
        (1, [], "missing"),
        (0, [], "scaled to 0"),
        (0, [{}], "running"),
        (1, [{"status": "exited", "code": 0}], "exited"),
        (1, [{"status": "exited", "code": 1}], "exited"),
        (1, [{"status": "created"}], "created"),
        (2, [{}], "missing"),
        (2, [{}, {"status": "exited", "code": 1}], "exited"),
        (2, [{"status": "paused"}, {"status": "restarting"}], "restarting"),
        (2, [{"status": "dead"}, {"status": "restarting"}], "dead"),
        (2, [{}, {"health": "unhealthy"}], "unhealthy"),
        (2, [{}, {"status": "removing"}], "removing"),
        (3, [{}, {"health": "starting"}, {"status": "paused"}], "paused"),
    ],
)
def test_a_service_is_as_its_worst_off_container(scale, states, worst):
    found = [container(f"p-web-{number}", **state) for number, state in enumerate(states, 1)]
    assert services_summary(project({"web": {"scale": scale}}), found)["web"]["state"] == worst


@pytest.mark.parametrize(("others", "state"), [([], "completed"), ([container("p-web-2")], "running")])
def test_a_container_that_was_seen_to_end_well_is_completed(others, state):
    ended = container(status="exited", code=0)
    found = services_summary(project({"web": {"scale": 1 + len(others)}}), [ended, *others], {ended.id})
    assert found["web"]["state"] == state


def test_a_job_that_others_wait_for_is_completed():
    wanted = project({"web": {}, "x": {"depends_on": needs("web", condition="service_completed_successfully")}})
    found = services_summary(wanted, [container(status="exited", code=0, restart="always")])
    assert (found["web"]["state"], found["x"]["state"]) == ("completed", "missing")


def test_a_container_in_words():
    at = container(health="healthy", restarts=2)
    assert services_summary(P, [at, container("p-gone-1", service="gone")]) == {
        "web": {
            "state": "running",
            "containers": [
                {
                    "name": "p-web-1",
                    "id": "id of p-web-",
                    "state": "running",
                    "health": "healthy",
                    "restarts": 2,
                    "started_at": "2026-11-23T06:00:00.000000000Z",
                    "log_since": "0",
                    "exit_code": 0,
                    "image": "a",
                    "image_id": "1" * 12,
                }
            ],
        }
    }


def shown(wanted, *containers, **wishes):
    found = diff(plan(wanted, seen(*containers), {}, Wishes(**wishes)))
    return found["before"].splitlines(), found["after"].splitlines()


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        ({}, {}, ([], [])),
        ({"command": ["a"]}, {"command": ["b"]}, (['p-web-1 command: ["a"]'], ['p-web-1 command: ["b"]'])),
        ({}, {"init": True}, ([], ["p-web-1 init: true"])),
        ({"labels": {"a": "ü"}}, {"labels": {}}, (['p-web-1 labels.a: "ü"'], [])),
    ],
)
def test_differences_of_a_definition(before, after, lines):
    found = shown(project({"web": after}), container(made_from=project({"web": before})))
    if after == {"labels": {}}:  # the empty mapping that is left is a difference of its own, or none
        found = (found[0], [])
    assert found == lines


def test_what_is_missing_superfluous_or_another_image():
    two = project({"web": {"scale": 2}}, networks={"default": None})
    assert shown(two, container(made_from=two)) == ([], ["p-web-2 container: running", "network p_default: present"])
    before, after = shown(P, container(made_from=P), container("p-web-2", made_from=P))
    assert "p-web-2: present" in before
    assert "p-web-2: present" not in after
    assert shown(P, container(made_from=P, image=OTHER_IMAGE_ID)) == (
        ["p-web-1 image a: " + "2" * 12],
        ["p-web-1 image a: " + "1" * 12],
    )
    assert shown(P, container(made_from=P, status="exited", code=1)) == (
        ["p-web-1 state: exited (1)"],
        ["p-web-1 state: running"],
    )


@pytest.mark.parametrize(("remove", "gone"), [(True, True), (False, False)])
def test_an_orphan_is_in_the_diff_only_when_it_goes(remove, gone):
    before, after = shown(P, container(made_from=P), container("p-gone-1", service="gone"), remove_orphans=remove)
    assert (before != []) is gone
    assert after == []


SECRET, OTHER = "correct-horse", "battery-staple"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"environment": {"A": SECRET}}, {"environment": {"A": OTHER}}),
        ({"environment": {"A": SECRET}}, {"environment": {}}),
        ({"environment": {"A": SECRET}}, {}),
        ({}, {"environment": {"A": SECRET}}),
        (
            {"post_start": [{"command": ["a"], "environment": {"A": SECRET}}]},
            {"post_start": [{"command": ["a"], "environment": {"A": OTHER}}]},
        ),
    ],
)
def test_a_value_is_never_in_the_diff_and_the_change_is(before, after):
    found = shown(project({"web": after}), container(made_from=project({"web": before})))
    assert found[0] != found[1]
    assert SECRET not in str(found)
    assert OTHER not in str(found)
    assert "~" not in str(found), "digests say nothing to a reader"


def test_changed_content_of_a_secret_is_in_the_diff_without_the_content():
    wanted, before = (
        project({"web": {"secrets": [{"source": "s"}]}}, secrets={"s": {"content": text}}) for text in (SECRET, OTHER)
    )
    found = shown(wanted, container(made_from=before))
    assert found == (
        ['p-web-1 secrets_content.s: "***" (as applied)'],
        ['p-web-1 secrets_content.s: "***" (changed)'],
    )
