# SPDX-License-Identifier: GPL-3.0-or-later
"""Module `image` on a real engine: versions, patterns, pruning, and what it remembers."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.engine.observed import observed
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.staleness import changed
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.upper import changes
from tests.support.engine import Project
from tests.support.shops import Shop, opened
from tests.support.stacks import STAY, codes, kinds, leaks

VERSION = r'ENTRYPOINT_VERSION="([^"]+)"'


@pytest.fixture
def shop(project: Project) -> Iterator[Shop]:
    with opened(project) as found:
        yield found


# -- versions and patterns ---------------------------------------------------------------------------------------------


def test_versions_of_source_image_container_and_log(shop: Shop) -> None:
    shop.begin()
    name = f"{shop.name}-web-1"
    (entry,) = shop.fine(version_marker=VERSION)["services"]["web"]["versions"]
    assert (entry["source"], entry["image"], entry["containers"], entry["logs"]) == (
        "1.0.0",
        "1.0.0",
        {name: "1.0.0"},
        {name: "1.0.0"},
    )
    shop.entrypoint(114, "2.0.0-beta")
    result = shop.image(version_marker=VERSION)
    assert {"version-mismatch", "version-not-logged"} <= codes(result)

    shop.project.compose("build", "web")
    shop.project.compose("restart", "-t", "1", "web")
    (entry,) = shop.image(version_marker=VERSION)["services"]["web"]["versions"]
    assert (entry["source"], entry["image"], entry["containers"]) == ("2.0.0-beta", "2.0.0-beta", {name: "1.0.0"})

    shop.deploy()
    shop.fine(version_marker=VERSION)
    assert "version-missing" in codes(shop.image(version_marker="NO_SUCH_VERSION=(.*)"))
    assert codes(shop.image(version_marker="(")) == {"pattern-invalid"}


def test_only_the_last_start_counts(shop: Shop) -> None:
    """The first start says a version, and the second none."""
    shop.entrypoint(114, says='[ -e /tmp/before ] || echo "Entrypoint $ENTRYPOINT_VERSION"; touch /tmp/before')
    shop.dockerfile("COPY entrypoint.sh /entrypoint.sh", 'ENTRYPOINT ["/entrypoint.sh"]')
    shop.write({"web": {"build": "."}})
    shop.deploy()
    shop.fine(version_marker=VERSION)
    shop.project.compose("restart", "-t", "1", "web")
    assert codes(shop.image(version_marker=VERSION)) == {"version-not-logged"}


def test_what_cannot_be_read_of_the_log_is_no_failure(shop: Shop) -> None:
    shop.begin(114, logging={"driver": "none"})
    assert codes(shop.fine(version_marker=VERSION)) == {"log-unreadable"}


def test_required_patterns_tell_four_errors_apart(shop: Shop) -> None:
    shop.begin()

    def required(pattern: str, path: str = "/entrypoint.sh") -> set[str]:
        return codes(shop.image(required_patterns=[{"service": "web", "path": path, "pattern": pattern}]))

    assert required("^# line 7$") == set()
    assert required("visitor pool") == {"pattern-missing"}
    assert required("x", "/no/such/file") == {"file-missing"}
    shop.project.compose("stop", "-t", "1", "web")
    assert required("^# line 7$") == {"container-not-running"}
    shop.project.compose("rm", "-f", "web")
    assert required("^# line 7$") == {"container-missing"}


# -- pruning -----------------------------------------------------------------------------------------------------------


def test_old_images_are_pruned_but_never_those_that_ran_well(shop: Shop) -> None:
    ids = []
    for lines in (110, 111, 112, 113):
        if lines == 110:
            shop.begin(lines)
        else:
            shop.entrypoint(lines)
            shop.deploy()
        ids.append(shop.image_id())
    # One that never ran well, younger than all of them.
    (shop.folder / "entrypoint.sh").write_text("#!/bin/sh\nexit 3\n")
    shop.fails()
    bad = shop.image_id()
    shop.entrypoint(114)
    shop.deploy()
    ids.append(shop.image_id())

    there = {entry["Id"] for entry in shop.api.images(filters={"dangling": True})}
    assert {*ids[:-1], bad} <= there
    foretold = shop.fine(state="pruned", keep=3, check=True)
    done = shop.fine(state="pruned", keep=3)
    assert kinds(foretold) == kinds(done)
    assert _gone(shop, [*ids, bad]) == {ids[0], ids[1], bad}
    assert not shop.fine(state="pruned", keep=3)["changed"]
    assert shop.fine(state="pruned", keep=0)["changed"]
    assert _gone(shop, ids) == set(ids[:-1]), "what runs stays"
    shop.unchanged()


def test_pruning_spares_what_others_use_or_name(shop: Shop) -> None:
    shop.begin(110)
    first = shop.image_id()
    shop.api.tag(first, f"{shop.name}-mine", "1")
    shop.entrypoint(111)
    shop.deploy()
    second = shop.image_id()
    other = shop.api.create_container(second, name=f"{shop.name}-other", labels={"com.docker.compose.project": ""})
    shop.entrypoint(112)
    shop.deploy()
    assert not shop.fine(state="pruned", keep=0)["changed"]
    assert not _gone(shop, [first, second])
    shop.api.remove_container(other["Id"])
    assert shop.fine(state="pruned", keep=0)["changed"]
    assert _gone(shop, [first, second]) == {second}
    assert codes(shop.image(state="pruned", keep=-1)) == {"keep-invalid"}


def _gone(shop: Shop, ids: list[str]) -> set[str]:
    there = {entry["Id"] for entry in shop.api.images(all=True)}
    return set(ids) - there


# -- secrets, and what is remembered -----------------------------------------------------------------------------------


def test_nothing_secret_is_told_or_remembered(shop: Shop) -> None:
    secret = "Tr0ub4dor-und-3-horse"
    shop.entrypoint(114)
    shop.dockerfile("ARG API_TOKEN", "RUN echo using $API_TOKEN; test -e /nowhere", "COPY entrypoint.sh /e")
    shop.write({"web": {"build": {"context": ".", "args": {"API_TOKEN": secret}}, "environment": {"API_KEY": secret}}})
    assert codes(shop.image(state="present")) == {"build-failed"}
    shop.image(version_marker="nothing", check=True)
    state = Path(os.environ["XDG_STATE_HOME"]) / "shipshape"
    remembered = [entry.read_text() for entry in state.iterdir()]
    assert not leaks([secret], *shop.printed, *remembered)
    assert {stat.S_IMODE(entry.stat().st_mode) for entry in state.iterdir()} == {0o600}


def test_without_what_is_remembered_nothing_is_wrong(shop: Shop) -> None:
    shop.begin()
    for entry in (Path(os.environ["XDG_STATE_HOME"]) / "shipshape").iterdir():
        if shop.image_id() in entry.read_text():
            entry.write_text(json.dumps({"v": 99}))
    shop.unchanged()
    shop.fine()
    assert not shop.fine(state="pruned")["changed"]


def test_two_at_once(shop: Shop) -> None:
    shop.begin()
    shop.entrypoint(124)
    calls = [shop.call("image", state="present") for _ in range(2)]
    results = [call.wait(60) for call in calls]
    assert [result.get("failed", False) for result in results] == [False, False]
    assert sorted(result["changed"] for result in results) == [False, True]


# -- what a container has changed, read off the disk -------------------------------------------------------------------

CHANGES = (
    "rm -r /app/gone",
    "rm -r /app/anew; mkdir /app/anew",
    "mv /app/moved /app/elsewhere",
    "echo more >> /app/file",
    "mkdir -p /app/own/deep; touch /app/own/deep/file",
)


@pytest.mark.parametrize("number", range(len(CHANGES) + 1))
def test_the_containers_own_layer_says_what_the_engine_says(shop: Shop, number: int) -> None:
    folders = ("gone", "anew", "moved", "kept")
    made = " && ".join(f"mkdir -p /app/{name} && touch /app/{name}/held" for name in folders)
    shop.dockerfile(f"RUN {made} && touch /app/file")
    shop.write({"web": {"build": ".", "command": ["sh", "-c", STAY]}})
    shop.deploy()
    for command in CHANGES[:number]:
        shop.shell("web", command)
    container = observed(shop.container("web"))
    told = shop.api.diff(container.id) or []
    paths = [f"/app/{name}/held" for name in folders] + ["/app/file", "/app/own/deep/file"]

    class NotAsked:
        def get(self, path: str) -> None:
            raise AssertionError(f"it was not read off the disk: {path}")

    really = {f"/app/{name}/held" for name in folders[: min(number, 3)]}
    really |= {"/app/file"} if number > 3 else set()
    really |= {"/app/own/deep/file"} if number > 4 else set()
    assert really <= changed(changes(NotAsked(), container), paths) <= changed(told, paths)
