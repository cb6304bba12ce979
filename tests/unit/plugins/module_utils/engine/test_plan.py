# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.plan import inherited
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.successor import Inherited
from ansible_collections.shipshape.deploy.tests.unit.plugins.module_utils.engine.builders import (
    OTHER_IMAGE_ID,
    container,
    needs,
    project,
    seen,
)
from ansible_collections.shipshape.deploy.tests.unit.plugins.module_utils.engine.plans import (
    OLD,
    TWO,
    P,
    db,
    planned,
    reasons,
    said,
    web,
)

# -- one service ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "steps"),
    [
        ([], ["create p-web-1"]),
        ([container(made_from=P)], []),
        ([container(made_from=OLD)], ["recreate p-web-1"]),
        ([container(made_from=P, status="created")], ["start p-web-1"]),
        ([container(made_from=P, status="exited", code=1)], ["start p-web-1"]),
        ([container(made_from=P, status="exited", code=0)], ["start p-web-1"]),
        ([container(made_from=P, status="exited", code=0, restart="always")], ["start p-web-1"]),
        ([container(made_from=P, status="paused")], ["unpause p-web-1"]),
        ([container(made_from=P, status="dead")], ["recreate p-web-1"]),
        # Watching is no change, so it is not announced.
        ([container(made_from=P, status="restarting")], []),
        ([container(made_from=OLD, status="exited", code=1)], ["recreate p-web-1"]),
        ([container(made_from=OLD, status="paused")], ["recreate p-web-1"]),
        ([container(made_from=P, image=OTHER_IMAGE_ID)], ["recreate p-web-1"]),
    ],
)
def test_one_container(found, steps):
    assert said(P, *found) == steps


def test_a_job_that_was_seen_to_end_well_is_left_alone():
    at = container(made_from=P, status="exited", code=0)
    assert said(P, at, done=frozenset({at.id})) == []


def test_what_is_only_watched_is_a_step_that_is_not_announced():
    for state in ({"status": "restarting"}, {"health": "unhealthy"}):
        found = planned(P, seen(container(made_from=P, **state)))
        assert [step.action for step in found.steps] == ["watch"]
        assert found.announced() == []


def test_the_reason_of_a_recreation_names_the_fields_and_not_the_state():
    new = project({"web": {"command": ["new"], "labels": {"a": "1"}, "init": True}})
    old = project({"web": {"command": ["old"], "labels": {"a": "1", "b": "2"}, "init": True}})
    assert reasons(new, container(made_from=old, status="exited", code=1)) == {
        "p-web-1": "command changed, labels.b removed"
    }


def test_a_recreated_container_keeps_its_number_name_and_data():
    data = {"Type": "volume", "Name": "anonymous", "Destination": "/data", "RW": True}
    found = planned(P, seen(container("p-web-4", made_from=OLD, mounts=[data]), image_volumes={"a": {"/data"}}))
    (step,) = found.steps
    assert (step.place.number, step.place.name, step.place.replaces) == (4, "p-web-4", "id of p-web-4")
    assert step.place.mounts == (Inherited("volume", "anonymous", "/data", read_only=False, declared=True),)


@pytest.mark.parametrize(
    ("recreate", "found", "steps"),
    [
        ("always", container(made_from=P), ["recreate p-web-1"]),
        ("always", container(made_from=P, status="exited", code=0), ["recreate p-web-1"]),
        ("never", container(made_from=OLD), []),
        ("never", container(made_from=P, status="exited", code=1), ["start p-web-1"]),
        ("never", container(made_from=OLD, status="exited", code=1), ["start p-web-1"]),
        ("never", container(made_from=OLD, status="created"), ["start p-web-1"]),
        ("never", container(made_from=OLD, status="paused"), ["unpause p-web-1"]),
    ],
)
def test_recreate_always_and_never(recreate, found, steps):
    assert said(P, found, wishes={"recreate": recreate}) == steps


def test_recreate_never_still_creates_what_is_missing():
    assert said(P, wishes={"recreate": "never"}) == ["create p-web-1"]


