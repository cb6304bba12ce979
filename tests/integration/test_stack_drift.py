# SPDX-License-Identifier: GPL-3.0-or-later
"""Every kind of drift on a real engine: seen by looking, named, predicted, ended, and nobody else touched.

What is wrong here is wrong in the live container or in a file, and in no label: `docker compose up -d`,
`docker_container` and Kamal see none of it (PEERS). Fields of the definition are in test_stack_fields.py, files in
test_stack_contents.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.engine import BUSYBOX, Engine, Project
from tests.support.stacks import Drift, Stack, check, codes, job, kinds, service, told


@pytest.fixture
def stack(project: Project) -> Stack:
    return Stack(project)


# -- runtime ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ByHand:
    """What somebody does to a running container with the docker command, and what is to be seen of it."""

    words: tuple[tuple[str, ...], ...]  # {it}: the container, {project}: the project's name
    fields: tuple[str, ...]
    keys: dict[str, Any]
    action: str = "recreate"


AWAY, BACK = ("network", "disconnect", "{project}_default", "{it}"), ("network", "connect", "{project}_default", "{it}")
ADDRESS = {"networks": {"fixed": {"ipv4_address": "10.213.77.10"}}}
BY_HAND = {
    "shares": ByHand((("update", "--cpu-shares", "512", "{it}"),), ("cpu_shares",), {}),
    "cpus": ByHand((("update", "--cpus", "0.5", "{it}"),), ("cpus",), {"cpus": "0.75"}),
    "memory": ByHand(
        (("update", "--memory", "64m", "--memory-swap", "128m", "{it}"),), ("mem_limit", "memswap_limit"), {}
    ),
    "deployed": ByHand(
        (("update", "--memory", "32m", "--memory-swap", "64m", "{it}"),),
        ("mem_limit", "memswap_limit"),
        {"deploy": {"resources": {"limits": {"memory": "48m"}}}},
    ),
    "pids": ByHand((("update", "--pids-limit", "50", "{it}"),), ("pids_limit",), {}),
    "policy": ByHand((("update", "--restart", "always", "{it}"),), ("restart",), {}),
    "no-policy": ByHand((("update", "--restart", "no", "{it}"),), ("restart",), {"restart": "unless-stopped"}),
    "cut-off": ByHand((AWAY,), ("networks.default",), {"networks": ["default", "back"]}),
    "connected": ByHand((("network", "connect", "{project}_back", "{it}"),), ("networks.back",), {}),
    "nameless": ByHand((AWAY, BACK), ("networks.default.aliases",), {}),
    "alias": ByHand(
        (AWAY, (*BACK[:2], "--alias", "alias", *BACK[2:])),
        ("networks.default.aliases",),
        {"networks": {"default": {"aliases": ["api"]}}},
    ),
    "moved": ByHand(
        (
            ("network", "disconnect", "{project}_fixed", "{it}"),
            ("network", "connect", "--alias", "moved", "--ip", "10.213.77.11", "{project}_fixed", "{it}"),
        ),
        ("networks.fixed.ipv4_address",),
        ADDRESS,
    ),
    "renamed": ByHand((("rename", "{it}", "{project}-by-hand"),), ("container_name",), {}, "rename"),
    "and-back": ByHand(
        (("update", "--cpu-shares", "512", "{it}"), ("update", "--cpu-shares", "300", "{it}")), (), {"cpu_shares": 300}
    ),
    "restarted": ByHand((("restart", "{it}"),), (), {}),
}


def test_what_was_changed_by_hand(stack: Stack, engine: Engine) -> None:
    fixed = {"ipam": {"config": [{"subnet": "10.213.77.0/24"}]}}
    services = {name: service(**case.keys) for name, case in BY_HAND.items()}
    services["holder"] = service(networks=["back"])
    stack.write(services, networks={"default": {}, "back": {}, "fixed": fixed})
    stack.deploy()
    expected: Drift = set()
    for name, case in BY_HAND.items():
        names = {"it": f"{stack.name}-{name}-1", "project": stack.name}
        for words in case.words:
            engine.docker(*(word.format(**names) for word in words))
        expected |= {(name, "runtime", field, case.action) for field in case.fields}
    assert f"{stack.name}-by-hand" in stack.containers()

    result = stack.ends(expected)

    assert stack.containers().keys() == stack.names(*services) == stack.running()
    stack.up_finds_nothing_to_do()
    values = {(at["service"], at["field"]): (at["wanted"], at["found"]) for at in result["drift"]}
    assert values["shares", "cpu_shares"] == (None, 512)
    assert values["cpus", "cpus"] == (0.75, 0.5)
    assert values["policy", "restart"] == (None, "always")
    assert values["no-policy", "restart"] == ("unless-stopped", None)
    live = {name: stack.container(name) for name in BY_HAND}
    assert live["shares"]["HostConfig"]["CpuShares"] == 0
    assert live["no-policy"]["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    assert live["connected"]["NetworkSettings"]["Networks"].keys() == {f"{stack.name}_default"}
    assert live["moved"]["NetworkSettings"]["Networks"][f"{stack.name}_fixed"]["IPAddress"] == "10.213.77.10"
    assert stack.shell("shares", "nslookup nameless && nslookup api")


# -- state, missing, orphan -------------------------------------------------------------------------------------------


def test_what_does_not_run_or_is_not_there(stack: Stack, engine: Engine) -> None:
    polite = job("trap 'exit 0' TERM; sleep 3600 & wait")
    fine = {"fine": service(), "done": job("true"), "restarted": service()}
    wrong = {"killed": service(), "polite": polite, "paused": service(), "gone": service()}
    stack.write({**fine, **wrong})
    stack.deploy()
    finished = stack.identities("done")
    for words in (
        ["kill", "killed"],
        ["stop", "polite"],
        ["pause", "paused"],
        ["rm", "-f", "gone"],
        ["restart", "restarted"],
    ):
        engine.docker(*words[:-1], f"{stack.name}-{words[-1]}-1")
    stack.write({**fine, **wrong, "made": service()})
    stack.project.compose("create", "--no-recreate", "made")
    assert stack.container("made")["State"]["Status"] == "created"

    result = stack.ends(
        {
            ("killed", "state", "state", "start"),
            ("polite", "state", "state", "start"),
            ("paused", "state", "state", "unpause"),
            ("made", "state", "state", "start"),
            ("gone", "missing", "container", "create"),
        },
    )
    found = {at["service"]: at["found"] for at in result["drift"]}
    assert found == {
        "killed": "exited (137)",
        "polite": "exited (0)",
        "paused": "paused",
        "made": "created",
        "gone": None,
    }
    assert stack.running() == stack.names("fine", "restarted", *wrong, "made")
    assert stack.identities("done") == finished

    stack.write({**fine, **wrong})
    assert told(stack.deploy()) == {("made", "orphan", "service", "none")}
    assert stack.running() >= stack.names("made")
    done, result = stack.predicted(remove_orphans=True)
    assert told(result) == {("made", "orphan", "service", "remove")}
    assert kinds(done) == {("remove", f"{stack.name}-made-1")}


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


def test_unhealthy_is_told_at_once_and_left_alone(stack: Stack) -> None:
    """And one that recovers by itself has nothing done to it."""
    stack.write({"web": service("touch /tmp/well", healthcheck=check("test -e /tmp/well || ! echo no answer"))})
    stack.deploy()
    before = stack.identities()
    stack.shell("web", "rm /tmp/well")
    until(lambda: stack.container("web")["State"]["Health"]["Status"] == "unhealthy")
    begun = time.monotonic()
    result = stack.fails(wait_timeout=60)
    assert time.monotonic() - begun < 10, "it waited for the time-out"
    assert (result["changed"], told(result)) == (False, {("web", "state", "state", "watch")})
    assert [at["found"] for at in result["drift"]] == ["unhealthy"]
    assert "container-unhealthy" in codes(result)
    assert "no answer" in str(result["logs"])
    assert result["services"]["web"]["state"] == "unhealthy"
    stack.shell("web", "touch /tmp/well")
    until(lambda: stack.container("web")["State"]["Health"]["Status"] == "healthy")
    stack.unchanged()
    assert stack.identities() == before


ONCE = "if mkdir /data/once; then sleep 0.2; echo no database yet; exit 1; fi"


def test_one_that_was_restarted_a_moment_ago_is_watched(stack: Stack) -> None:
    """It may be in a crash loop: only a whole window tells. Here it is not, and nothing is done to it."""
    stack.write({"web": service(ONCE, restart="always", volumes=["data:/data"])}, volumes={"data": {}})
    stack.project.compose("up", "-d")
    until(lambda: stack.container("web")["RestartCount"] == 1 and stack.running() == stack.names("web"))
    before = stack.identities()
    begun = time.monotonic()
    result = stack.deploy(stability=3)
    assert time.monotonic() - begun > 2.5, "nobody watched it"
    assert [(at["kind"], at["found"], at["action"]) for at in result["drift"]] == [("state", "flapping", "watch")]
    assert (result["changed"], result["actions"], stack.identities()) == (False, [], before)


def test_containers_that_have_failed_are_no_success(stack: Stack) -> None:
    """One of two replicas has exited, or is restarting; one without healthcheck has exited with 3: `up --wait` and
    `state: healthy` call all of these well (PEERS)."""
    claim = "mkdir /data/first && sleep 3600; sleep 0.1; echo second to none; exit 3"
    two = job(claim, volumes=["data:/data"], deploy={"replicas": 2})
    top: dict[str, Any] = {"volumes": {"data": {}}}
    for policy, found in (({}, "exited (3)"), ({"restart": "always"}, None)):
        stack.write({"web": {**two, **policy}, "db": service()}, **top)
        stack.project.compose("up", "-d")
        until(lambda: any(at["State"]["ExitCode"] == 3 for at in stack.containers("web").values()))
        db = stack.identities("db")
        result = stack.run(restless=True)
        assert result.get("failed"), f"one of two is down, and yet: {result['services']}"
        assert "second to none" in str(result["logs"])
        assert not found or found in {at["found"] for at in result["drift"]}
        assert stack.identities("db") == db
        stack.project.compose("down", "-v", "-t", "0")


# -- image ------------------------------------------------------------------------------------------------------------


def test_a_tag_that_means_another_image_now(stack: Stack, engine: Engine) -> None:
    tags = [f"{stack.name}-app:{tag}" for tag in ("1", "2", "other")]
    engine.docker("create", "--name", f"{stack.name}-seed", BUSYBOX)
    for tag in tags:
        engine.docker("commit", "--change", f"ENV TAG={tag}", f"{stack.name}-seed", tag)
    engine.docker("rm", f"{stack.name}-seed")
    stack.write({"web": service(image=tags[0]), "also": service(image=tags[0]), "other": service(image=tags[2])})
    stack.deploy()
    ids = {tag: stack.api.inspect_image(tag)["Id"] for tag in tags}
    engine.docker("tag", tags[1], tags[0])
    result = stack.ends({(at, "image", tags[0], "recreate") for at in ("web", "also")})
    assert {stack.container(at)["Image"] for at in ("web", "also")} == {ids[tags[1]]}
    assert stack.container("other")["Image"] == ids[tags[2]]
    assert {(at["found"], at["wanted"]) for at in result["drift"]} == {
        (ids[tags[0]].removeprefix("sha256:")[:12], ids[tags[1]].removeprefix("sha256:")[:12])
    }
    stack.up_finds_nothing_to_do()
