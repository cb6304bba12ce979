# SPDX-License-Identifier: GPL-3.0-or-later
"""Module `credentials` with real servers: each place wrong in turn, two at once, and what only a TCP login shows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.databases import MARIADB, Rotating, client, provide_others, provide_postgres, server
from tests.support.engine import Engine, Project, unique
from tests.support.stacks import Stack

RIGHT, WRONG, OTHER = "Right-pa55word", "Wrong-pa55word", "Other-pa55word"


def url(password: str, database: str = "app", host: str = "db") -> str:
    return f"postgresql://app:{password}@{host}:5432/{database}"


@pytest.fixture(scope="module")
def running(engine: Engine, busybox: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rotating]:
    """A database that knows RIGHT, a client, and an env file; each test writes what it needs and puts it back."""
    provide_postgres()
    name = unique("cred")
    folder = tmp_path_factory.mktemp("project")
    try:
        found = Rotating(Stack(Project(name, folder, engine)), [RIGHT, WRONG, OTHER])
        found.env(f"DATABASE_URL={url(RIGHT)}\n")
        found.stack.write(services())
        found.up()
        found.wait_for_login(RIGHT)
        yield found
    finally:
        engine.sweep(name)


@pytest.fixture
def project(running: Rotating) -> Iterator[Rotating]:
    running.env(f"DATABASE_URL={url(RIGHT)}\n")
    running.stack.write(services())
    yield running
    running.sql(f"ALTER ROLE app PASSWORD '{RIGHT}'")


def services(**web: Any) -> dict[str, Any]:
    return {"db": server(RIGHT), "web": client(env_file=".env.production", **web)}


def one(result: dict[str, Any], variable: str = "DATABASE_URL") -> dict[str, Any]:
    [found] = [at for at in result["credentials"] if at["variable"] == variable]
    return found


def finding(result: dict[str, Any], code: str) -> str:
    [found] = [at for at in result["findings"] if at["code"] == code]
    return f"{found['message']} / {found['remedy']}"


def test_all_agree(project: Rotating) -> None:
    result = project.call()
    assert not result.get("failed"), result
    assert (result["changed"], result["findings"]) == (False, [])
    found = one(result)
    assert found["verdict"] == "ok"
    assert found["sources"]["login"] == {
        "address": project.address(),
        "server": f"{project.stack.name}-db-1",
        "outcome": "ok",
        "code": "",
        "words": "",
    }
    assert found["sources"]["compose"]["where"] == ".env.production"
    assert found["sources"]["compose"]["value"] == "postgresql://app:***@db:5432/app"
    prints = {at["fingerprint"] for at in [found["sources"]["file"], *found["sources"]["containers"]]}
    assert prints == {found["sources"]["compose"]["fingerprint"]}
    assert one(project.call())["sources"]["compose"]["fingerprint"] not in prints, "comparable beyond this run"


def test_the_file_is_wrong(project: Rotating) -> None:
    project.env(f"DATABASE_URL={url(WRONG)}\n")
    result = project.call()
    assert result["failed"]
    found = one(result)
    assert found["verdict"] == "login-refused"
    assert found["verdicts"] == ["login-refused", "container-stale"]
    assert found["sources"]["login"]["code"] == "28P01"
    assert ".env.production is the odd one out" in finding(result, "login-refused")
    assert "Mend .env.production first" in finding(result, "container-stale")


def test_the_container_is_stale(project: Rotating) -> None:
    project.sql(f"ALTER ROLE app PASSWORD '{OTHER}'")
    project.env(f"DATABASE_URL={url(OTHER)}\n")
    result = project.call()
    assert not result.get("failed"), result["msg"]
    assert one(result)["verdicts"] == ["container-stale"]
    assert "differs from .env.production in password" in finding(result, "container-stale")
    assert "a restart keeps the old value" in finding(result, "container-stale")


def test_the_database_is_wrong_and_its_socket_hides_it(project: Rotating) -> None:
    project.sql(f"ALTER ROLE app PASSWORD '{OTHER}'")
    assert project.sql("SELECT 'the socket trusts anybody'")
    result = project.call()
    assert one(result)["verdicts"] == ["login-refused"]
    assert "the database is the odd one out" in finding(result, "login-refused")
    assert "28P01" in result["msg"]


def test_a_literal_in_compose_wins_over_the_file(project: Rotating) -> None:
    project.env(f"DATABASE_URL={url(RIGHT)}\nDIRECT_URL={url(RIGHT)}\n")
    project.stack.write(services(environment={"DATABASE_URL": url(WRONG)}))
    result = project.call()
    found = one(result)
    assert found["verdicts"] == ["login-refused", "file-differs", "container-stale"]
    assert found["sources"]["compose"]["where"] == f"`environment` in {project.folder}/compose.yml"
    assert "wins over .env.production" in finding(result, "file-differs")
    assert "the odd one out" in finding(result, "file-differs")
    # The sibling passes through; the running container does not have it yet.
    assert one(result, "DIRECT_URL")["verdicts"] == ["container-stale"]
    assert one(result, "DIRECT_URL")["sources"]["login"]["outcome"] == "ok"


def test_two_places_wrong_at_once(project: Rotating) -> None:
    project.sql(f"ALTER ROLE app PASSWORD '{OTHER}'")
    project.env(f"DATABASE_URL={url(WRONG)}\n")
    result = project.call()
    assert one(result)["verdicts"] == ["login-refused", "container-stale"]
    assert "refuses what container" in finding(result, "login-refused")


CASES = [
    ("database-missing", url(RIGHT, "nothing"), "3D000", True),
    ("unreachable", url(RIGHT, host="nowhere"), "nobody knows the name nowhere", True),
    ("unreachable", url(RIGHT).replace("5432", "5433"), "refused", False),
    ("placeholder", url("changeme"), "placeholder", True),
    ("placeholder", url("%3Cpassword%3E"), "placeholder", True),
    ("malformed", url("ri@ght"), "unescaped @ in the password", True),
    ("malformed", url("ri/ght"), "unescaped / in the password", True),
    ("malformed", f'"""{url(RIGHT)}"""', "quotes", True),
    ("malformed", f"'{url(RIGHT)} '", "white space", True),
    ("malformed", f'"export DATABASE_URL={url(RIGHT)}"', "export", True),
    ("malformed", url(RIGHT).replace("postgresql:", "postgress:"), "Write postgres://", True),
    ("malformed", url("ri%ght"), "two hex digits", True),
]


@pytest.mark.parametrize(("verdict", "value", "words", "fails"), CASES, ids=[f"{at[0]}-{at[2][:20]}" for at in CASES])
def test_what_else_can_be_wrong(project: Rotating, verdict: str, value: str, words: str, fails: bool) -> None:
    project.env(f"DATABASE_URL={value}\n")
    if value.startswith('"""'):
        project.env("")
        project.stack.write(services(environment=[f'DATABASE_URL="{url(RIGHT)}"']))
    result = project.call()
    assert one(result)["verdict"] == verdict, result
    assert bool(result.get("failed")) == fails, result
    assert words in finding(result, verdict)