def test_what_is_not_recreated_because_it_must_not_be_stays_in_the_plan_for_those_who_wait_for_it():
    found = planned(P, seen(container(made_from=OLD)), recreate="never")
    assert [at.name for at in found.services[0].containers] == ["p-web-1"]
    assert [entry.field for entry in found.drift] == ["command"]


# -- scale ------------------------------------------------------------------------------------------------------------

THREE = project({"web": {"scale": 3}})
NONE = project({"web": {"scale": 0}})


@pytest.mark.parametrize(
    ("wanted", "found", "steps"),
    [
        (THREE, [], ["create p-web-1", "create p-web-2", "create p-web-3"]),
        (THREE, [web(1, P)], ["create p-web-2", "create p-web-3"]),
        # Like Compose: the next number after the highest, gaps stay.
        (THREE, [web(2, P), web(5, P)], ["create p-web-6"]),
        (THREE, [web(1, OLD), web(2, P)], ["recreate p-web-1", "create p-web-3"]),
        (TWO, [web(1, P), web(2, P), web(3, P)], ["remove p-web-3"]),
        (P, [web(1, P), web(2, P), web(3, P)], ["remove p-web-2", "remove p-web-3"]),
        (NONE, [web(1, P), web(2, P)], ["remove p-web-1", "remove p-web-2"]),
        # What would have to be replaced anyway is given up first.
        (TWO, [web(1, OLD), web(2, P), web(3, P)], ["remove p-web-1"]),
        (P, [web(1, OLD), web(2, OLD), web(3, P)], ["remove p-web-1", "remove p-web-2"]),
        (TWO, [web(1, OLD), web(2, OLD), web(3, P)], ["recreate p-web-1", "remove p-web-2"]),
        (P, [web(1, P), web(12, P)], ["remove p-web-12"]),
        # Then what does not run as it should.
        (P, [web(1, P, status="exited", code=1), web(2, P)], ["remove p-web-1"]),
        (P, [web(1, P, health="unhealthy"), web(2, P), web(3, OLD)], ["remove p-web-1", "remove p-web-3"]),
    ],
)
def test_scale(wanted, found, steps):
    assert said(wanted, *found) == steps


def test_container_name_is_used_for_a_new_container():
    assert said(project({"web": {"container_name": "the-web"}})) == ["create the-web"]


def test_each_surplus_container_is_one_difference_of_scale():
    found = planned(P, seen(web(1, P), web(2, OLD)))
    assert [(entry.container, entry.field, entry.action) for entry in found.drift] == [("p-web-2", "scale", "remove")]


# -- networks and volumes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "steps"),
    [
        ([], ["create network p_back", "create volume p_data", "create p-web-1"]),
        ([container(made_from=P)], []),
    ],
)
def test_networks_and_volumes_come_only_with_a_container(found, steps):
    wanted = project(
        {"web": {}},
        networks={"default": {"name": "p_default"}, "back": {"name": "p_back"}, "x": {"external": True, "name": "x"}},
        volumes={"data": {"name": "p_data"}},
    )
    assert said(wanted, *found, networks={"p_default": {}}) == steps


def test_what_is_as_it_should_be_has_an_empty_plan():
    wanted = project({"db": {}, "web": {"scale": 2, "depends_on": needs("db")}}, networks={"default": None})
    found = planned(wanted, seen(db(wanted), web(1, wanted), web(2, wanted)))
    assert found.empty
    assert found.drift == ()


# -- mounts that a successor may take along ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mount", "kept"),
    [
        (
            {"Type": "volume", "Name": "n", "Source": "/var/lib/x", "Destination": "/d", "RW": False},
            [Inherited("volume", "n", "/d", read_only=True, declared=False)],
        ),
        (
            {"Type": "bind", "Source": "/srv", "Destination": "/declared", "RW": True},
            [Inherited("bind", "/srv", "/declared", read_only=False, declared=True)],
        ),
        ({"Type": "tmpfs", "Source": "", "Destination": "/t"}, []),
    ],
)
def test_inherited_mounts(mount, kept):
    assert list(inherited(container(mounts=[mount]), frozenset({"/declared"}))) == kept


def test_a_container_without_mounts_has_nothing_to_pass_on():
    assert inherited(container(), frozenset({"/data"})) == ()
