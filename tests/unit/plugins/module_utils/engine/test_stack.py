# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.applied import LABEL, label, read
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.images import to_build, to_pull_of
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.look import BakedState
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.order import Order
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.plan import Wishes, plan
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.stack import Situation, scene_for
from ansible_collections.shipshape.deploy.tests.unit.plugins.module_utils.engine.builders import (
    container,
    project,
    seen,
)

TWO = project({"web": {"scale": 2}})
OLD = project({"web": {"command": ["old"]}})


def scene(wanted, *containers, **wishes):
    look = seen(*containers)
    return scene_for(Situation(wanted, look, plan(wanted, look, {}, Wishes(**wishes))))


def web(number, made_from, **state):
    return container(f"p-web-{number}", made_from=made_from, number=number, **state)


def new(number, made_from):
    return container(f"p-web-{number}.shipshape-new", made_from=made_from, number=number, status="created")


@pytest.mark.parametrize(
    ("scale", "found", "hidden", "places"),
    [
        (1, [], [], {1: "p-web-1"}),
        (3, [], [], {1: "p-web-1", 2: "p-web-2", 3: "p-web-3"}),
        (1, [web(1, TWO)], [], {}),
        (1, [web(1, OLD)], ["p-web-1"], {1: "p-web-1"}),
        # Compose sees number 2 only, so it will ask for number 3: that one is to become number 1.
        (2, [web(1, OLD), web(2, TWO)], ["p-web-1"], {3: "p-web-1"}),
        (2, [web(1, TWO), web(2, OLD)], ["p-web-2"], {2: "p-web-2"}),
        (2, [web(1, OLD), web(2, OLD)], ["p-web-1", "p-web-2"], {1: "p-web-1", 2: "p-web-2"}),
        (2, [web(7, OLD), web(4, OLD)], ["p-web-4", "p-web-7"], {1: "p-web-4", 2: "p-web-7"}),
        (3, [web(1, OLD), web(2, TWO)], ["p-web-1"], {3: "p-web-1", 4: "p-web-3"}),
        (1, [web(1, TWO), web(2, TWO)], ["p-web-2"], {}),
        # A successor that an interrupted run left takes part under its future name.
        (2, [web(1, OLD), web(2, OLD), new(1, TWO)], ["p-web-1", "p-web-2"], {2: "p-web-2"}),
        (2, [web(1, OLD), web(2, OLD), new(2, TWO)], ["p-web-1", "p-web-2"], {3: "p-web-1"}),
        (1, [web(1, OLD), new(1, OLD)], ["p-web-1", "p-web-1.shipshape-new"], {1: "p-web-1"}),
        (1, [web(1, TWO), new(1, TWO)], ["p-web-1.shipshape-new"], {}),
    ],
)
def test_what_compose_is_to_see(scale, found, hidden, places):
    wanted = project({"web": {"scale": scale}})
    shown = scene(wanted, *found)
    assert sorted(shown.hidden) == sorted(f"id of {name}" for name in hidden)
    assert {number: place.name for number, place in shown.places["web"].items()} == places


def test_what_stays_is_seen_also_when_it_differs():
    assert scene(TWO, web(1, OLD), web(2, OLD), recreate="never").hidden == frozenset()


def test_containers_of_other_services_are_seen():
    stranger = container("p-other-1", service="other")
    assert scene(project(), web(1, OLD), stranger).hidden == {"id of p-web-1"}


def test_new_containers_get_a_label_that_leads_to_no_drift():
    wanted = project({"web": {"environment": {"A": "1"}}, "db": {}})
    labels = scene(wanted).labels
    assert set(labels) == {"web", "db"}
    remembered = read(labels["web"][LABEL])
    at = container(labels=labels["web"])
    assert remembered == at.applied
    assert plan(wanted, seen(at), {}, Wishes(partial=True)).services[1].steps == ()


def test_a_leftover_that_fits_is_known_to_the_view_by_its_future_name():
    shown = scene(TWO, web(1, OLD), web(2, TWO), new(1, TWO))
    listed = shown.listed(
        [{"Id": "id of p-web-1.shipshape-new", "Names": ["/x"]}, {"Id": "id of p-web-1", "Names": []}]
    )
    assert listed == [{"Id": "id of p-web-1.shipshape-new", "Names": ["/p-web-1"]}]


