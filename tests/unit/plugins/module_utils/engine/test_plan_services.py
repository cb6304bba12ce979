# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.shipshape.deploy.tests.unit.plugins.module_utils.engine.builders import (
    container,
    needs,
    project,
    seen,
)
from ansible_collections.shipshape.deploy.tests.unit.plugins.module_utils.engine.plans import (
    OLD,
    RESTART,
    P,
    app,
    changed,
    db,
    planned,
    reasons,
    said,
    web,
)

# -- several services -------------------------------------------------------------------------------------------------

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
