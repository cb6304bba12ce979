# SPDX-License-Identifier: GPL-3.0-or-later
"""Module `stack` against a real engine: what becomes of a project, judged by the engine and not by our report."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.engine import Project, unique
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

    done, result = stack.predicted(remove_orphans=True)
    assert kinds(done) == {("remove", f"{stack.name}-old-1")}
    assert "orphan" not in codes(result), "who has it removed need not be told how to"
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
