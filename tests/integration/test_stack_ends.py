# SPDX-License-Identifier: GPL-3.0-or-later
"""How containers end: asked to stop as they want to be asked, found dead, never created, or not ours to remove."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.support.engine import BUSYBOX, Engine, Project
from tests.support.events import Events
from tests.support.stacks import Stack, codes, job, kinds, leaks, service


@pytest.fixture
def stack(project: Project) -> Stack:
    return Stack(project, {"stability": 1, "wait_timeout": 30})


# -- asked to stop (R57) ----------------------------------------------------------------------------------------------

SAYS = "trap 'echo asked to stop > /data/{0}; sleep 0.3; exit {1}' {2}; sleep 3600 & wait"
# Per service: its keys, the signal that PID 1 gets first, what it ends with, and how long that takes.
ENDS: dict[str, tuple[dict[str, Any], int, int, float]] = {
    "polite": (job(SAYS.format("polite", 0, "TERM"), volumes=["data:/data"], restart="always"), 15, 0, 0.3),
    "other": (job(SAYS.format("other", 7, "USR1"), volumes=["data:/data"], stop_signal="SIGUSR1"), 10, 7, 0.3),
    "patient": (job("trap 'sleep 1.5; exit 5' TERM; sleep 3600 & wait", stop_grace_period="20s"), 15, 5, 1.5),
    # PID 1 is a shell that has started the server without `exec`: nobody hears the signal.
    "deaf": (job("sleep 3600; true", stop_grace_period="1s"), 15, 137, 1),
    "at-once": (job("sleep 3600; true", stop_grace_period="0s"), 15, 137, 0),
}


@pytest.mark.parametrize("way", ["recreate", "stopped", "absent"])
def test_stopping(stack: Stack, way: str) -> None:
    top: dict[str, Any] = {"volumes": {"data": {}}}
    services = {name: keys for name, (keys, *_) in ENDS.items()}
    stack.write({**services, "reader": service(volumes=["data:/data"])}, **top)
    stack.deploy()
    old = {name: stack.container(name)["Id"] for name in ENDS}
    if way == "recreate":
        changed = {name: {**keys, "environment": {"A": "1"}} for name, keys in services.items()}
        stack.write({**changed, "reader": service(volumes=["data:/data"])}, **top)
    with Events(stack) as events:
        if way == "recreate":
            result = stack.deploy()
            said = stack.shell("reader", "cat /data/polite /data/other")
            assert said == "asked to stop\n" * 2
        else:
            result = stack.deploy(state=way)
    assert [at["subject"] for at in result["findings"] if at["code"] == "container-killed"] == ["deaf"]
    for name, (_keys, signal, code, seconds) in ENDS.items():
        asked, ended = events.one("kill", old[name]), events.one("die", old[name])
        assert (asked.signal, ended.code) == (signal, code), name
        # Below the ten seconds that the engine gives by itself, with room for a machine that is busy.
        assert seconds <= ended.at - asked.at + 0.05 < seconds + 8, f"{name}: {ended.at - asked.at:.1f} s"


# -- found dead, or never there (R103, R104) --------------------------------------------------------------------------


def test_a_worker_that_is_never_created_or_never_stays(stack: Stack) -> None:
    """`docker compose up` fails silently for a worker: here its state, exit code and last lines are told, and that
    it is not there."""
    password = f"pw-{stack.name}"
    crying = "i=0; while [ $i -lt 60 ]; do echo line $i of $DB_PASSWORD; i=$((i+1)); done; exit 42"
    worker = job(crying, environment={"DB_PASSWORD": password})
    stack.write({"web": service(), "worker": worker})
    for _ in range(2):
        result = stack.fails()
        assert "exited with code 42" in result["msg"]
        assert f"{stack.name}-worker-1" in result["msg"]
        [lines] = result["logs"].values()
        assert lines[-1] == "line 59 of ***"
        assert 10 <= len(lines) <= 100
        assert result["services"]["worker"]["state"] == "missing"
        assert stack.running() == stack.names("web") == stack.containers().keys()
    info = stack.run("stack_info")
    assert [(at["service"], at["kind"]) for at in info["drift"]] == [("worker", "missing")]
    assert not leaks([password], *stack.printed)


def test_a_container_that_has_died_is_started_and_told_when_it_dies_again(stack: Stack) -> None:
    """`docker_container` with `state: healthy` calls one healthy that has exited with 3 (PEERS)."""
    stack.write({"web": job("echo out of licences; exit 3"), "db": service()})
    stack.project.compose("up", "-d")
    stack.api.wait(stack.container("web")["Id"])
    db = stack.identities("db")
    result = stack.fails()
    assert [(at["kind"], at["found"], at["action"]) for at in result["drift"]] == [("state", "exited (3)", "start")]
    assert "exited with code 3" in result["msg"]
    assert "out of licences" in str(result["logs"])
    assert result["services"]["web"]["state"] == "exited"
    assert result["services"]["web"]["containers"][0]["exit_code"] == 3
    assert stack.identities("db") == db


@pytest.mark.parametrize("keys", [{"runtime": "no-such-runtime"}, {"devices": ["/dev/no-such-device"]}], ids=str)
def test_a_replacement_that_cannot_even_be_made(stack: Stack, keys: dict[str, Any]) -> None:
    """`docker_container` has removed the old container by then, and reports `changed: false` (PEERS)."""
    stack.write({"web": service(), "db": service()})
    stack.deploy()
    old = {name: document["Id"] for name, document in stack.containers().items()}
    stack.write({"web": service(**keys), "db": service()})
    result = stack.fails()
    assert {name: document["Id"] for name, document in stack.containers().items()} == old
    assert stack.running() == stack.names("web", "db")
    assert "no-such" in result["msg"]


def test_one_broken_of_three_then_mended(stack: Stack) -> None:
    """Nothing is down, the task fails, and one more run after mending converges (`up -d`: 2 of 3 down)."""
    stack.write({at: service() for at in ("api", "web", "worker")})
    stack.deploy()
    old = stack.identities()
    change = {"environment": {"A": "1"}}
    broken = job("echo no such table; exit 1", **change)
    stack.write({"api": service(**change), "web": service(**change), "worker": broken})
    with Events(stack) as events:
        result = stack.fails()
    assert "no such table" in result["msg"]
    assert stack.running() == old.keys() == stack.containers().keys()
    done = {target for action, target in kinds(result) if action == "recreate"}
    stack.write({at: service(**change) for at in ("api", "web", "worker")})
    after, _ = stack.predicted()
    assert {target for _action, target, _reason in after} == old.keys() - done
    assert all("A=1" in document["Config"]["Env"] for document in stack.containers().values())
    assert not set(stack.identities().values()) & set(old.values())
    assert events.of("start")
    stack.up_finds_nothing_to_do()


# -- the seed's case --------------------------------------------------------------------------------------------------

FLAGS = """
for flag in "$@"; do
  case "$flag" in --hide-label=*=*) ;; --hide-label=*)
    echo "error: expected NAME=VALUE got '${flag#--hide-label=}'"; exit 1;; esac
