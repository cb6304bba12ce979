# SPDX-License-Identifier: GPL-3.0-or-later
"""Real database servers for the tests: PostgreSQL from the example's image, the others from Debian."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from tests.support.debs import locked
from tests.support.engine import BUSYBOX, Engine
from tests.support.stacks import STAY, Stack, contract, leaks

IMAGES = Path(__file__).resolve().parents[2] / "examples/studio/images"
POSTGRES = "shipshape-postgres:15"
OTHERS = "shipshape-test/databases:2"
# Everything that PostgreSQL does for safety on disk is needless here, and slow on a busy machine.
QUICK = ["postgres", "-c", "fsync=off", "-c", "full_page_writes=off"]
_OTHERS = """
FROM shipshape-base:bookworm
RUN apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends \
    redis-server mariadb-server pgbouncer && rm -rf /var/lib/apt/lists/*
"""
MARIADB = """
set -e
install -d -o mysql /run/mysqld
[ -d /var/lib/mysql/mysql ] || mariadb-install-db --user=mysql --skip-test-db >/dev/null
cat >/tmp/init.sql <<SQL
CREATE DATABASE IF NOT EXISTS studio;
CREATE USER IF NOT EXISTS 'app'@'%' IDENTIFIED BY '{password}';
GRANT ALL ON studio.* TO 'app'@'%';
SQL
exec mariadbd --user=mysql --bind-address=0.0.0.0 --init-file=/tmp/init.sql
"""


def provide_postgres() -> str:
    """The example's PostgreSQL image; nothing is done when it is up to date."""
    done = subprocess.run([IMAGES / "build", "--only", "postgres"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return POSTGRES


def provide_others(engine: Engine) -> str:
    """One image with Redis, MariaDB and PgBouncer, built once."""
    with locked("databases-image"):
        if engine.docker("image", "inspect", OTHERS, check=False).returncode:
            provide_postgres()
            engine.docker("build", "-q", "--network", "host", "-t", OTHERS, "-", input=_OTHERS)
    return OTHERS


def server(password: str, **keys: Any) -> dict[str, Any]:
    """PostgreSQL with role app and database app, as the official image makes it."""
    check = {"test": ["CMD-SHELL", "pg_isready -q -h $$(hostname) -U app"], "interval": "0.3s", "retries": 100}
    return {
        "image": POSTGRES,
        "command": QUICK,
        "environment": {"POSTGRES_USER": "app", "POSTGRES_PASSWORD": password},
        "healthcheck": check,
        "stop_grace_period": "10s",
        **keys,
    }


def client(**keys: Any) -> dict[str, Any]:
    """A service that does nothing but have an environment."""
    return {"image": BUSYBOX, "command": ["sh", "-c", STAY.replace("$", "$$")], **keys}


@dataclass
class Rotating:
    """A project with a PostgreSQL server, looked at from outside of the code under test."""

    stack: Stack
    secrets: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.stack.project.folder

    def env(self, text: str, name: str = ".env.production", mode: int = 0o600) -> Path:
        path = self.folder / name
        path.write_text(text)
        path.chmod(mode)
        return path

    def up(self) -> None:
        self.stack.project.compose("--env-file", ".env.production", "up", "-d", "--wait", "--wait-timeout", "90")

    def address(self, service: str = "db") -> str:
        networks = self.stack.container(service)["NetworkSettings"]["Networks"]
        return str(next(iter(networks.values()))["IPAddress"])

    def logs_in(self, password: str, user: str = "app", database: str = "app") -> bool:
        """A login over TCP by psycopg itself."""
        try:
            psycopg.connect(
                host=self.address(), user=user, password=password, dbname=database, connect_timeout=5
            ).close()
        except psycopg.OperationalError as error:
            if "password authentication failed" not in str(error):
                raise AssertionError(f"the server is not there: {error}") from error
            return False
        return True

    def wait_for_login(self, password: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while True:
            try:
                if self.logs_in(password):
                    return
            except AssertionError:
                pass
            assert time.monotonic() < deadline, "the server does not let anybody in"
            time.sleep(0.2)

    def sql(self, statement: str) -> str:
        """Over the local socket, where nobody is asked."""
        engine = self.stack.project.engine
        name = f"{self.stack.name}-db-1"
        return engine.docker("exec", name, "psql", "-U", "app", "-d", "app", "-tAc", statement).stdout.strip()

    def held(self, service: str, variable: str) -> str:
        """What the running container has."""
        pairs = [entry.partition("=") for entry in self.stack.container(service)["Config"]["Env"]]
        return next(value for name, _dummy, value in pairs if name == variable)

    def call(self, *, check: bool = False, **options: Any) -> dict[str, Any]:
        """The module's result, which is as every result has to be, and in which nothing can be read."""
        call = self.stack.call("credentials", check=check, **{"env_files": [".env.production"], **options})
        result = call.wait(180)
        self.stack.printed += [call.stdout, call.stderr]
        assert not call.stderr, call.stderr
        contract(result)
        assert not leaks(self.secrets, call.stdout), f"leaked: {leaks(self.secrets, call.stdout)} in {call.stdout}"
        return result
