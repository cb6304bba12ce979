# SPDX-License-Identifier: GPL-3.0-or-later
"""The example as plain Compose runs it: pages, tasks, health, an end without loss. One stack for all tests here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.support.engine import Engine
from tests.support.studios import Studio, deployed, until


@pytest.fixture(scope="module")
def studio(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    with deployed(tmp_path_factory.mktemp("studio")) as stack:
        yield stack


def test_a_task_goes_from_the_form_through_the_worker_to_the_page(studio: Studio) -> None:
    task = studio.enqueue("chart", "ship shape ship <b>")
    until(lambda: studio.has_state(task, "done"))
    code, chart = studio.get(f"/media/charts/{task}.svg")
    assert (code, ">ship<" in chart) == (200, True)


def test_static_files_are_served(studio: Studio) -> None:
    style = re.search(r'href="(/static/core/studio\.[0-9a-f]+\.css)"', studio.get("/")[1])
    assert style
    assert studio.get(style[1])[0] == 200


def test_two_workers_share_the_queue_and_do_each_task_once(studio: Studio) -> None:
    studio.compose("up", "-d", "--no-deps", "--no-recreate", "--scale", "worker=2", "worker")
    try:
        tasks = [studio.enqueue("checksum", str(number)) for number in range(8)]
        until(lambda: all(studio.has_state(task, "done") for task in tasks))
        logs = studio.compose("logs", "--no-log-prefix", "worker").stdout
        assert [logs.count(f"Checksum #{task}: started (attempt 1)") for task in tasks] == [1] * len(tasks)
    finally:
        studio.compose("up", "-d", "--no-deps", "--no-recreate", "--scale", "worker=1", "worker")
        until(studio.well)


def test_pid_1_is_the_server_itself_without_rights(studio: Studio) -> None:
    shell = studio.compose("exec", "web", "sh", "-c", "tr '\\0' ' ' </proc/1/cmdline; id -u; touch /app/x", check=False)
    assert re.search(r"gunicorn .*studio\.wsgi", shell.stdout)
    assert shell.stdout.split()[-1] == "10001"
    assert "Read-only file system" in shell.stderr
    assert "ENTRYPOINT_VERSION=1.2.0 role=web" in studio.compose("logs", "web").stdout


def test_the_health_script_tells_0_1_2_and_3_apart(studio: Studio) -> None:
    code, report = studio.health_check()
    assert (code, report["status"], report["site"]["http"]) == (0, "ok", 200)
    found = {service["service"]: service["reason"] for service in report["services"]}
    ended = "ran once and ended well"
    assert found == {"db": "", "web": "", "worker": "", "proxy": "", "migrate": ended, "pool": ended}

    studio.compose("stop", "worker")
    code, report = studio.health_check()
    assert (code, report["status"]) == (1, "degraded")
    assert "exited" in next(service["reason"] for service in report["services"] if service["service"] == "worker")

    studio.compose("stop", "proxy")
    code, report = studio.health_check()
    assert (code, report["status"], report["site"]["verdict"]) == (2, "down", "down")

    studio.compose("start", "worker", "proxy")
    until(studio.well)


def test_the_health_script_says_so_when_it_cannot_tell(studio: Studio) -> None:
    code, report = studio.health_check(DOCKER_HOST="unix:///nowhere.sock")
    assert (code, report["status"]) == (3, "unknown")
    assert "nowhere.sock" in report["message"]
    for odd in ['a"b\\c\n\t\u20ac', "", "-x", "A", "$(id)"]:
        code, report = studio.health_check("--project", odd)
        assert (code, report["status"]) == (3, "unknown"), odd
    assert studio.health_check("--windows", "1")[0] == 3
    assert studio.health_check("--url")[0] == 3


def test_a_crash_loop_is_not_running_for_the_health_script(studio: Studio) -> None:
    """A bad flag of the console, which no page shows: the word for it is "running" or "restarting" by turns."""
    engine = Engine(env={**studio.engine.env, "STUDIO_CONSOLE_HIDE_LABEL": "*"})
    engine.compose(studio.folder, "--profile", "infra", "up", "-d", "--no-deps", "console")
    until(lambda: "error: expected NAME=VALUE got '*'" in studio.compose("logs", "console").stdout)
    until(lambda: studio.container("console")["RestartCount"] >= 2)
    code, report = studio.health_check()
    console = next(service for service in report["services"] if service["service"] == "console")
    assert (code, console["verdict"], console["reason"] != "") == (1, "degraded", True)

    studio.compose("--profile", "infra", "up", "-d", "--no-deps", "console")
    until(lambda: studio.container("console")["State"]["Health"]["Status"] == "healthy")
    ask = "import urllib.request as u; print(u.urlopen('http://localhost:9000/status.json').read().decode())"
    seen = json.loads(studio.compose("exec", "console", "python3", "-c", ask).stdout)
    assert [(target["name"], target["ok"]) for target in seen] == [("site", True), ("web", True), ("database", True)]
    studio.compose("--profile", "infra", "rm", "-fs", "console")


def test_a_replacement_that_never_started_is_named_and_takes_nothing_down(studio: Studio) -> None:
    studio.compose("up", "--no-start", "--no-recreate", "--no-deps", "--scale", "worker=2", "worker")
    code, report = studio.health_check()
    reasons = [service["reason"] for service in report["services"] if service["verdict"] != "ok"]
    assert (code, reasons) == (1, ["was made to replace another and never started"])
    studio.compose("up", "-d", "--no-recreate", "--no-deps", "--scale", "worker=1", "worker")
    until(studio.well)


def test_a_lost_database_is_down_and_comes_back_by_itself(studio: Studio) -> None:
    studio.compose("stop", "db")
    code, body = studio.get("/healthz")
    assert (code, json.loads(body)["status"]) == (503, "down")
    assert studio.get("/")[0] == 503
    studio.compose("start", "db")
    until(studio.well)
    task = studio.enqueue("checksum", "back again")
    until(lambda: studio.has_state(task, "done"))


def test_stopping_loses_nothing(studio: Studio) -> None:
    task = studio.enqueue("countdown", "20")
    until(lambda: studio.has_state(task, "running"))
    studio.compose("stop", "web", "worker", "db")
    for service in ("web", "worker", "db"):
        assert studio.container(service)["State"]["ExitCode"] == 0, service
    assert "given back, this worker is stopping" in studio.compose("logs", "worker").stdout
    assert "Shutting down: Master" in studio.compose("logs", "web").stdout
    studio.compose("start", "db", "web")
    until(lambda: studio.has_state(task, "queued"))
    studio.compose("start", "worker")


def test_the_applications_own_tests_pass_on_postgresql(studio: Studio) -> None:
    assert re.search(r"Ran \d{2,} tests", studio.own_tests("tests"))


@pytest.mark.long
def test_6400_visits_by_32_clients_get_no_slot_twice_no_error_and_are_never_falsely_refused(studio: Studio) -> None:
    said = studio.own_tests("tests.test_crowd", leases=6400)
    assert "6400 leases, 32 clients" in said
    assert "skipped" not in said