def test_an_unescaped_colon_works_here_and_not_everywhere(project: Rotating) -> None:
    project.secrets.append("ri:ght")
    project.sql("ALTER ROLE app PASSWORD 'ri:ght'")
    project.env(f"DATABASE_URL={url('ri:ght')}\n")
    result = project.call()
    assert not result.get("failed"), result["msg"]
    assert one(result)["verdict"] == "malformed"
    assert "other libraries read another password" in finding(result, "malformed")


def test_a_server_that_asks_nobody(project: Rotating) -> None:
    project.sql("COPY (SELECT 'host all all all trust') TO '/var/lib/postgresql/data/pg_hba.conf'")
    project.sql("SELECT pg_reload_conf()")
    try:
        project.env(f"DATABASE_URL={url(WRONG)}\n")
        result = project.call()
        assert "without asking" in finding(result, "password-not-asked")
    finally:
        text = "local all all trust\nhost all all all scram-sha-256".replace("\n", "' || chr(10) || '")
        script = f"COPY (SELECT unnest(string_to_array('{text}', chr(10)))) TO '/var/lib/postgresql/data/pg_hba.conf'"
        name = f"{project.stack.name}-db-1"
        project.stack.project.engine.docker(
            "exec", name, "psql", "-h", project.address(), "-U", "app", "-d", "app", "-c", script
        )
        project.stack.project.engine.docker(
            "exec", name, "psql", "-h", project.address(), "-U", "app", "-d", "app", "-c", "SELECT pg_reload_conf()"
        )


