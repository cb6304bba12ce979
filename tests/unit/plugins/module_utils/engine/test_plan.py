# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.plan import Wishes, inherited, plan, reused
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.view_rules import Inherited
from ansible_collections.shipshape.deploy.tests.unit.plugins.module_utils.engine.builders import (
    OTHER_IMAGE_ID,
    container,
    needs,
    project,
    seen,
)

P = project()
OLD = project({"web": {"command": ["old"]}})
LEFT = "left by an interrupted run"


def planned(wanted, look, **wishes):
    return plan(wanted, look, {}, Wishes(**wishes))


def said(wanted, *containers, wishes=None, **look):
    """The announced plan, each action as one line: `recreate p-web-1`."""
    found = planned(wanted, seen(*containers, **look), **(wishes or {}))
    return [f"{action} {target}" for action, target, _ in found.announced()]


def reasons(wanted, *containers, wishes=None, **look):
    return {target: why for _, target, why in planned(wanted, seen(*containers, **look), **(wishes or {})).announced()}


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


def web(number, made_from, **state):
    return container(f"p-web-{number}", made_from=made_from, **state)


THREE = project({"web": {"scale": 3}})
TWO = project({"web": {"scale": 2}})
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


# -- several services -------------------------------------------------------------------------------------------------


def app(**dependency):
    """db, and web that depends on it."""
    return project({"db": {}, "web": {"depends_on": needs("db", **dependency)}})


def db(made_from=None, **state):
    return container("p-db-1", made_from=made_from, service="db", **state)


def changed(wanted):
    """`wanted` with another definition of db, as an earlier deploy might have left it."""
    entries = {name: dict(entry) for name, entry in wanted.document["services"].items()}
    return project({**entries, "db": {**entries["db"], "command": ["old"]}})


RESTART = app(restart=True)
PLAIN = app()
NETWORK = project({"db": {}, "web": {"network_mode": "service:db", "depends_on": needs("db")}})
VOLUMES = project({"db": {}, "web": {"volumes_from": ["db:ro"], "depends_on": needs("db")}})
CHAIN = project(
    {
        "db": {},
        "web": {"depends_on": needs("db", restart=True)},
        "x": {"depends_on": needs("web", restart=True)},
    }
)


@pytest.mark.parametrize(
    ("wanted", "the_db", "the_web", "steps"),
    [
        (PLAIN, {"made_from": changed(PLAIN)}, {}, ["recreate p-db-1"]),
        (RESTART, {"made_from": changed(RESTART)}, {}, ["recreate p-db-1", "restart p-web-1"]),
        (RESTART, {"status": "exited", "code": 1}, {}, ["start p-db-1", "restart p-web-1"]),
        (RESTART, {"status": "paused"}, {}, ["unpause p-db-1"]),
        (RESTART, {}, {}, []),
        (
            RESTART,
            {"made_from": changed(RESTART)},
            {"status": "exited", "code": 1},
            ["recreate p-db-1", "start p-web-1"],
        ),
        (RESTART, {"made_from": changed(RESTART)}, {"health": "unhealthy"}, ["recreate p-db-1", "restart p-web-1"]),
        (NETWORK, {"made_from": changed(NETWORK)}, {}, ["recreate p-db-1", "recreate p-web-1"]),
        (NETWORK, {"status": "exited", "code": 1}, {}, ["start p-db-1", "restart p-web-1"]),
        (VOLUMES, {"made_from": changed(VOLUMES)}, {}, ["recreate p-db-1", "recreate p-web-1"]),
    ],
)
def test_what_a_dependency_s_change_means_for_a_dependent(wanted, the_db, the_web, steps):
    found = [db(**{"made_from": wanted, **the_db}), container(**{"made_from": wanted, **the_web})]
    assert said(wanted, *found) == steps


def test_a_restart_goes_on_along_the_chain():
    found = [
        db(changed(CHAIN)),
        container(made_from=CHAIN),
        container("p-x-1", made_from=CHAIN, service="x"),
    ]
    assert said(CHAIN, *found) == ["recreate p-db-1", "restart p-web-1", "restart p-x-1"]
    assert reasons(CHAIN, *found)["p-x-1"] == "web is replaced or restarted"


