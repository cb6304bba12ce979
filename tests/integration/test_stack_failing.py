# SPDX-License-Identifier: GPL-3.0-or-later
"""Module `stack` where a replacement fails: the old container stays or comes back, nobody else goes down, and what was
wrong is said."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.support.engine import BUSYBOX, Engine, Project
from tests.support.stacks import Stack, check, codes, job, kinds, service


@pytest.fixture
def stack(project: Project) -> Stack:
    return Stack(project)


BROKEN = {
    "exits": (job("echo starting; sleep 0.1; echo cannot open the ledger >&2; exit 1"), "container-exited"),
    "crash-loop": (job("echo cannot open the ledger; exit 1", restart="always"), "container-restarting"),
    "crash-loop-later": (
        job("sleep 0.3; echo cannot open the ledger; exit 0", restart="always"),
        "container-restarting",
    ),
    "unhealthy": (service("echo cannot open the ledger", healthcheck=check("exit 1")), "container-unhealthy"),
    "never-healthy": (
        service("echo cannot open the ledger", healthcheck=check("exit 1", start_period="600s")),
        "container-not-ready",
    ),
    "no-such-command": ({"image": BUSYBOX, "command": ["/no/such/file"]}, "command-not-executable"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_failed_replacement_leaves_the_old_container_running(stack: Stack, case: str) -> None:
    broken, code = BROKEN[case]
    stack.write({"web": service(), "db": service()})
    stack.deploy()
    old, others = stack.container("web"), stack.identities("db")
    stack.write({"web": broken, "db": service()})

    result = stack.fails(wait_timeout=2)

    assert stack.containers().keys() == stack.names("web", "db"), "something was left behind, or is missing"
    now = stack.container("web")
    assert now["Id"] == old["Id"]
    assert now["State"]["Status"] == "running"
    assert stack.identities("db") == others
    assert code in codes(result)
    assert f"{stack.name}-web-1" in result["msg"]
    if code != "command-not-executable":
        assert "cannot open the ledger" in result["msg"], "the message lacks the container's last words"
        [lines] = result["logs"].values()
        assert "cannot open the ledger" in lines
    else:
        assert "/no/such/file" in result["msg"]
    assert result["services"]["web"]["containers"][0]["id"] == old["Id"][:12]
    assert result["services"]["web"]["state"] == "running"

    stack.write({"web": service(environment={"MENDED": "1"}), "db": service()})
    done, _ = stack.predicted()
    assert kinds(done) == {("recreate", f"{stack.name}-web-1")}


def test_failed_first_deploy_heals_by_one_more(stack: Stack) -> None:
    top: dict[str, Any] = {"volumes": {"data": {}}}
    stack.write({"web": job("echo no configuration; exit 3", volumes=["data:/data"]), "db": service()}, **top)
    result = stack.fails()
    assert "exited with code 3" in result["msg"]
    assert "no configuration" in result["msg"]
    assert stack.running() == stack.names("db")
    assert not stack.containers("web"), "half a container was left"
    assert f"volume {stack.name}_data" in stack.snapshot()
    assert f"network {stack.name}_default" in stack.snapshot()
    db = stack.identities("db")

    stack.write({"web": service(volumes=["data:/data"]), "db": service()}, **top)
    done, _ = stack.predicted()
    assert kinds(done) == {("create", f"{stack.name}-web-1")}
    assert stack.running() == stack.names("web", "db")
    assert stack.identities("db") == db


def test_one_broken_service_of_three_takes_nobody_along(stack: Stack) -> None:
    """`docker compose up -d` leaves two of three down here (PEERS)."""
    stack.write({at: service() for at in ("api", "broken", "web")})
    stack.deploy()
    old = stack.identities()
    change = {"environment": {"A": "1"}}
    stack.write({"api": service(**change), "broken": job("echo nope; exit 1", **change), "web": service(**change)})
    result = stack.fails()
    assert stack.running() == old.keys() == stack.containers().keys()
    assert stack.container("broken")["Id"] == old[f"{stack.name}-broken-1"][0]
    assert "broken" in result["msg"]
    assert "nope" in result["msg"]
    for at in ("api", "web"):
        done = stack.container(at)["Id"] != old[f"{stack.name}-{at}-1"][0]
        assert done == (("recreate", f"{stack.name}-{at}-1") in kinds(result)), "its report is not what became of it"


def test_dependents_of_a_failed_service_are_left_alone(stack: Stack) -> None:
    def services(db: dict[str, Any], **change: Any) -> dict[str, Any]:
        web = service(depends_on={"db": {"condition": "service_healthy"}}, **change)
        return {"db": db, "web": web, "proxy": service(depends_on=["web"], **change), "other": service(**change)}

    stack.write(services(service(healthcheck=check("true"))))
    stack.deploy()
    old = stack.identities()
    stack.write(services(service(healthcheck=check("echo no space; false")), environment={"A": "1"}))
    result = stack.fails()
    now = stack.identities()
    for at in stack.names("web", "proxy"):
        assert now[at] == old[at], f"{at} was touched"
    assert now[f"{stack.name}-db-1"][0] == old[f"{stack.name}-db-1"][0]
    assert now[f"{stack.name}-other-1"][0] != old[f"{stack.name}-other-1"][0], "it has nothing to do with the database"
    assert stack.containers().keys() == old.keys() == stack.running()
    assert {at["subject"] for at in result["findings"] if at["code"] == "service-skipped"} == {"web", "proxy"}
    assert "healthcheck: no space" in [line for lines in result["logs"].values() for line in lines]


def test_a_dependency_that_does_not_complete(stack: Stack) -> None:
    stack.write(
        {
            "migrate": job("echo relation does not exist; exit 4"),
            "web": service(depends_on={"migrate": {"condition": "service_completed_successfully"}}),
        }
    )
    result = stack.fails()
    assert not stack.containers("web")
    assert "exited with code 4" in result["msg"]
    assert "relation does not exist" in result["msg"]


def test_a_crash_loop_found_on_arrival_fails_the_task(stack: Stack) -> None:
    """The engine calls it running; `docker compose up -d` and `docker_container` report success (PEERS)."""
    stack.write({"web": job("sleep 0.2; echo still no database; exit 1", restart="always"), "db": service()})
    stack.project.compose("up", "-d")
    deadline = time.monotonic() + 20
    while stack.container("web")["RestartCount"] < 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    while stack.container("web")["State"]["Status"] != "restarting" and time.monotonic() < deadline:
        time.sleep(0.05)
    db, ids = stack.identities("db"), {name: at["Id"] for name, at in stack.containers().items()}
    result = stack.run(restless=True)
    assert result.get("failed"), "a crash loop passed for a success"
    assert "container-restarting" in codes(result)
    assert "still no database" in result["msg"]
    assert [line for lines in result["logs"].values() for line in lines]
    assert stack.identities("db") == db
    assert {name: at["Id"] for name, at in stack.containers().items()} == ids
    info = stack.run("stack_info", restless=True)
    assert info["drift"], "stack_info sees nothing wrong with a crash loop"


def test_port_in_use(stack: Stack, engine: Engine) -> None:
    taken = engine.docker("run", "-d", "--name", f"{stack.name}x", "-p", "127.0.0.1::80", BUSYBOX, "sleep", "600")
    port = stack.api.inspect_container(taken.stdout.strip())["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"]
    stack.write({"web": service()})
    stack.deploy()
    old = stack.container("web")["Id"]
    stack.write({"web": service(ports=[f"127.0.0.1:{port}:80"])})
    result = stack.fails()
    assert "port-in-use" in codes(result)
    assert port in result["msg"]
    assert stack.container("web")["Id"] == old
    assert stack.running() == stack.names("web")