def test_another_network_and_a_service_to_come(project: Rotating) -> None:
    project.env(f"DATABASE_URL={url(RIGHT)}\nREDIS_URL=redis://:{OTHER}@cache/0\nAMQP_URL=amqp://a:{OTHER}@queue//\n")
    project.stack.write(
        {**services(networks=["front"]), "cache": client(networks=["front"])}, networks={"front": {}, "default": {}}
    )
    result = project.call()
    assert result["failed"]
    found = {at["variable"]: at["verdict"] for at in result["credentials"]}
    assert found == {"DATABASE_URL": "unreachable", "REDIS_URL": "unreachable", "AMQP_URL": "container-stale"}
    assert "shares no network with web" in result["msg"]
    assert "service cache has no container yet" in str(result["findings"])
    assert "amqp:// is compared only" in finding(result, "login-not-tried")


def test_a_variable_that_nobody_has(project: Rotating) -> None:
    result = project.call(variables=["DATABASE_ULR"])
    assert result["failed"]
    assert "no service has the variable DATABASE_ULR" in result["msg"]


def test_redis_and_mariadb(engine: Engine, busybox: str, prefix: str, tmp_path: Path) -> None:
    image = provide_others(engine)
    project = Rotating(Stack(Project(prefix, tmp_path, engine)), [RIGHT, WRONG, OTHER])
    project.env(
        f"CACHE_URL=redis://:{RIGHT}@cache:6379/1\nBAD_CACHE_URL=redis://:{WRONG}@cache:6379/1\n"
        f"NO_CACHE_URL=redis://cache:6379/0\nFAR_CACHE_URL=redis://:{RIGHT}@cache:6379/99\n"
        f"MYSQL_URL=mysql://app:{OTHER}@maria/studio\nBAD_MYSQL_URL=mysql://app:{WRONG}@maria/studio\n"
        f"NO_MYSQL_URL=mysql://app:{OTHER}@maria/nothing\n"
    )
    maria = MARIADB.format(password=OTHER).replace("$", "$$")
    check = {"interval": "0.5s", "retries": 100}
    project.stack.write(
        {
            "cache": {"image": image, "command": ["redis-server", "--bind", "0.0.0.0", "--requirepass", RIGHT]},
            "maria": {
                "image": image,
                "command": ["bash", "-c", maria],
                "healthcheck": {"test": ["CMD-SHELL", "mariadb -h $$(hostname) -uapp -p" + OTHER + " studio"], **check},
            },
            "web": client(env_file=".env.production"),
        }
    )
    project.up()
    result = project.call()
    found = {
        at["variable"]: (at["verdict"], at["sources"]["login"]["code"])
        for at in result["credentials"]
        if at["service"] == "web"
    }
    assert found == {
        "CACHE_URL": ("ok", ""),
        "BAD_CACHE_URL": ("login-refused", "WRONGPASS"),
        "NO_CACHE_URL": ("login-refused", "NOAUTH"),
        "FAR_CACHE_URL": ("database-missing", "ERR"),
        "MYSQL_URL": ("ok", ""),
        "BAD_MYSQL_URL": ("login-refused", "1045"),
        # To who has no right to any other database MariaDB does not say whether there is one of that name.
        "NO_MYSQL_URL": ("login-refused", "1044"),
    }, result
