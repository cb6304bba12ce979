# SPDX-License-Identifier: GPL-3.0-or-later
"""The example's PostgreSQL image starts as the official one does; its image build is repeatable."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engine import Engine, unique

IMAGES = Path(__file__).resolve().parents[2] / "examples/studio/images"
POSTGRES = "shipshape-postgres:15"
# Everything that PostgreSQL does for safety on disk is needless here, and slow on a busy machine.
QUICK = ["-c", "fsync=off", "-c", "full_page_writes=off"]


@pytest.fixture(scope="module")
def images() -> str:
    """The example's images; nothing is done when they are up to date. Returns what the build printed."""
    done = subprocess.run([IMAGES / "build"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def names(engine: Engine) -> Iterator[str]:
    """A stem for the containers and volumes of one test."""
    stem = unique("stdb")
    try:
        yield stem
    finally:
        engine.sweep(stem)


class Database:
    """One container of the image, on a volume that outlives it."""

    def __init__(self, engine: Engine, stem: str) -> None:
        self.engine, self.stem, self.name = engine, stem, f"{stem}-db"

    def start(self, *options: str, **variables: str) -> None:
        environment = [word for name, value in variables.items() for word in ("-e", f"{name}={value}")]
        volume = ["-v", f"{self.stem}-data:/var/lib/postgresql/data"]
        self.engine.docker("run", "-d", "--name", self.name, *volume, *environment, *options, POSTGRES, *QUICK)

    def wait(self) -> None:
        """Until it serves on TCP: the server that initialisation uses listens on the socket only."""
        deadline = time.monotonic() + 90
        while self.sh("pg_isready -q -h 127.0.0.1").returncode:
            logs = self.engine.docker("logs", self.name)
            assert time.monotonic() < deadline, f"PostgreSQL did not start:\n{logs.stdout}{logs.stderr}"
            time.sleep(0.2)

    def replace(self, *options: str, **variables: str) -> None:
        self.engine.docker("rm", "-f", self.name)
        self.start(*options, **variables)

    def sh(self, script: str) -> subprocess.CompletedProcess[str]:
        return self.engine.docker("exec", self.name, "bash", "-c", script, check=False)

    def over_tcp(self, password: str, user: str = "app") -> str:
        """What a login answers at the address that other containers use."""
        done = self.sh(f"PGPASSWORD='{password}' psql -h $(hostname -i) -U {user} -d app -tAc 'SELECT 41 + 1' 2>&1")
        return done.stdout.strip()


@pytest.fixture
def database(engine: Engine, names: str, images: str) -> Database:
    return Database(engine, names)


def refused(engine: Engine, *options: str) -> str:
    done = engine.docker("run", "--rm", *options, POSTGRES, check=False)
    assert done.returncode == 1, done.stdout
    return done.stderr


def test_the_socket_trusts_tcp_asks_and_the_password_counts_only_once(database: Database) -> None:
    first = {"POSTGRES_PASSWORD": "first", "POSTGRES_USER": "app"}
    database.start(**first)
    database.wait()
    assert database.sh("psql -U app -d app -tAc 'SELECT current_user'").stdout == "app\n"
    assert database.over_tcp("first") == "42"
    assert "password authentication failed" in database.over_tcp("wrong")
    stored = database.sh("psql -U app -tAc 'SELECT rolpassword FROM pg_authid WHERE rolcanlogin'").stdout
    assert stored.startswith("SCRAM-SHA-256$")
    running_as = database.sh("stat -c %U /proc/1 $PGDATA/PG_VERSION").stdout.split()
    assert running_as == ["postgres", "postgres"]
    assert database.sh("stat -c %a $PGDATA").stdout == "700\n"

    # On a volume that has a cluster the variable means nothing any more: the old password stays the password.
    database.replace(**first | {"POSTGRES_PASSWORD": "second"})
    database.wait()
    assert "Skipping initialization" in database.engine.docker("logs", database.name).stdout
    assert "password authentication failed" in database.over_tcp("second")
    assert database.over_tcp("first") == "42"


def test_without_a_password_it_refuses_to_start(engine: Engine, images: str) -> None:
    assert "superuser password is not specified" in refused(engine)


def test_a_value_and_a_file_exclude_each_other(engine: Engine, images: str) -> None:
    both = ["-e", "POSTGRES_PASSWORD=a", "-e", "POSTGRES_PASSWORD_FILE=/etc/hostname"]
    assert "POSTGRES_PASSWORD and POSTGRES_PASSWORD_FILE are set (but are exclusive)" in refused(engine, *both)


def test_password_file_init_scripts_and_an_unprivileged_user(database: Database, tmp_path: Path) -> None:
    scripts = tmp_path / "init"
    scripts.mkdir()
    (scripts / "1-table.sql").write_text("CREATE TABLE made_by AS SELECT 'sql' AS what;\n")
    (scripts / "2-row.sh").write_text(
        '#!/bin/sh\npsql -qU "$POSTGRES_USER" -d "$POSTGRES_DB" -c "INSERT INTO made_by VALUES (\'sh\')"\n'
    )
    (scripts / "2-row.sh").chmod(0o755)
    (scripts / "notes.txt").write_text("not for the database\n")
    (tmp_path / "password").write_text("it's $ecret\n")
    database.start(
        *["--user", "postgres", "-v", f"{scripts}:/docker-entrypoint-initdb.d:ro"],
        *["-v", f"{tmp_path / 'password'}:/run/password:ro"],
        POSTGRES_PASSWORD_FILE="/run/password",
        POSTGRES_USER="app",
        PGDATA="/var/lib/postgresql/data/below",
    )
    database.wait()
    rows = database.sh("psql -U app -d app -tAc 'SELECT what FROM made_by ORDER BY 1'").stdout.split()
    assert rows == ["sh", "sql"]
    done = database.sh('PGPASSWORD="$(cat /run/password)" psql -h $(hostname -i) -U app -d app -tAc "SELECT 42"')
    assert done.stdout == "42\n"
    assert "ignoring /docker-entrypoint-initdb.d/notes.txt" in database.engine.docker("logs", database.name).stdout


def test_killed_while_it_initialises_it_starts_over(database: Database, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "slow.sql").write_text("SELECT pg_sleep(120);\n")
    variables = {"POSTGRES_PASSWORD": "first", "POSTGRES_USER": "app"}
    database.start("-v", f"{tmp_path}:/docker-entrypoint-initdb.d:ro", **variables)
    deadline = time.monotonic() + 90
    while "running /docker-entrypoint-initdb.d/slow.sql" not in database.engine.docker("logs", database.name).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    database.engine.docker("kill", database.name)
    database.replace(**variables)
    database.wait()
    assert database.over_tcp("first") == "42"
    assert database.sh("ls -A $PGDATA | grep -c initializing").stdout == "0\n"


def test_init_scripts_that_cannot_be_read_are_not_silently_left_out(
    engine: Engine, tmp_path: Path, images: str
) -> None:
    tmp_path.chmod(0o700)
    mount = f"{tmp_path}:/docker-entrypoint-initdb.d:ro"
    answer = engine.docker("run", "--rm", "-e", "POSTGRES_PASSWORD=a", "-v", mount, POSTGRES, check=False)
    assert answer.returncode != 0
    assert "/docker-entrypoint-initdb.d/" in answer.stderr
    assert "Permission denied" in answer.stderr


def test_foreign_files_in_the_data_directory_are_left_alone(engine: Engine, tmp_path: Path, images: str) -> None:
    (tmp_path / "thesis.odt").write_text("precious")
    tmp_path.chmod(0o777)
    mount = f"{tmp_path}:/var/lib/postgresql/data"
    assert "yet not empty" in refused(engine, "--user", "postgres", "-e", "POSTGRES_PASSWORD=a", "-v", mount)
    assert (tmp_path / "thesis.odt").read_text() == "precious"


def test_a_second_build_changes_nothing(engine: Engine, images: str) -> None:
    tags = ["shipshape-base:bookworm", POSTGRES, "shipshape-caddy:2"]
    before = engine.inspect(*tags)
    done = subprocess.run([IMAGES / "build"], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.count("up to date") == 3
    assert engine.inspect(*tags) == before


def test_a_missing_ca_bundle_is_one_clear_line() -> None:
    done = subprocess.run([IMAGES / "build", "--ca-bundle", "/nowhere.pem"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "images: error: --ca-bundle /nowhere.pem: there is no such file\n")


def test_an_unreachable_engine_is_one_clear_line() -> None:
    nobody = {**os.environ, "DOCKER_HOST": "unix:///nowhere.sock"}
    done = subprocess.run([IMAGES / "build", "--source", "auto"], capture_output=True, text=True, env=nobody)
    assert done.returncode == 1
    assert done.stderr.startswith("images: error: the Docker engine at unix:///nowhere.sock cannot be reached")
    assert len(done.stderr.splitlines()) == 1