def test_the_reason_of_a_forced_recreation_names_whose_namespace_it_shares():
    found = reasons(NETWORK, db(changed(NETWORK)), container(made_from=NETWORK))
    assert found["p-web-1"] == "it shares a namespace or volumes with db, which gets a new container"


def test_every_service_is_in_the_plan_also_without_steps_so_that_others_can_wait_for_it():
    found = planned(PLAIN, seen(db(PLAIN), container(made_from=PLAIN)))
    assert [entry.service.name for entry in found.services] == ["db", "web"]
    assert [[at.name for at in entry.containers] for entry in found.services] == [["p-db-1"], ["p-web-1"]]
    assert found.empty


def test_dependents_are_removed_before_what_they_depend_on():
    wanted = project({"db": {"scale": 0}, "web": {"scale": 0, "depends_on": needs("db")}})
    assert said(wanted, db(), container()) == ["remove p-web-1", "remove p-db-1"]


# -- orphans, partial runs --------------------------------------------------------------------------------------------

STRANGER = container("p-gone-1", service="gone")


@pytest.mark.parametrize(
    ("wishes", "steps", "orphans"),
    [
        ({}, [], ["p-gone-1"]),
        ({"remove_orphans": True}, ["remove p-gone-1"], ["p-gone-1"]),
        ({"known_services": frozenset({"gone"})}, [], []),
        ({"known_services": frozenset({"gone"}), "remove_orphans": True}, [], []),
        ({"partial": True}, [], []),
        ({"partial": True, "remove_orphans": True}, [], []),
    ],
)
def test_orphans(wishes, steps, orphans):
    look = seen(container(made_from=P), STRANGER)
    found = planned(P, look, **wishes)
    assert [f"{action} {target}" for action, target, _ in found.announced()] == steps
    assert [at.name for at in found.orphans] == orphans
    action = "remove" if wishes.get("remove_orphans") else "none"
    assert [(entry.container, entry.action) for entry in found.drift] == [(name, action) for name in orphans]


def test_orphans_go_before_surplus():
    found = said(P, web(1, P), web(2, P), STRANGER, wishes={"remove_orphans": True})
    assert found == ["remove p-gone-1", "remove p-web-2"]


# -- what may not be done ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "wishes", "done"),
    [
        ([container(made_from=P)], {}, None),
        ([container(made_from=OLD)], {}, "p-web-1 would have to be replaced (command removed)"),
        ([container(made_from=P)], {"recreate": "always"}, "p-web-1 would have to be replaced (recreate: always)"),
        ([web(1, P), web(2, P)], {}, "p-web-2 would have to be removed (scale changed)"),
        # Bringing it up is what its owner wants.
        ([], {}, None),
        ([container(made_from=P, status="exited", code=1)], {}, None),
        ([container(made_from=P, status="paused")], {}, None),
        ([container(made_from=OLD)], {"recreate": "never"}, None),
    ],
)
def test_a_protected_service_is_not_touched_unasked(found, wishes, done):
    refusals = planned(P, seen(*found), protected=frozenset({"web"}), **wishes).refusals
    assert [(at.severity, at.subject, at.code) for at in refusals] == (
        [("critical", "web", "protected-service-drift")] if done else []
    )
    assert done is None or refusals[0].message.startswith(done)
    assert planned(P, seen(*found), protected=frozenset({"db"}), **wishes).refusals == ()


def test_a_protected_service_is_not_restarted_for_another_s_sake():
    look = seen(db(changed(RESTART)), container(made_from=RESTART))
    (refusal,) = planned(RESTART, look, protected=frozenset({"web"})).refusals
    assert "p-web-1 would have to be restarted (db is replaced or restarted)" in refusal.message


def test_a_protected_orphan_is_not_removed():
    look = seen(container(made_from=P), STRANGER)
    assert planned(P, look, protected=frozenset({"gone"})).refusals == ()
    (refusal,) = planned(P, look, protected=frozenset({"gone"}), remove_orphans=True).refusals
    assert "p-gone-1 would have to be removed" in refusal.message


