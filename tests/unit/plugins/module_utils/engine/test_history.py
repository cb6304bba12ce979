# SPDX-License-Identifier: GPL-3.0-or-later
"""What is remembered of images, and which of them may be pruned."""

from __future__ import annotations

import os

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.engine import history
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.history import History
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.images import built_from_other, to_build
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.order import Order
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.proof import ran_well
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.prune import Held, prunable, repository
from ansible_collections.shipshape.deploy.tests.unit.plugins.module_utils.engine.builders import (
    IMAGE_ID,
    container,
    project,
    seen,
)

HOST = "unix:///x.sock"


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "shipshape"


def test_what_is_written_is_read_again(state):
    known = History().with_built("web", "id1", "d1").with_ran("web", ["id1"]).with_altered("web", {"/x": ("a", "b")})
    assert history.write(HOST, "p", known)
    assert history.read(HOST, "p") == known
    assert history.read(HOST, "other") == History()
    assert history.read("tcp://other:1", "p") == History()
    (entry,) = state.iterdir()
    assert entry.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "{", "[]", '{"v": 9}', '{"v": 1, "built": 3, "ran": {}, "altered": {}}', "null"])
def test_a_file_that_makes_no_sense_is_as_none(state, text):
    history.write(HOST, "p", History())
    (entry,) = state.iterdir()
    entry.write_text(text)
    assert history.read(HOST, "p") == History()


def test_where_nothing_can_be_written_nothing_fails(state):
    state.write_text("a file in the way")
    assert not history.write(HOST, "p", History())
    assert history.read(HOST, "p") == History()


def test_what_a_killed_run_left_is_written_over(state):
    history.write(HOST, "p", History())
    (entry,) = state.iterdir()
    (state / f"{entry.name}.new").write_text("half")
    history.write(HOST, "p", History().with_built("web", "i", "d"))
    assert os.listdir(state) == [entry.name]


def test_the_order_in_which_images_ran():
    known = History()
    for image in ["a", "b", "a", "c", "c"]:
        known = known.with_ran("web", [image])
    assert known.ran == {"web": ("b", "a", "c")}
    assert known.with_ran("web", []) is known
    assert known.without_images(["a"]).ran == {"web": ("b", "c")}


def test_only_the_last_builds_are_remembered():
    known = History()
    for number in range(50):
        known = known.with_built("web", f"i{number}", f"d{number}")
    assert len(known.built["web"]) == 20
    assert known.built_from("web", "i49") == "d49"
    assert known.built_from("web", None) == ""


# -- whether to build --------------------------------------------------------------------------------------------------

BUILDS = project({"web": {"build": {"context": "."}}})


@pytest.mark.parametrize(
    ("remembered", "digest", "expected"),
    [("now", "now", False), ("before", "now", True), ("", "now", False), ("before", "", False)],
)
def test_an_image_is_built_when_it_was_made_from_other_files(remembered, digest, expected):
    known = History().with_built("web", IMAGE_ID, remembered) if remembered else History()
    web = BUILDS.services["web"]
    look = seen(container(made_from=BUILDS), known=known, builds={"web": digest})
    assert built_from_other(web, look) is expected
    assert to_build(web, look, Order()) is expected
    assert to_build(web, look, Order(build="never", build_services=("web",))) is False
    assert to_build(web, look, Order(build_services=("web",))) is True


# -- what ran well -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (container(), {"web": [IMAGE_ID]}),
        (container(health="healthy"), {"web": [IMAGE_ID]}),
        (container(health="starting"), {}),
        (container(health="unhealthy"), {}),
        (container(status="exited", code=1), {}),
        (container(status="restarting"), {}),
        (container(name="p-web-1.shipshape-new"), {}),
        (container(service="gone"), {}),
    ],
)
def test_what_counts_as_having_run_well(found, expected):
    assert ran_well(project(), seen(found, taken=0.0)) == expected


# -- pruning -----------------------------------------------------------------------------------------------------------

LABELS = {"com.docker.compose.project": "p", "com.docker.compose.service": "web"}


def built(number, *names, used=False, labels=LABELS):
    return Held(f"i{number}", names, labels, number, used)


def pruned(held, *, ran=(), current=("i99",), keep=2, services=None):
    known = History(ran={"web": tuple(ran)} if ran else {})
    entries = services or {"web": {"image": "shop:1"}}
    return [image.id for image in prunable(held, project(entries), current, known, keep)]


SIX = [built(number) for number in range(6)]


@pytest.mark.parametrize(
    ("held", "options", "expected"),
    [
        (SIX, {}, ["i0", "i1", "i2", "i3"]),  # nothing known: the youngest stay
        (SIX, {"ran": ["i0", "i1"]}, ["i2", "i3", "i4", "i5"]),  # what ran well stays, not what is young
        (SIX, {"ran": ["i0", "gone"]}, ["i1", "i2", "i3", "i4"]),
        (SIX, {"ran": ["i0", "i1", "i2"], "keep": 1}, ["i0", "i1", "i3", "i4", "i5"]),
        (SIX, {"current": ["i0"], "keep": 0}, ["i1", "i2", "i3", "i4", "i5"]),
        ([built(0, used=True), built(1)], {"keep": 0}, ["i1"]),
        ([built(0, "shop:old"), built(1, "mine:1")], {"keep": 0}, ["i0"]),  # somebody else's name
        ([built(0, "shop:old", "mine:1")], {"keep": 0}, []),
        ([built(0, labels={})], {"keep": 0}, []),  # nobody knows whose it is
        ([built(0, "shop:old", labels={})], {"keep": 0, "ran": ["i0"]}, ["i0"]),  # pulled, and known to have run here
        ([built(0, labels={**LABELS, "com.docker.compose.project": "q"})], {"keep": 0}, []),
        ([built(0, "docker.io/library/shop:old")], {"keep": 0}, ["i0"]),
    ],
)
def test_what_may_go(held, options, expected):
    assert pruned(held, **options) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("shop", "shop"),
        ("shop:1", "shop"),
        ("reg:5000/a/shop:1", "reg:5000/a/shop"),
        ("reg:5000/shop", "reg:5000/shop"),
        ("a/shop@sha256:0", "a/shop"),
        ("docker.io/a/shop:1", "a/shop"),
    ],
)
def test_repositories(name, expected):
    assert repository(name) == expected
