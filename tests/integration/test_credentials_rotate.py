# SPDX-License-Identifier: GPL-3.0-or-later
"""Module `credentials`, state rotated: a password changes in server, env file and containers, or nowhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.databases import Rotating, client, provide_postgres, server
from tests.support.engine import Engine, Project
from tests.support.stacks import Stack

OLD, NEW, THIRD = "Old-pa55word", "N3w/p@ss:w#rd'$ö", "Third-pa55word"
ENV = """# Written by hand, and to stay so.
export LOG_LEVEL=info   # as loud as need be
POSTGRES_USER=app

DATABASE_URL="postgresql://app:{0}@db:5432/app?sslmode=prefer" # the application's
POSTGRES_PASSWORD='{0}'
REDIS_PASSWORD={0}
DIRECT_URL=postgresql://app:{0}@database/app
REPORT_URL=postgresql://report:{0}@db:5432/app
"""


@pytest.fixture
def project(engine: Engine, busybox: str, prefix: str, tmp_path: Path) -> Iterator[Rotating]:
    provide_postgres()
    found = Rotating(Stack(Project(prefix, tmp_path, engine)), [OLD, NEW, THIRD])
    write(found)
    found.up()
    found.wait_for_login(OLD)
    found.sql(f"CREATE ROLE report LOGIN PASSWORD '{OLD}'")
    yield found
    assert not list(tmp_path.glob(".*tmp*")), "something was left behind"


def write(found: Rotating, **web: Any) -> None:
    found.env(ENV.format(OLD), mode=0o640)
    check = {"test": "exit 0", "interval": "0.5s"}
    networks = {"default": {"aliases": ["database"]}}
    db = {**server("", networks=networks, volumes=["data:/var/lib/postgresql/data"]), "env_file": ".env.production"}
    db.pop("environment")
    web = {"env_file": ".env.production", "depends_on": {"db": {"condition": "service_healthy"}}, **web}
    services = {"db": db, "web": client(**web), "idle": client(healthcheck=check)}
    found.stack.write(services, volumes={"data": {}})


def rotate(project: Rotating, **options: Any) -> dict[str, Any]:
    return project.call(state="rotated", variables=["DATABASE_URL"], stability=1, wait_timeout=60, **options)


def test_everything_has_the_new_password_and_nothing_else_changed(project: Rotating) -> None:
    before, idle = project.stack.snapshot(), project.stack.identities("idle")
    foretold = rotate(project, password=NEW, check=True)
    assert project.stack.snapshot() == before
    assert project.logs_in(OLD)
    result = rotate(project, password=NEW)
    assert not result.get("failed"), result
    assert {"before": foretold["diff"]["before"], "after": foretold["diff"]["after"]} == result["diff"]
    kinds = [(at["action"], at["target"]) for at in result["actions"]]
    assert [at for at in kinds if at[0] != "remove"] == [(at["action"], at["target"]) for at in foretold["actions"]]
    encoded = "N3w%2Fp%40ss%3Aw%23rd%27%24%C3%B6"
    wanted = ENV.format(OLD).replace(f"app:{OLD}@", f"app:{encoded}@")
    wanted = wanted.replace(f"POSTGRES_PASSWORD='{OLD}'", 'POSTGRES_PASSWORD="N3w/p@ss:w#rd\'\\$ö"')
    assert (project.folder / ".env.production").read_text() == wanted
    assert (project.folder / ".env.production").stat().st_mode & 0o777 == 0o640
    assert project.logs_in(NEW)
    assert not project.logs_in(OLD)
    assert project.logs_in(OLD, "report"), "another role's password was changed"
    assert encoded in project.held("web", "DATABASE_URL")
    assert project.held("db", "POSTGRES_PASSWORD") == NEW
    assert project.stack.identities("idle") == idle
    assert "SCRAM-SHA-256" in project.sql("SELECT rolpassword FROM pg_authid WHERE rolname = 'app'")
    assert not list(project.folder.glob("*shipshape*")) + list(project.folder.glob(".*shipshape*"))
    again = rotate(project, password=NEW)
    assert (again["changed"], again["actions"]) == (False, []), again
    assert not project.call(variables=["DATABASE_URL", "DIRECT_URL"]).get("failed")


def test_a_password_of_its_own_making(project: Rotating) -> None:
    result = rotate(project)
    assert not result.get("failed"), result
    made = project.held("db", "POSTGRES_PASSWORD")
    assert len(made) == 32
    assert project.logs_in(made)
    assert not project.logs_in(OLD)
    assert made not in json.dumps(result)


def test_services_that_do_not_come_up_bring_the_old_one_back(project: Rotating) -> None:
    start = 'case "$$DATABASE_URL" in *Old-*) ;; *) exit 3 ;; esac; trap "exit 143" TERM; sleep 3600 & wait'
    write(project, command=["sh", "-c", start])
    project.up()
    project.wait_for_login(OLD)
    result = rotate(project, password=THIRD)
    assert result["failed"]
    assert {"rotation-undone"} <= {at["code"] for at in result["findings"]}, result
    assert project.logs_in(OLD)
    assert not project.logs_in(THIRD)
    assert (project.folder / ".env.production").read_text() == ENV.format(OLD)
    assert OLD in project.held("web", "DATABASE_URL")
    assert not list(project.folder.glob(".*shipshape*"))


def test_a_literal_in_the_compose_file_is_refused_before_anything(project: Rotating) -> None:
    write(project, environment={"DATABASE_URL": f"postgresql://app:{OLD}@db:5432/app"})
    project.up()
    before = project.stack.snapshot()
    result = rotate(project, password=NEW)
    assert result["failed"]
    assert not result["changed"]
    assert "`environment` in" in result["msg"]
    assert project.stack.snapshot() == before
    assert project.logs_in(OLD)


def test_the_file_has_the_new_one_already(project: Rotating) -> None:
    """As after a deploy that rendered it from a vault: the server and the containers follow."""
    project.env(ENV.format(THIRD).replace(f"report:{THIRD}", f"report:{OLD}"))
    result = rotate(project, password=THIRD)
    assert not result.get("failed"), result
    assert project.logs_in(THIRD)
    assert not project.logs_in(OLD)
    assert THIRD in project.held("web", "DATABASE_URL")
