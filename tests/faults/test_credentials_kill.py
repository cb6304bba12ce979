# SPDX-License-Identifier: GPL-3.0-or-later
"""Module `credentials` killed while it rotates, at each system call that changes something: one more run finishes it.

At every moment somebody could still get in: the password that works stands in the env file, in the journal beside it,
or in both. strace kills before the n-th call of a kind: what is written to the disk, sent to the database and to the
engine.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.databases import Rotating, client, provide_postgres, server
from tests.support.engine import Engine, Project, unique
from tests.support.modules import ModuleCall
from tests.support.stacks import Stack

# sendto is libpq, send to the engine is sendto as well; the rest is the journal and the env file.
CALLS = ("sendto", "rename", "unlink", "fsync", "write")
FIRST, SECOND = "First-pa55word", "Second-pa55word"


@pytest.fixture(scope="module")
def project(engine: Engine, busybox: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rotating]:
    provide_postgres()
    name = unique("credkill")
    folder = tmp_path_factory.mktemp("project")
    try:
        found = Rotating(Stack(Project(name, folder, engine)), [FIRST, SECOND])
        found.env(f"DATABASE_URL=postgresql://app:{FIRST}@db/app\n")
        web = client(env_file=".env.production")
        found.stack.write({"db": server(FIRST), "web": web})
        found.up()
        found.wait_for_login(FIRST)
        yield found
    finally:
        engine.sweep(name)


def call(project: Rotating, password: str, *prefix: str) -> tuple[int, str]:
    stack = project.stack
    options = {
        "project_src": str(project.folder),
        "project_name": stack.name,
        "docker_host": stack.project.engine.host,
        "env_files": [".env.production"],
        "state": "rotated",
        "password": password,
        "stability": 0.2,
        "wait_timeout": 60,
    }
    process = ModuleCall("credentials", options, prefix=list(prefix)).process
    out, _err = process.communicate(timeout=180)
    return process.returncode, out.decode()


def known(project: Rotating) -> set[str]:
    """Every password that is written down where somebody could find it."""
    text = (project.folder / ".env.production").read_text()
    found = set(re.findall(r"app:([^@]+)@", text))
    for path in project.folder.glob(".*shipshape-rotation"):
        assert path.stat().st_mode & 0o777 == 0o600
        document = json.loads(path.read_text())
        found |= {document["new"], *document["old"]}
    return found


def finished(project: Rotating, password: str, where: str) -> None:
    # Killed at any time, a password that works is still written down.
    assert any(project.logs_in(word) for word in known(project)), f"{where}: nobody knows the password any more"
    code, out = call(project, password)
    assert code == 0, f"{where}: {out}"
    assert project.logs_in(password), where
    other = FIRST if password == SECOND else SECOND
    assert not project.logs_in(other), where
    assert known(project) == {password}, where
    assert password in project.held("web", "DATABASE_URL"), where
    left = [path.name for path in project.folder.iterdir() if path.name not in (".env.production", "compose.yml")]
    assert not left, f"{where}: {left}"
    assert len(project.stack.containers()) == 2, where


def points(project: Rotating, tmp_path: Path) -> list[tuple[str, int]]:
    """Each changing call of an undisturbed rotation of the module's own process: strace counts by thread."""
    log = tmp_path / "strace.log"
    code, out = call(project, SECOND, "strace", "-f", "-qq", "-o", str(log), "-e", f"trace={','.join(CALLS)}")
    assert code == 0, out
    finished(project, FIRST, "on the way back")
    counted: dict[tuple[str, str], int] = {}
    for thread, name in re.findall(r"^(\d+)\s+(\w+)\(", log.read_text(errors="replace"), re.MULTILINE):
        counted[thread, name] = counted.get((thread, name), 0) + 1
    most = {name: max((count for (_, at), count in counted.items() if at == name), default=0) for name in CALLS}
    assert most["rename"] >= 2, most  # the journal and the env file
    assert most["unlink"] >= 1, most
    return [(name, at) for name, count in most.items() for at in range(1, count + 1)]


def killed_everywhere(project: Rotating, tmp_path: Path, every: int) -> None:
    if not project.logs_in(FIRST):
        finished(project, FIRST, "at the beginning")
    places = points(project, tmp_path)
    chosen = [at for at in places if at[0] in ("rename", "unlink")] if every > 1 else places
    chosen += [at for at in places if at not in chosen][::every] if every > 1 else []
    kills = 0
    now, then = FIRST, SECOND
    for name, at in chosen:
        code, _out = call(
            project, then, "strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={name}",
            "-e", f"inject={name}:signal=KILL:when={at}",
        )  # fmt: skip
        kills += code in (-signal.SIGKILL, 128 + signal.SIGKILL)
        finished(project, then, f"killed at {name} {at}")
        now, then = then, now
    assert kills >= len(chosen) // 2, f"only {kills} of {len(chosen)} were killed"


def test_killed_at_some_calls(project: Rotating, tmp_path: Path) -> None:
    killed_everywhere(project, tmp_path, 40)


@pytest.mark.long
def test_killed_at_every_call(project: Rotating, tmp_path: Path) -> None:
    killed_everywhere(project, tmp_path, 1)
