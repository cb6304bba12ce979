# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.plan import reused
from ansible_collections.shipshape.deploy.tests.unit.plugins.module_utils.engine.builders import (
    container,
    project,
    seen,
)
from ansible_collections.shipshape.deploy.tests.unit.plugins.module_utils.engine.plans import (
    LEFT,
    OLD,
    TWO,
    P,
    planned,
    said,
    web,
)

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
