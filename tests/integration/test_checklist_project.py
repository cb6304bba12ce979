# SPDX-License-Identifier: GPL-3.0-or-later
"""The boxes about image, containers and logs, on Compose projects of other people: no service of ours, no build, a
database that nobody may replace."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytest

from tests.support.engine import BUSYBOX, Project
from tests.support.playbook import play
from tests.support.sites import read

SAYS = "echo Initializing visitor pool...; echo Visitor pool ready; exec sleep 1000"
DB = {"image": BUSYBOX, "init": True, "command": ["sleep", "1000"]}
APP = {"image": BUSYBOX, "init": True, "command": ["sh", "-c", SAYS], "depends_on": ["db"]}
DOCKERFILE = f"FROM {BUSYBOX}\nRUN echo made >/made\n"


def go(
    project: Project, boxes: list[str], *, options: list[str] | None = None, **more: Any
) -> tuple[int, dict[str, tuple[str, str]], str]:
    variables = {
        "checklist_boxes": boxes,
        "checklist_project_src": str(project.folder),
        "checklist_project_name": project.name,
        "checklist_stability": 1,
        "checklist_python": sys.executable,
        **more,
    }
    task = {"ansible.builtin.import_role": {"name": "shipshape.deploy.checklist"}}
    played = play(project.folder / "play", task, options=options, vars=variables)
    return played.rc, read(played), played.output


@pytest.fixture
def deployed(project: Project, busybox: str) -> Project:
    project.write({"services": {"db": DB, "app": APP}})
    project.compose("up", "-d")
    return project


def test_a_protected_database_is_left_alone_and_all_else_is_restarted(deployed: Project) -> None:
    before = {name: deployed.containers(name)[0]["Id"] for name in ("db", "app")}
    code, boxes, output = go(deployed, ["restart", "logs"], stack_protected_services=["db"])
    assert code == 0, output
    assert "1 containers replaced, db protected and left alone; app running" in boxes["restart"][1]
    after = {name: deployed.containers(name)[0]["Id"] for name in ("db", "app")}
    assert after["db"] == before["db"]
    assert after["app"] != before["app"]
    assert f"said by {deployed.name}-app-1" in boxes["logs"][1]
    # The next deploy finds nothing to do.
    task = {"shipshape.deploy.stack": {"project_src": str(deployed.folder), "project_name": deployed.name}}
    again = play(deployed.folder / "play", task).last
    assert (again["changed"], again["actions"]) == (False, [])


def test_one_that_is_allowed_is_replaced(deployed: Project) -> None:
    before = deployed.containers("db")[0]["Id"]
    chosen = {"stack_protected_services": ["db"], "stack_allow_protected": ["db"]}
    code, boxes, output = go(deployed, ["restart"], **chosen)
    assert code == 0, output
    assert "2 containers replaced;" in boxes["restart"][1]
    assert deployed.containers("db")[0]["Id"] != before


def test_an_application_that_does_not_stay_fails_beside_a_protected_database(deployed: Project) -> None:
    deployed.write({"services": {"db": DB, "app": {**APP, "command": ["sh", "-c", "exit 3"]}}})
    code, boxes, _ = go(deployed, ["restart", "logs"], stack_protected_services=["db"])
    assert code != 0
    assert boxes["restart"][0] == "failed"
    assert "app" in boxes["restart"][1]
    # The old one runs again, and had said its lines.
    assert boxes["logs"][0] == "passed"


def test_an_optional_service_may_fail(deployed: Project) -> None:
    failing = {**DB, "command": ["sh", "-c", "exit 3"]}
    deployed.write({"services": {"db": DB, "app": APP, "extra": failing}})
    code, _, output = go(deployed, ["restart"], stack_optional_services=["extra"])
    assert code == 0, output


def test_a_service_that_is_not_there_is_named_as_that(deployed: Project) -> None:
    code, boxes, _ = go(deployed, ["logs"], checklist_log_services=["pool", "web"])
    assert code != 0
    assert "the project has no service pool, web (it has app, db)" in boxes["logs"][1]


def test_a_service_that_was_not_started_is_named(deployed: Project) -> None:
    deployed.compose("rm", "-fs", "db")
    code, boxes, _ = go(
        deployed, ["logs"], checklist_log_services=["db", "app"], checklist_log_lines=["nobody says it"]
    )
    assert code != 0
    assert f"of {deployed.name}-app-1; db has no container that was started" in boxes["logs"][1]
    assert "Next: deploy the project" in boxes["logs"][1]
    assert "says other lines, name them in checklist_log_lines" in boxes["logs"][1]


def test_a_log_that_cannot_be_read_is_named_with_the_reason(project: Project, busybox: str) -> None:
    project.write({"services": {"app": {**APP, "depends_on": [], "logging": {"driver": "none"}}}})
    project.compose("up", "-d")
    code, boxes, _ = go(project, ["logs"])
    assert code != 0
    assert f"the log of {project.name}-app-1 cannot be read: " in boxes["logs"][1]
    assert "does not support reading" in boxes["logs"][1]


def test_lines_of_both_streams_are_read_in_their_order_and_shown_to_nobody(project: Project, busybox: str) -> None:
    says = "echo key=hunter-2; echo Initializing visitor pool...; sleep 1; echo Visitor pool ready >&2; exec sleep 1000"
    project.write({"services": {"app": {**APP, "depends_on": [], "command": ["sh", "-c", says]}}})
    project.compose("up", "-d", "--wait")
    deadline = time.monotonic() + 30
    while "ready" not in project.compose("logs", "app").stdout:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    code, boxes, output = go(project, ["logs"], options=["-vvv"])
    assert code == 0, output
    assert f"said by {project.name}-app-1" in boxes["logs"][1]
    assert "hunter-2" not in output


def test_images_that_come_from_elsewhere_are_told_by_their_ids(deployed: Project) -> None:
    code, boxes, output = go(deployed, ["build"])
    assert code == 0, output
    image = deployed.containers("app")[0]["Image"].removeprefix("sha256:")[:12]
    assert "no service is built here: " in boxes["build"][1]
    assert f"app is image {image}" in boxes["build"][1]
    assert "0 files" not in boxes["build"][1]


def test_a_build_of_which_nothing_can_be_compared_is_not_ticked(project: Project, busybox: str) -> None:
    (project.folder / "app").mkdir()
    (project.folder / "app/Dockerfile").write_text(DOCKERFILE)
    (project.folder / "app/version.txt").write_text("VERSION=1.2\n")
    app = {"image": f"{project.name}-app", "build": "app", "command": ["sleep", "9"]}
    project.write({"services": {"app": app}})
    code, boxes, output = go(project, ["build"])
    assert code == 0, output  # it was built just now
    assert f"image {project.name}-app built" in boxes["build"][1]
    code, boxes, _ = go(project, ["build"])
    assert code != 0
    assert "Of app no file could be compared" in boxes["build"][1]
    assert "checklist_baked_files" in boxes["build"][1]
    (project.folder / "app/Dockerfile").write_text(DOCKERFILE + "ADD version.txt /v/\n")
    named = [{"service": "app", "path": "/v/version.txt", "src": "app/version.txt"}]
    chosen = {"checklist_version_marker": "VERSION=(.*)", "stack_baked_files": named}
    for _ in range(2):
        code, boxes, output = go(project, ["build"], **chosen)
        assert code == 0, output
        assert "1 files compared with their sources; version 1.2" in boxes["build"][1]