done
trap 'exit 143' TERM; sleep 3600 & wait
"""


def console(*flags: str) -> dict[str, Any]:
    command = ["sh", "-c", FLAGS.replace("$", "$$"), "console", *flags]
    return {"image": BUSYBOX, "command": command, "restart": "always", "volumes": ["console:/data"]}


@pytest.mark.parametrize("maker", ["compose", "ours"])
def test_the_console_in_a_restart_loop(stack: Stack, engine: Engine, maker: str) -> None:
    """Seed S4: "running" for weeks, in a loop on a bad flag. With the flag gone from the file the console alone is
    recreated, its volume kept, and one whose name begins with its own is another container."""
    others = {"web": service(), "db": service(volumes=["data:/data"]), "console-agent": service()}
    top: dict[str, Any] = {"volumes": {"data": {}, "console": {}}}
    if maker == "ours":
        stack.write({"console": console("--hide-label=a=b"), **others}, **top)
        stack.deploy()
        engine.docker("exec", f"{stack.name}-console-1", "sh", "-c", "echo kept > /data/settings")
    stack.write({"console": console("--hide-label=*"), **others}, **top)
    stack.project.compose("up", "-d")
    deadline = time.monotonic() + 20
    while stack.container("console")["RestartCount"] < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    rest = stack.identities("web", "db", "console-agent")
    result = stack.run(restless=True)
    assert result.get("failed"), "a crash loop passed for a success"
    assert "error: expected NAME=VALUE got '*'" in result["msg"]
    assert stack.identities("web", "db", "console-agent") == rest

    stack.write({"console": console(), **others}, **top)
    foretold = stack.run(check=True, restless=True)
    result = stack.run(restless=True)
    assert not result.get("failed"), result
    assert kinds(result) == kinds(foretold) == {("recreate", f"{stack.name}-console-1")}
    assert stack.identities("web", "db", "console-agent") == rest
    assert stack.container("console")["RestartCount"] == 0
    assert stack.running() == stack.containers().keys() == stack.names(*others, "console")
    if maker == "ours":
        assert stack.shell("console", "cat /data/settings") == "kept\n"
    stack.unchanged()
    stack.up_finds_nothing_to_do()


# -- names that look like ids -----------------------------------------------------------------------------------------


def test_a_name_that_is_the_beginning_of_another_container_s_id(stack: Stack, engine: Engine) -> None:
    """`docker_container` with `state: absent` removed the container whose id began like that (PEERS)."""
    run = ["run", "-d", "--stop-signal", "KILL", "--name"]
    victim = engine.docker(*run, f"{stack.name}-victim", BUSYBOX, "sleep", "3600").stdout.strip()
    before = stack.api.inspect_container(victim)["State"]
    for length in (64, 12):
        alike = victim[:length]
        # As a project's name, with nothing of the kind there; then as a container's name.
        result = stack.deploy(state="absent", project_src=None, project_name=alike)
        assert (result["changed"], result["actions"]) == (False, [])
        stack.write({"web": service(container_name=alike)})
        if length == 12:
            stack.predicted()
            assert stack.containers().keys() == {alike}
            stack.write({"web": service(container_name=alike, environment={"A": "1"})})
            stack.predicted()
        for state in ("stopped", "absent"):
            stack.deploy(state=state)
        assert not stack.containers()
        assert stack.api.inspect_container(victim)["State"] == before, "the wrong container was touched"
    assert not codes(result) & {"network-in-use"}