BUILT = {"build": {"context": "."}}


@pytest.mark.parametrize(
    ("entry", "there", "build", "built"),
    [
        ({}, False, "always", False),
        (BUILT, False, "auto", True),
        (BUILT, True, "auto", False),
        (BUILT, True, "always", True),
        (BUILT, False, "never", False),
        ({**BUILT, "pull_policy": "build"}, True, "auto", True),
        ({**BUILT, "pull_policy": "build"}, True, "never", False),
    ],
)
def test_what_is_built(entry, there, build, built):
    service = project({"web": entry}).services["web"]
    assert to_build(service, seen(images={"a" if there else "-": "1"}), Order(build=build)) is built


@pytest.mark.parametrize(
    ("entry", "there", "pull", "pulled"),
    [
        ({}, False, "policy", True),
        ({}, True, "policy", False),
        ({"pull_policy": "always"}, True, "policy", True),
        ({"pull_policy": "never"}, False, "policy", False),
        ({"pull_policy": "missing"}, True, "policy", False),
        ({"pull_policy": "missing"}, False, "policy", True),
        ({"pull_policy": "if_not_present"}, False, "policy", True),
        ({}, True, "always", True),
        ({}, False, "never", False),
        ({}, False, "missing", True),
        ({}, True, "missing", False),
        # What the caller asks for counts more than what the file says.
        ({"pull_policy": "never"}, True, "always", True),
        ({"pull_policy": "always"}, True, "missing", False),
        ({"pull_policy": "always"}, False, "never", False),
        # What is built is not pulled, what is scaled to nothing needs no image.
        (BUILT, False, "always", False),
        ({"scale": 0}, False, "always", False),
    ],
)
def test_what_is_pulled(entry, there, pull, pulled):
    look = seen(images={"a" if there else "-": "1"})
    assert bool(to_pull_of(project({"web": entry}), look, Order(pull=pull))) is pulled


@pytest.mark.parametrize(
    ("web", "worker", "build", "pulled"),
    [
        # One builds, the other merely names what comes of it: no registry has that.
        (BUILT, {}, "auto", []),
        (BUILT, {"pull_policy": "always"}, "auto", []),
        # Who forbids to build means the published image.
        (BUILT, {}, "never", ["web", "worker"]),
        ({**BUILT, "pull_policy": "never"}, {}, "never", ["worker"]),
        ({**BUILT, "pull_policy": "build"}, {}, "never", ["worker"]),
        ({"build": {"context": "."}, "image": None}, {}, "never", ["worker"]),
    ],
)
def test_an_image_that_the_project_builds_is_pulled_only_when_nothing_may_be_built(web, worker, build, pulled):
    wanted = project({"web": web, "worker": worker})
    found = to_pull_of(wanted, seen(images={"-": "1"}), Order(build=build))
    assert [at.name for at in found] == pulled


@pytest.mark.parametrize(
    ("before", "now", "built"),
    [
        ("digest-1", "digest-1", False),
        ("digest-1", "digest-2", True),
        # Not known: an older container, or an engine that is not on this machine.
        ("", "digest-1", False),
        ("digest-1", "", False),
    ],
)
def test_what_was_built_from_something_else_is_built_again(before, now, built):
    wanted = project({"web": BUILT})
    made = label(wanted, wanted.services["web"], build=before)
    look = seen(container(labels={LABEL: made}), builds={"web": now})
    assert "digest" not in made
    assert to_build(wanted.services["web"], look, Order()) is built
    assert to_build(wanted.services["web"], look, Order(build="never")) is False


@pytest.mark.parametrize(
    ("source", "inside", "build", "built"),
    [
        ("1", "1", "auto", False),
        ("2", "1", "auto", True),
        ("2", None, "auto", True),
        (None, "1", "auto", False),
        ("2", "1", "never", False),
    ],
)
def test_what_was_built_from_other_files_is_built_again(source, inside, build, built):
    at = container()
    look = seen(at, baked={at.id: (BakedState("/app/x.py", source, inside),)})
    assert to_build(project({"web": BUILT}).services["web"], look, Order(build=build)) is built