def ported(order, *published):
    ports = [{"target": 80, "published": port} if port else {"target": 80} for port in published]
    return project({"web": {"ports": ports, "deploy": {"update_config": {"order": order}}}})


@pytest.mark.parametrize(
    ("wanted", "refused"),
    [
        (ported("start-first", "8080"), True),
        (ported("stop-first", "8080"), False),
        (ported("start-first", ""), False),
        (ported("start-first", "0"), False),
        (ported("start-first"), False),
    ],
)
def test_two_containers_cannot_hold_one_port(wanted, refused):
    assert [at.code for at in planned(wanted, seen(container(made_from=OLD))).refusals] == (
        ["start-first-port"] if refused else []
    )
    assert planned(wanted, seen(container(made_from=wanted))).refusals == ()
    assert planned(wanted, seen()).refusals == ()


def test_a_container_that_was_renamed_by_hand_gets_its_name_back():
    assert said(P, container("renamed", made_from=P, number=1)) == ["rename p-web-1"]
    assert said(P, container("renamed", made_from=OLD, number=1)) == ["recreate p-web-1"]
    # One that an older Compose named in its own way is left as it is.
    assert said(P, container("p_web_1", number=1)) == []


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


# -- interrupted replacements -----------------------------------------------------------------------------------------

NEW_NAME, OLD_NAME, COMPOSE_NAME = "p-web-1.shipshape-new", "p-web-1.shipshape-old", "0123456789ab_p-web-1"
REPLACES = {"com.docker.compose.replace": "p-web-1"}


def left(name, made_from=P, **state):
    return container(name, made_from=made_from, number=1, **state)


@pytest.mark.parametrize(
    ("found", "steps"),
    [
        # Its predecessor is gone and it was never proven: begun again.
        ([left(NEW_NAME)], [f"remove {NEW_NAME}", "create p-web-1"]),
        ([left(OLD_NAME, OLD, status="exited", code=0)], ["rename p-web-1", "recreate p-web-1"]),
        ([left(OLD_NAME, P, status="exited", code=1)], ["rename p-web-1", "start p-web-1"]),
        ([left(OLD_NAME, OLD), left(NEW_NAME)], ["rename p-web-1", "recreate p-web-1"]),
        # The file was changed back in the meantime: the old one is what is wanted, the new one of no use.
        ([left(OLD_NAME, P), left(NEW_NAME, OLD)], ["rename p-web-1", f"remove {NEW_NAME}"]),
        # Whether the one that stands was ever proven is not known: the names go back, and it is watched once more.
        (
            [container(made_from=P), left(OLD_NAME, OLD, status="exited")],
            [f"rename {NEW_NAME}", "rename p-web-1", "recreate p-web-1"],
        ),
        (
            [container(made_from=OLD), left(OLD_NAME, OLD, status="exited")],
            [f"rename {NEW_NAME}", "rename p-web-1", f"remove {NEW_NAME}", "recreate p-web-1"],
        ),
        ([container(made_from=OLD), left(NEW_NAME)], ["recreate p-web-1"]),
        ([container(made_from=OLD), left(NEW_NAME, OLD)], [f"remove {NEW_NAME}", "recreate p-web-1"]),
        ([container(made_from=P), left(NEW_NAME)], [f"remove {NEW_NAME}"]),
        (
            [container(made_from=P), left(OLD_NAME, OLD), left(NEW_NAME)],
            [f"remove {NEW_NAME}", f"rename {NEW_NAME}", "rename p-web-1", "recreate p-web-1"],
        ),
        ([container(made_from=P), left(COMPOSE_NAME, OLD, labels=REPLACES)], [f"remove {COMPOSE_NAME}"]),
        ([left(COMPOSE_NAME, P, labels=REPLACES)], ["rename p-web-1"]),
        ([left(COMPOSE_NAME, P, labels=REPLACES, status="created")], ["rename p-web-1", "start p-web-1"]),
        (
            [left(OLD_NAME, P), left(COMPOSE_NAME, P, labels=REPLACES)],
            ["rename p-web-1", f"remove {COMPOSE_NAME}"],
        ),
    ],
)
def test_what_an_interrupted_run_left_is_finished_or_undone(found, steps):
    result = planned(P, seen(*found))
    assert [f"{action} {target}" for action, target, _ in result.announced()] == steps
    assert {step.reason for step in result.tidy} <= {LEFT}
    touched = [step.container.id for step in (*result.tidy, *result.steps) if step.action in ("remove", "recreate")]
    assert len(touched) == len(set(touched)), "a container that is removed is not used"


