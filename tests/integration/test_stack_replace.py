# SPDX-License-Identifier: GPL-3.0-or-later
"""How containers are replaced: `deploy.update_config` honoured, nothing destroyed before its successor is proven.

What happened in between is read off the engine's own stream of events, which misses nothing between two looks.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.support.engine import Project
from tests.support.events import Events
from tests.support.stacks import Stack, check, codes, job, kinds, service
from tests.support.transports import free_port


@pytest.fixture
def stack(project: Project) -> Stack:
    return Stack(project, {"stability": 1, "wait_timeout": 30})


DATA: dict[str, Any] = {"volumes": {"data": {}}}


def updated(script: str = "", replicas: int = 1, **update: str | int) -> dict[str, Any]:
    """A service whose update_config is `update`."""
    return service(script, deploy={"replicas": replicas, "update_config": update}, volumes=["data:/data"])


def ids(stack: Stack, name: str) -> list[str]:
    """The containers of service `name` by number."""
    return [document["Id"] for document in stack.containers(name).values()]


# -- order ------------------------------------------------------------------------------------------------------------


def test_stop_first_keeps_the_old_one_until_the_new_one_is_proven(stack: Stack) -> None:
    stack.write({"web": service(), "db": service()})
    stack.deploy()
    [old], db = ids(stack, "web"), stack.identities("db")
    stack.write({"web": service(environment={"A": "1"}), "db": service()})
    with Events(stack) as events:
        stack.predicted()
    [new] = ids(stack, "web")
    stopped, started, gone = events.one("die", old), events.one("start", new), events.one("destroy", old)
    assert events.one("create", new).at < stopped.at, "the old one was stopped before there was anything to replace it"
    assert stopped.at < started.at
    assert gone.at - started.at >= 1, "the old one was removed before the window of stability was over"
    assert not events.of("stop", "die", "rename", ids=[at[0] for at in db.values()])
    assert stack.identities("db") == db


def test_stop_first_brings_the_old_one_back(stack: Stack) -> None:
    stack.write({"web": service()})
    stack.deploy()
    [old] = ids(stack, "web")
    stack.write({"web": service("sleep 0.3; echo bad migration; exit 1")})
    with Events(stack) as events:
        result = stack.fails()
    [failed] = {event.id for event in events.of("create")}
    assert events.one("start", failed).at < events.one("destroy", failed).at < events.one("start", old).at + 5
    assert not events.of("destroy", ids=[old])
    assert ids(stack, "web") == [old]
    assert stack.running() == stack.names("web") == stack.containers().keys()
    assert ("rollback", f"{stack.name}-web-1") in kinds(result)
    assert ["bad migration"] in result["logs"].values(), "the candidate's logs are gone with it"


# Asks every address that the name has, as a browser or a proxy does, 20 times a second; what nobody answered is
# "nobody". The first address alone is what a client gets that does not try the next.
ASK = """
ask() { timeout 1 wget -q -O - http://$1:8080/version; }
while :; do
  all=$(nslookup web 127.0.0.11 | awk '/^Name/ {named = 1} named && /^Address/ {print $NF}') first= said=
  for ip in $all; do said=$(ask $ip) && break; first=refused; done
  echo "${said:-nobody}" >> /tmp/answers
  echo "${first:-answered}" >> /tmp/first
  sleep 0.05
done &
"""


def page(text: str, late: float = 0) -> str:
    return f"sleep {late}; mkdir -p /tmp/www; echo {text} > /tmp/www/version; httpd -p 8080 -h /tmp/www"


def test_start_first_serves_at_every_moment(stack: Stack) -> None:
    """The old one serves until the new one is stable, which here takes its time; a fixed name is no obstacle."""
    name = f"{stack.name}-the-web"
    start_first = {"deploy": {"update_config": {"order": "start-first"}}, "container_name": name}
    well = {"healthcheck": check("wget -q -O - http://127.0.0.1:8080/version", start_period="10s")}
    stack.write({"web": service(page("v1"), **start_first, **well), "client": service(ASK)})
    stack.deploy()
    old, client = stack.containers()[name]["Id"], stack.identities("client")
    stack.shell("client", "for i in $(seq 100); do grep -q v1 /tmp/answers && exit; sleep 0.1; done; false")
    stack.shell("client", "echo > /tmp/answers; echo > /tmp/first")
    stack.write({"web": service(page("v2", late=1), **start_first, **well), "client": service(ASK)})
    with Events(stack) as events:
        stack.predicted()
    new = stack.containers()[name]["Id"]
    stack.shell("client", "tail -n 3 /tmp/answers | grep -q v2")
    answers = stack.shell("client", "cat /tmp/answers").split()
    refused = stack.shell("client", "cat /tmp/first").split().count("refused")
    print(f"{len(answers)} requests, {answers.count('nobody')} unanswered; first address refused {refused} of them")
    assert {*answers} == {"v1", "v2"}, f"{answers.count('nobody')} of {len(answers)} requests found nobody"
    assert len(answers) > 20
    assert events.one("die", old).at - events.one("start", new).at >= 1, "the old one was stopped too early"
    assert all(running for _at, running in events.running([old], "web")), "there was a moment without any"
    assert stack.identities("client") == client
    assert stack.containers().keys() == {name, f"{stack.name}-client-1"}
    stack.up_finds_nothing_to_do()


def test_start_first_that_fails_never_touched_the_old_one(stack: Stack) -> None:
    stack.write({"web": updated(order="start-first"), "db": service()}, **DATA)
    stack.deploy()
    before = stack.identities()
    stack.write({"web": updated("sleep 0.3; echo no; exit 1", order="start-first"), "db": service()}, **DATA)
    with Events(stack) as events:
        result = stack.fails()
    assert not events.of("kill", "stop", "die", ids=[at[0] for at in before.values()])
    assert stack.identities() == before
    assert ["no"] in result["logs"].values()


def test_start_first_with_a_port_of_the_host_is_refused_in_the_plan(stack: Stack) -> None:
    port = free_port()

    def web(**keys: Any) -> dict[str, Any]:
        return {**updated(order="start-first"), "ports": [f"127.0.0.1:{port}:80"], **keys}

    stack.write({"web": web(), "db": service()}, **DATA)
    stack.deploy()  # there is nothing to replace yet
    stack.write({"web": web(environment={"A": "1"}), "db": service(environment={"A": "1"})}, **DATA)
    for mode in (True, False):
        with Events(stack) as events:
            result = stack.fails(check=mode)
        assert not events.all, "something was touched"
        assert not result["changed"]
        [finding] = [at for at in result["findings"] if at["code"] == "start-first-port"]
        assert str(port) in finding["message"]
        assert "stop-first" in finding["remedy"]
    dynamic = {**web(environment={"A": "1"}), "ports": ["127.0.0.1::80"]}
    stack.write({"web": dynamic, "db": service()}, **DATA)
    stack.predicted()  # any free port will do: both can have one


# -- how many at a time -----------------------------------------------------------------------------------------------


def test_parallelism_and_delay(stack: Stack) -> None:
    rolling: dict[str, Any] = {"replicas": 3, "parallelism": 2, "delay": "1s", "monitor": "700ms"}
    stack.write({"web": updated(**rolling), "one": updated(**{**rolling, "parallelism": 1})}, **DATA)
    stack.deploy()
    before = {name: ids(stack, name) for name in ("web", "one")}
    stack.write({"web": updated("true", **rolling), "one": updated("true", **{**rolling, "parallelism": 1})}, **DATA)
    with Events(stack) as events:
        stack.predicted()
    for name, least, groups in (("web", 1, [2, 1]), ("one", 2, [1, 1, 1])):
        counts = [len(running) for _at, running in events.running(before[name], name)]
        assert min(counts) == least, f"{name}: {counts}"
        starts = [event.at for event in events.of("start", service=name)]
        # A group begins when the one before it has been stable for its 0.7 s, and after a delay of 1 s.
        pauses = [later - earlier for earlier, later in zip(starts, starts[1:], strict=False)]
        sizes = [1]
        for pause in pauses:
            sizes[-1:] = [sizes[-1] + 1] if pause < 1 else [sizes[-1], 1]
        assert sizes == groups, f"{name}: {starts}"
        assert all(pause >= 1.7 for pause in pauses if pause >= 1), f"{name}: {pauses}"
        assert not {*before[name]} & {*ids(stack, name)}


SECOND_FAILS = "if mkdir /data/{0}1; then true; elif mkdir /data/{0}2; then sleep 0.2; echo I am the second; exit 1; fi"


@pytest.mark.parametrize(
    ("update", "options", "stays"),
    [
        ({}, {}, [True, True, True]),
        ({"failure_action": "rollback"}, {}, [True, True, True]),
        ({"failure_action": "pause"}, {}, [False, True, True]),
        ({"failure_action": "continue"}, {}, [False, True, False]),
        ({}, {"rollback": False}, [False, True, True]),
        ({"order": "start-first"}, {}, [True, True, True]),
    ],
    ids=["default", "rollback", "pause", "continue", "module says no rollback", "start-first"],
)
def test_failure_action(stack: Stack, update: dict[str, Any], options: dict[str, Any], stays: list[bool]) -> None:
    """Of three, one after the other, the second fails."""
    update = {"parallelism": 1, "monitor": "500ms", **update}
    stack.write({"web": updated(replicas=3, **update)}, **DATA)
    stack.deploy(stability=0.2)
    old = ids(stack, "web")
    stack.write({"web": updated(SECOND_FAILS.format("a"), replicas=3, **update)}, **DATA)
    result = stack.fails(**options)
    now = ids(stack, "web")
    assert [before == after for before, after in zip(old, now, strict=True)] == stays
    assert stack.running() == stack.containers().keys() == {f"{stack.name}-web-{number}" for number in (1, 2, 3)}
    assert "I am the second" in result["msg"]
    replaced = {target for action, target in kinds(result) if action == "recreate"}
    back = {target for action, target in kinds(result) if action == "rollback"}
    kept = {f"{stack.name}-web-{number}" for number, stay in enumerate(stays, 1) if not stay}
    assert replaced - back == kept, "its report is not what became of it"
    stack.write({"web": updated("true # mended", replicas=3, **update)}, **DATA)
    stack.deploy()
    assert stack.running() == stack.containers().keys()
    stack.unchanged()


def test_two_replicas_of_which_one_crashes(stack: Stack) -> None:
    """Both at once: failed, and both old ones run. `up --wait` reports success 6 of 6 times (PEERS)."""
    stack.write({"web": updated(replicas=2)}, **DATA)
    stack.deploy()
    old = ids(stack, "web")
    for script in (SECOND_FAILS.format("a"), SECOND_FAILS.format("b").replace("exit 1", "exit 0")):
        broken = {**updated(script, replicas=2), "restart": "always"}
        stack.write({"web": broken}, **DATA)
        result = stack.fails()
        assert "container-restarting" in codes(result)
        assert ids(stack, "web") == old
        assert stack.running() == stack.containers().keys() == {f"{stack.name}-web-{number}" for number in (1, 2)}


def test_monitor_overrides_stability(stack: Stack) -> None:
    """A crash after 1.5 s is found in a window of 3 s, whatever the task says; a window of 0.3 s is over before."""
    late = "sleep 1.5; echo too late; exit 1"
    stack.write({"web": updated(late, monitor="3s")}, **DATA)
    assert "too late" in stack.fails(stability=0.2)["msg"]
    stack.write({"web": updated(monitor="300ms")}, **DATA)
    begun = time.monotonic()
    stack.deploy(stability=20)
    assert time.monotonic() - begun < 15


# -- services that are not like the others ----------------------------------------------------------------------------


def test_protected_services(stack: Stack) -> None:
    """A database is never recreated unasked, for whatever reason, and nothing else is touched either."""
    protected = {"protected_services": ["db"]}
    follower = service(network_mode="service:web")
    one = {"db": service(volumes=["data:/data"]), "web": service(), "side": follower}
    stack.write(one, **DATA)
    stack.deploy(**protected)  # what is not there yet may be made
    before = stack.identities()
    two = {"db": service(volumes=["data:/data"], environment={"A": "1"}), "web": service(environment={"A": "1"})}
    cases: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({**one, **two}, protected),
        (one, {**protected, "recreate": "always"}),
        ({"web": service()}, {**protected, "remove_orphans": True}),
        ({**one, "web": service(environment={"A": "1"})}, {"protected_services": ["side"]}),
    ]
    for services, options in cases:
        stack.write(services, **DATA)
        for mode in (True, False):
            with Events(stack) as events:
                result = stack.fails(check=mode, **options)
            assert not events.all, "something was touched"
            [finding] = [at for at in result["findings"] if at["code"] == "protected-service-drift"]
            assert finding["severity"] == "critical"
            assert finding["subject"] == options["protected_services"][0]
            assert "allow_protected" in finding["remedy"]
            assert not result["changed"]
    assert stack.identities() == before

    stack.write({**one, **two}, **DATA)
    done, _ = stack.predicted(**protected, allow_protected=["db"])
    assert ("recreate", f"{stack.name}-db-1") in kinds(done)
    assert "A=1" in stack.container("db")["Config"]["Env"]
    stack.api.stop(stack.container("db")["Id"], timeout=1)
    done, _ = stack.predicted(**protected)  # to start what is there already replaces nothing
    assert kinds(done) == {("start", f"{stack.name}-db-1")}


def test_optional_services(stack: Stack) -> None:
    """They fail as warnings and stop nobody, not even those that depend on them; the next run tries them again."""
    optional = {"optional_services": ["console"]}

    def write(console: dict[str, Any], **keys: Any) -> None:
        stack.write({"console": console, "web": service(depends_on=["console"], **keys), "db": service(**keys)})

    write(job("echo no licence; exit 3"))
    result = stack.deploy(**optional)
    assert stack.running() == stack.names("web", "db") == stack.containers().keys()
    [finding] = [at for at in result["findings"] if at["subject"] == "console"]
    assert (finding["severity"], finding["code"]) == ("warning", "container-exited")
    assert "no licence" in finding["message"]
    assert ["no licence"] in result["logs"].values()
    assert result["services"]["console"]["state"] == "missing"

    write(service())
    stack.deploy(**optional)
    stack.unchanged(**optional)
    console = ids(stack, "console")
    write(job("echo no licence; exit 3"), environment={"A": "1"})
    result = stack.deploy(**optional)
    assert ids(stack, "console") == console, "an optional service gets its old container back as well"
    assert stack.running() == stack.names("web", "db", "console")
    assert {at["subject"]: at["severity"] for at in result["findings"]}["console"] == "warning"
    assert all("A=1" in stack.container(at)["Config"]["Env"] for at in ("web", "db"))
    assert stack.fails()["msg"], "without being called optional it is not"


def test_restarts_allowed(stack: Stack) -> None:
    stack.options["stability"] = 3  # on a busy machine a container takes its time to fail

    def tries(name: str, number: int) -> dict[str, Any]:
        failing = " ".join(f"/data/{name}{at}" for at in range(1, number))
        script = f"for at in {failing}; do mkdir $at && sleep 0.2 && exit 1; done"
        return service(script, restart="always", volumes=["data:/data"])

    stack.write({"web": tries("a", 2)}, **DATA)
    assert "container-restarting" in codes(stack.fails())
    stack.write({"web": tries("b", 2)}, **DATA)
    result = stack.deploy(restarts_allowed=1)
    assert result["services"]["web"]["containers"][0]["restarts"] == 1
    stack.write({"web": tries("c", 3)}, **DATA)
    assert "container-restarting" in codes(stack.fails(restarts_allowed=1))
    stack.write({"web": tries("d", 9)}, **DATA)
    assert "container-restarting" in codes(stack.fails(restarts_allowed=2))


def test_a_healthcheck_that_proves_nothing(stack: Stack) -> None:
    """R103: it is a warning, in the plan and in the run, and only for those that are vacuous."""
    tests = {"exit": "exit 0", "true": "true", "real": "test -e /tmp"}
    stack.write({name: service(healthcheck=check(test)) for name, test in tests.items()})
    for mode in (True, False):
        result = stack.deploy(check=mode)
        found = {at["subject"]: at["severity"] for at in result["findings"] if at["code"] == "healthcheck-vacuous"}
        assert found == {"exit": "warning", "true": "warning"}
