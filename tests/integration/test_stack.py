# SPDX-License-Identifier: GPL-3.0-or-later
"""Module `stack` against a real engine: what becomes of a project, judged by the engine and not by our report."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.engine import BUSYBOX, Engine, Project, unique
from tests.support.stacks import Stack, check, codes, job, kinds, leaks, service, times


@pytest.fixture
def stack(project: Project) -> Stack:
    return Stack(project)


def anonymous(document: dict[str, Any], target: str) -> str:
    """The name of the volume mounted at `target`."""
    [mount] = [at for at in document["Mounts"] if at["Destination"] == target]
    assert mount["Type"] == "volume"
    return str(mount["Name"])


# -- bringing it about ------------------------------------------------------------------------------------------------


def test_first_deploy_keeps_the_order_and_a_second_one_does_nothing(stack: Stack) -> None:
    stack.write(
        {
            "db": service(
                "sleep 0.6; touch /tmp/ready",
                # On a quiet machine the first look comes before the file: that is no verdict yet.
                healthcheck={**check("test -e /tmp/ready"), "retries": 20},
            ),
            "migrate": job("sleep 0.5", depends_on={"db": {"condition": "service_healthy"}}),
            "web": service(depends_on={"migrate": {"condition": "service_completed_successfully"}}),
            "proxy": service(depends_on=["web"]),
        }
    )
    done, result = stack.predicted()
    assert kinds(done) == {
        ("create", f"network {stack.name}_default"),
        *(("create", f"{stack.name}-{at}-1") for at in ("db", "migrate", "web", "proxy")),
    }
    assert {name: at["state"] for name, at in result["services"].items()} == {
        "db": "running",
        "migrate": "completed",
        "web": "running",
        "proxy": "running",
    }
    documents = [stack.container(at) for at in ("db", "migrate", "web", "proxy")]
    started = list(times(documents, "StartedAt"))
    assert started == sorted(started)
    healthy = [at["Start"] for at in documents[0]["State"]["Health"]["Log"] if at["ExitCode"] == 0]
    assert healthy, "the database was not healthy when the others were started"
    [finished] = times(documents[1:2], "FinishedAt")
    assert finished < started[2], "web did not wait for the migration to complete"
    assert stack.identities() == {at["Name"].lstrip("/"): (at["Id"], at["State"]["StartedAt"]) for at in documents}


def test_changed_environment_recreates_that_service_alone(stack: Stack) -> None:
    web = service(environment={"DEBUG": "0", "API_TOKEN": "first-token"}, volumes=["data:/data"])
    top = {"volumes": {"data": {}}}
    stack.write({"web": web, "db": service()}, **top)
    stack.deploy()
    stack.shell("web", "echo kept > /data/file")
    before, old = stack.identities("db"), stack.container("web")
    stack.write({"web": {**web, "environment": {"DEBUG": "1", "API_TOKEN": "first-token"}}, "db": service()}, **top)

    done, result = stack.predicted()

    assert done == {("recreate", f"{stack.name}-web-1", "environment.DEBUG changed")}
    assert "environment.DEBUG" in result["diff"]["before"]
    assert "environment.DEBUG" in result["diff"]["after"]
    assert "API_TOKEN" not in json.dumps(result["diff"])
    assert not leaks(["first-token"], *stack.printed)
    new = stack.container("web")
    assert new["Id"] != old["Id"]
    assert "DEBUG=1" in new["Config"]["Env"]
    assert stack.identities("db") == before
    assert stack.shell("web", "cat /data/file") == "kept\n"
    assert stack.containers().keys() == stack.names("web", "db")
    stack.up_finds_nothing_to_do()


def test_scale_up_and_down(stack: Stack) -> None:
    stack.write({"web": service(deploy={"replicas": 2})})
    stack.deploy()
    first = stack.identities()
    assert first.keys() == {f"{stack.name}-web-{number}" for number in (1, 2)}

    stack.write({"web": service(deploy={"replicas": 4})})
    done, _ = stack.predicted()
    assert kinds(done) == {("create", f"{stack.name}-web-{number}") for number in (3, 4)}
    more = stack.identities()
    assert more.keys() == {f"{stack.name}-web-{number}" for number in (1, 2, 3, 4)}
    assert first.items() < more.items()
    assert {
        document["Config"]["Labels"]["com.docker.compose.container-number"] for document in stack.containers().values()
    } == set("1234")

    stack.write({"web": service(deploy={"replicas": 1})})
    done, _ = stack.predicted()
    assert kinds(done) == {("remove", f"{stack.name}-web-{number}") for number in (2, 3, 4)}
    assert stack.identities() == {name: at for name, at in first.items() if name.endswith("-1")}


def test_orphans_are_named_and_removed_only_on_request(stack: Stack) -> None:
    stack.write({"web": service(), "old": service()})
    stack.deploy()
    before = stack.identities()
    stack.write({"web": service()})

    result = stack.deploy()
    [orphan] = [at for at in result["findings"] if at["code"] == "orphan"]
    assert f"{stack.name}-old-1" in orphan["message"]
    assert stack.identities() == before

    done, _ = stack.predicted(remove_orphans=True)
    assert kinds(done) == {("remove", f"{stack.name}-old-1")}
    assert stack.identities() == {name: at for name, at in before.items() if "-web-" in name}


def test_stopped_and_started_again(stack: Stack) -> None:
    """Also a worker that ends with 0 when it is asked to stop, as well-behaved ones do."""
    polite = job("trap 'exit 0' TERM; sleep 3600 & wait")
    stack.write({"db": service(), "web": service(depends_on=["db"]), "worker": polite})
    stack.deploy()
    ids = {name: at[0] for name, at in stack.identities().items()}

    done, _ = stack.predicted(state="stopped")
    assert kinds(done) == {("stop", name) for name in ids}
    assert not stack.running()
    web, db = times([stack.container("web"), stack.container("db")], "FinishedAt")
    assert web < db, "the database was stopped before what depends on it"

    done, _ = stack.predicted()
    assert kinds(done) == {("start", name) for name in ids}
    assert stack.running() == set(ids)
    assert {name: at[0] for name, at in stack.identities().items()} == ids


def test_services_brings_what_they_depend_on_and_nothing_else(stack: Stack) -> None:
    stack.write({"db": service(), "web": service(depends_on=["db"]), "worker": service(depends_on=["db"])})
    stack.predicted(services=["web"])
    assert stack.running() == stack.names("db", "web")
    before = stack.identities()
    stack.predicted(services=["worker"])
    assert stack.running() == stack.names("db", "web", "worker")
    assert before.items() < stack.identities().items()

    stack.predicted(services=["web"], state="absent")
    assert stack.running() == stack.names("db", "worker")


def test_profiles(stack: Stack) -> None:
    stack.write({"web": service(), "console": service(profiles=["infra"])})
    stack.deploy()
    assert stack.running() == stack.names("web")
    stack.deploy(profiles=["infra"])
    assert stack.running() == stack.names("web", "console")
    result = stack.deploy()
    assert not result["changed"]
    assert "orphan" not in codes(result), "a service of another profile is no orphan"

    result = stack.fails(profiles=["infar"])
    assert codes(result) == {"profile-unknown"}
    assert "infar" in result["msg"]
    assert "infra" in result["msg"], "the message does not say which profiles there are"


def test_definition_instead_of_files(stack: Stack) -> None:
    secret = f"inline-{unique()}"
    definition = {"services": {"web": service(environment={"DB_PASSWORD": secret})}}
    given = {"project_src": None, "definition": definition}
    stack.predicted(**given)
    assert f"DB_PASSWORD={secret}" in stack.container("web")["Config"]["Env"]
    stack.unchanged(**given)
    stack.predicted(**given, state="absent")
    assert not stack.snapshot()
    assert not leaks([secret], *stack.printed)


def test_recreate_always_and_never(stack: Stack) -> None:
    stack.write({"web": service(), "db": service()})
    stack.deploy()
    before = stack.identities()
    done, _ = stack.predicted(recreate="always")
    assert done == {("recreate", name, "recreate: always") for name in before}
    after = stack.identities()
    assert after.keys() == before.keys()
    assert not {at[0] for at in after.values()} & {at[0] for at in before.values()}

    stack.write({"web": service(environment={"A": "1"}), "db": service()})
    result = stack.deploy(recreate="never")
    assert not result["changed"]
    assert [at["field"] for at in result["drift"]] == ["environment.A"], "what is not acted on is still named"
    assert stack.identities() == after


def test_replicas_change_one_by_one_and_fixed_names(stack: Stack) -> None:
    fixed = f"{stack.name}-fixed"
    stack.write({"web": service(deploy={"replicas": 3}), "db": service(container_name=fixed)})
    stack.deploy()
    before = stack.identities()
    change = {"environment": {"A": "1"}}
    stack.write({"web": service(deploy={"replicas": 3}, **change), "db": service(container_name=fixed, **change)})
    stack.predicted()
    after = stack.identities()
    assert after.keys() == before.keys() == {fixed, *(f"{stack.name}-web-{number}" for number in (1, 2, 3))}
    assert not set(after.values()) & set(before.values())
    assert all("A=1" in document["Config"]["Env"] for document in stack.containers().values())
    stack.up_finds_nothing_to_do()


# -- what goes with what ----------------------------------------------------------------------------------------------


def test_what_shares_a_namespace_is_replaced_with_its_owner(stack: Stack) -> None:
    side, other = service(network_mode="service:web"), service()
    stack.write({"web": service(), "side": side, "other": other})
    stack.deploy()
    before = stack.identities("other")
    stack.write({"web": service(environment={"A": "1"}), "side": side, "other": other})
    done, _ = stack.predicted()
    assert kinds(done) == {("recreate", name) for name in stack.names("web", "side")}
    assert stack.container("side")["HostConfig"]["NetworkMode"] == f"container:{stack.container('web')['Id']}"
    assert stack.shell("side", "hostname") == stack.shell("web", "hostname")
    assert stack.identities("other") == before
    stack.up_finds_nothing_to_do()


def test_depends_on_with_restart(stack: Stack) -> None:
    def services(**db: Any) -> dict[str, Any]:
        return {
            "db": service(**db),
            "bound": service(depends_on={"db": {"condition": "service_started", "restart": True}}),
            "loose": service(depends_on=["db"]),
        }

    stack.write(services())
    stack.deploy()
    before = stack.identities()
    stack.write(services(environment={"A": "1"}))
    done, _ = stack.predicted()
    assert kinds(done) == {("recreate", f"{stack.name}-db-1"), ("restart", f"{stack.name}-bound-1")}
    after = stack.identities()
    bound, loose, db = (f"{stack.name}-{at}-1" for at in ("bound", "loose", "db"))
    assert after[loose] == before[loose]
    assert after[bound][0] == before[bound][0]
    assert after[db][1] < after[bound][1], "it was restarted before its new dependency ran"


def test_anonymous_volumes_are_carried_over(stack: Stack) -> None:
    stack.write({"db": service(volumes=["/data"])})
    stack.deploy()
    stack.shell("db", "echo precious > /data/file")
    volume = anonymous(stack.container("db"), "/data")
    stack.write({"db": service(volumes=["/data"], environment={"A": "1"})})
    stack.predicted()
    assert anonymous(stack.container("db"), "/data") == volume
    assert stack.shell("db", "cat /data/file") == "precious\n"

    stack.write({"db": job("echo no; exit 1", volumes=["/data"])})
    stack.fails()
    assert anonymous(stack.container("db"), "/data") == volume
    assert stack.shell("db", "cat /data/file") == "precious\n", "a failed replacement took the data along"
    stack.deploy(state="absent")
    assert volume in {at["Name"] for at in stack.api.volumes()["Volumes"]}, "data is removed only on request"
    stack.api.remove_volume(volume)


# -- images, hooks, files ---------------------------------------------------------------------------------------------


def test_build(stack: Stack) -> None:
    def dockerfile(text: str) -> None:
        (stack.project.folder / "Dockerfile").write_text(f"FROM {BUSYBOX}\nRUN {text}\n", encoding="utf-8")

    dockerfile("echo one > /srv/version")
    stack.write({"web": {**service(), "image": f"{stack.name}-built:1", "build": "."}})
    done, _ = stack.predicted()
    assert ("build", f"image {stack.name}-built:1") in kinds(done)
    assert stack.shell("web", "cat /srv/version") == "one\n"
    first = stack.identities()

    result = stack.deploy(build="always")
    assert (result["changed"], stack.identities()) == (False, first), "an unchanged image is no reason for anything"

    dockerfile("echo two > /srv/version")
    assert not stack.deploy(build="never")["changed"]
    result = stack.deploy()  # build: auto sees that the image was made from other files
    assert kinds(result) == {("build", f"image {stack.name}-built:1"), ("recreate", f"{stack.name}-web-1")}
    assert stack.shell("web", "cat /srv/version") == "two\n"
    new = stack.identities()

    dockerfile("echo broken; exit 3")
    result = stack.fails(build="always")
    assert codes(result) == {"build-failed"}
    assert any("broken" in line for lines in result["logs"].values() for line in lines)
    assert stack.identities() == new


@pytest.mark.parametrize("version", ["machine", "newest"])
def test_hooks_and_contents(stack: Stack, compose_versions: dict[str, dict[str, str]], version: str) -> None:
    """Compose up to 2.29 knows no hooks; newer ones leave hooks and contents to the start, which is ours."""
    oldest, newest = sorted(compose_versions, key=lambda text: [int(part) for part in text.split(".")])
    hooks = version == "newest"
    stack.project.engine.env.update(compose_versions[newest if hooks else oldest])
    secret = f"file-{unique()}"
    stack.env["FROM_OUTSIDE"] = secret
    web = service("cat /run/secrets/key > /tmp/at-start; cat /etc/app.conf >> /tmp/at-start")
    web |= {"configs": [{"source": "app", "target": "/etc/app.conf"}], "secrets": ["key"], "volumes": ["data:/data"]}
    if hooks:
        web["post_start"] = [{"command": ["sh", "-c", "echo started >> /data/hooks"]}]
        web["pre_stop"] = [{"command": ["sh", "-c", "echo stopping >> /data/hooks"]}]
    top: dict[str, Any] = {
        "volumes": {"data": {}},
        "configs": {"app": {"content": "colour=blue price=$$5\n"}},
        "secrets": {"key": {"environment": "FROM_OUTSIDE"}},
    }
    stack.write({"web": web}, **top)
    try:
        stack.predicted()
        assert stack.shell("web", "cat /tmp/at-start") == f"{secret}colour=blue price=$5\n"
        if hooks:
            assert stack.shell("web", "cat /data/hooks") == "started\n"
        stack.write({"web": web}, **{**top, "configs": {"app": {"content": "colour=red\n"}}})
        done, _ = stack.predicted()
        assert done == {("recreate", f"{stack.name}-web-1", "configs_content.app changed")}
        assert stack.shell("web", "cat /tmp/at-start") == f"{secret}colour=red\n"
        if hooks:
            assert stack.shell("web", "cat /data/hooks") == "started\nstopping\nstarted\n"
        assert not leaks([secret], *stack.printed)
    finally:
        stack.project.engine.env.clear()


def test_a_failing_hook_fails_the_replacement(stack: Stack, compose_versions: dict[str, dict[str, str]]) -> None:
    newest = max(compose_versions, key=lambda text: [int(part) for part in text.split(".")])
    stack.project.engine.env.update(compose_versions[newest])
    try:
        stack.write({"web": service()})
        stack.deploy()
        before = stack.container("web")["Id"]
        stack.write({"web": service(post_start=[{"command": ["sh", "-c", "echo cannot warm up; exit 7"]}])})
        result = stack.fails()
        assert codes(result) >= {"hook-failed"}
        assert "7" in result["msg"]
        assert any("cannot warm up" in line for lines in result["logs"].values() for line in lines)
        assert stack.container("web")["Id"] == before
        assert stack.running() == stack.names("web")
    finally:
        stack.project.engine.env.clear()


# -- replacements that fail -------------------------------------------------------------------------------------------

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


# -- taking it down ---------------------------------------------------------------------------------------------------


def test_absent_keeps_volumes_until_it_is_told_otherwise(stack: Stack) -> None:
    services = {"web": service(volumes=["data:/data"], depends_on=["db"]), "db": service(), "job": job("true")}
    stack.write(services, volumes={"data": {}})
    stack.deploy()
    stack.project.compose("run", "--detach", "web", "sleep", "600")
    stack.predicted(state="absent")
    assert stack.snapshot().keys() == {f"volume {stack.name}_data"}

    stack.deploy()
    (stack.project.folder / "compose.yml").unlink()
    done, _ = stack.predicted(state="absent", remove_volumes=True, project_src=None)
    assert ("remove", f"volume {stack.name}_data") in kinds(done)
    assert not stack.snapshot()


def test_absent_where_the_directory_is_gone(stack: Stack) -> None:
    stack.write({"web": service()})
    stack.deploy()
    (stack.project.folder / "compose.yml").unlink()
    stack.predicted(state="absent")
    assert not stack.snapshot()


def test_absent_leaves_neighbours_alone(stack: Stack) -> None:
    """A project whose name starts with ours, and networks that only look as if they were ours."""
    neighbour = Stack(Project(f"{stack.name}1", stack.project.folder, stack.project.engine))
    foreign = f"{stack.name}_foreign"
    stack.api.create_network(foreign)
    stack.api.create_volume(f"{stack.name}_foreign")
    top = {"volumes": {"data": {}, "shared": {"external": True, "name": foreign}}}
    top["networks"] = {"default": {}, "outside": {"external": True, "name": foreign}}  # type: ignore[dict-item]
    stack.write({"web": service(volumes=["data:/data", "shared:/s"], networks=["default", "outside"])}, **top)
    stack.deploy()
    neighbour.deploy()
    before = neighbour.snapshot()
    stack.predicted(state="absent", remove_volumes=True)
    assert not {name: at for name, at in stack.snapshot().items() if not name.startswith("image")}
    assert neighbour.snapshot() == before
    assert stack.api.networks(names=[foreign])
    assert stack.api.inspect_volume(foreign)


def test_absent_with_a_stranger_on_the_network(stack: Stack, engine: Engine) -> None:
    stranger = f"{stack.name}-stranger"
    stack.write({"web": service()})
    stack.deploy()
    network = f"{stack.name}_default"
    engine.docker("run", "-d", "--name", stranger, "--network", network, BUSYBOX, "sleep", "600")
    result = stack.fails(state="absent")
    assert "network-in-use" in codes(result)
    assert network in result["msg"]
    assert stranger in result["msg"], "the message does not say who is in the way"
    assert stack.api.inspect_container(stranger)["State"]["Running"]
    stack.api.remove_container(stranger, force=True)
    stack.predicted(state="absent")
    assert not stack.snapshot()


# -- looking ----------------------------------------------------------------------------------------------------------


def test_stack_info_sees_what_stack_would_end(stack: Stack) -> None:
    stack.write({"web": service(), "db": service(), "old": service(), "gone": service()})
    stack.deploy()
    stack.api.kill(stack.container("db")["Id"])
    stack.api.wait(stack.container("db")["Id"])
    stack.api.remove_container(stack.container("gone")["Id"], force=True)
    stack.write({"web": service(environment={"A": "1"}), "db": service(), "gone": service()})
    info = stack.run("stack_info")
    plan = stack.run(check=True)
    assert info["drift"] == plan["drift"]
    assert {(at["service"], at["kind"], at["action"]) for at in info["drift"]} == {
        ("web", "desired", "recreate"),
        ("db", "state", "start"),
        ("gone", "missing", "create"),
        ("old", "orphan", "none"),
    }
    assert info["actions"] == []
    assert info["changed"] is False
    assert info["services"]["db"]["state"] == "exited"
    assert info["services"]["gone"]["state"] == "missing"
    stack.deploy(remove_orphans=True)
    assert stack.run("stack_info")["drift"] == []


def test_after_plain_compose_nothing_differs(stack: Stack) -> None:
    (stack.project.folder / "app.env").write_text("COLOUR=blue\nPRICE='5$'\n", encoding="utf-8")
    stack.write({"web": service(env_file=["app.env"]), "db": service(restart="unless-stopped")})
    stack.project.compose("up", "-d")
    before = stack.identities()
    stack.unchanged()
    assert stack.identities() == before
    (stack.project.folder / "app.env").write_text("COLOUR=red\nPRICE='5$'\n", encoding="utf-8")
    done, _ = stack.predicted()
    assert kinds(done) == {("recreate", f"{stack.name}-web-1")}
    assert {"COLOUR=red", "PRICE=5$"} <= set(stack.container("web")["Config"]["Env"])
    stack.up_finds_nothing_to_do()


# -- secrets ----------------------------------------------------------------------------------------------------------


def test_secrets_never_leave(stack: Stack) -> None:
    """Neither with success nor with failure, neither in diff nor in logs, in none of their spellings."""
    password, token, url = f"p/w+{unique()}&=", f"tok~{unique()}!", f"u@{unique()}:x"
    secrets = [password, token, url]
    spoken = """
        echo "login as app with $DB_PASSWORD failed"
        echo "basic $(printf %s "$DB_PASSWORD" | base64)"
        echo "user:$(printf %s "app:$API_TOKEN" | base64)"
        echo "connecting to $DATABASE_URL"
        exit 1
    """

    def environment(tail: str = "") -> dict[str, str]:
        return {
            "DB_PASSWORD": (password + tail).replace("$", "$$"),
            "API_TOKEN": token + tail,
            "DATABASE_URL": f"postgres://app:{quote(url + tail, safe='')}@db/app",
        }

    stack.write({"web": service(environment=environment())})
    stack.predicted()
    stack.write({"web": service(environment=environment("2"))})
    stack.run("stack_info")
    _, result = stack.predicted()
    for name in ("DB_PASSWORD", "API_TOKEN", "DATABASE_URL"):
        assert f"environment.{name}" in result["diff"]["after"], f"the diff does not name {name}"
    stack.write({"web": job(spoken, environment=environment("3"))})
    result = stack.fails()
    lines = [line for lines in result["logs"].values() for line in lines]
    assert len(lines) == 4, lines
    assert all("***" in line for line in lines), lines
    assert f"DB_PASSWORD={password}2" in stack.container("web")["Config"]["Env"], "the test planted nothing"
    assert not leaks(secrets, *stack.printed)