@pytest.mark.parametrize(
    ("new", "old", "steps"),
    [
        # Start-first, an old one is stopped only when the new one is proven: that one stays, and is watched once more.
        (("p-web-1", P, "running"), (OLD, "exited"), [f"remove {OLD_NAME}", "watch p-web-1"]),
        # Nor does it go when it is not what is wanted now, until its own successor is proven.
        (("p-web-1", OLD, "running"), (P, "exited"), [f"remove {OLD_NAME}", "recreate p-web-1"]),
        (("p-web-1", P, "running"), (OLD, "running"), [f"rename {NEW_NAME}", "rename p-web-1", "recreate p-web-1"]),
        (
            ("p-web-1", P, "exited"),
            (OLD, "exited"),
            [f"rename {NEW_NAME}", "rename p-web-1", f"remove {NEW_NAME}", "recreate p-web-1"],
        ),
        ((NEW_NAME, P, "running"), (OLD, "exited"), ["rename p-web-1", "recreate p-web-1"]),
    ],
)
def test_what_is_replaced_start_first_serves_also_after_an_interrupted_run(new, old, steps):
    start_first = {"web": {"deploy": {"update_config": {"order": "start-first"}}}}
    as_wanted = project(start_first)
    as_before = project({"web": {"command": ["old"], **start_first["web"]}})
    made_from = {id(P): as_wanted, id(OLD): as_before}
    name, of_it, status = new
    found = [
        container(name, made_from=made_from[id(of_it)], status=status),
        left(OLD_NAME, made_from[id(old[0])], status=old[1]),
    ]
    result = planned(as_wanted, seen(*found))
    assert [f"{step.action} {step.target}" for step in (*result.tidy, *result.steps)] == steps


@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize("status", ["created", "running", "exited", "dead", "paused", "restarting"])
@pytest.mark.parametrize("of_it", [P, OLD])
def test_a_leftover_successor_is_used_when_it_is_what_would_be_created_now(scale, status, of_it):
    wanted = project({"web": {"scale": scale}})
    found = planned(wanted, seen(container(made_from=OLD), left(NEW_NAME, of_it, status=status, code=1)))
    again = reused(found.services)
    if of_it is P and status in ("created", "running"):
        assert [(at.service, at.place.name, at.temporary_name) for at in again.values()] == [
            ("web", "p-web-1", NEW_NAME)
        ]
        assert found.tidy == ()
    else:
        assert again == {}
        assert [step.target for step in found.tidy] == [NEW_NAME]


def test_nothing_of_an_interrupted_run_stays_when_nothing_may_be_recreated():
    look = seen(container(made_from=OLD), left(NEW_NAME))
    assert [step.target for step in planned(P, look, recreate="never").tidy] == [NEW_NAME]


@pytest.mark.parametrize(("command", "steps"), [(["old"], ["recreate 0123456789ab_x"]), (["new"], [])])
def test_a_name_of_the_user_s_own_is_kept_also_when_it_looks_like_one_that_compose_gives(command, steps):
    wanted, before = (
        project({"web": {"container_name": "0123456789ab_x", "command": words}}) for words in (["new"], command)
    )
    assert said(wanted, container("0123456789ab_x", made_from=before, number=1)) == steps


def test_leftovers_of_several_replicas_are_kept_apart():
    found = [
        web(1, OLD),
        container("p-web-1.shipshape-new", made_from=TWO),
        container("p-web-2.shipshape-old", made_from=OLD, number=2, status="exited"),
        container("p-web-2.shipshape-new", made_from=TWO, number=2),
    ]
    result = planned(TWO, seen(*found))
    assert [f"{action} {target}" for action, target, _ in result.announced()] == [
        "rename p-web-2",
        "recreate p-web-1",
        "recreate p-web-2",
    ]
    assert len(reused(result.services)) == 2


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
