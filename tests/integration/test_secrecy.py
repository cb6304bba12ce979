# SPDX-License-Identifier: GPL-3.0-or-later
"""Distinct secrets in every place where a project can have one; every module, at -vvv with --diff, in success and in
failure; and none of them can be read anywhere else afterwards, in whatever spelling."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.databases import client, provide_postgres, server
from tests.support.engine import Engine, unique
from tests.support.stacks import leaks

ROOT = Path(__file__).resolve().parents[2]
# Odd on purpose: each has a spelling of its own in URLs, in JSON and in env files.
SECRETS = {
    "database": "db-P4ss/w%rd+1",
    "rendered": "ren'd\"er $ed-P4ss",
    "literal": "lit-P4ss:w@rd",
    "token": "tok-P4ss&word?",
    "config": "con\\f-P4ss word",
    "script": "scr-P4ss#word",
    "registry": "reg-P4ss=word",
    "inline": "inl-P4ss\tword",
    "vault": "vau-P4ssword",
    "next": "nex-P4ss/word",
}
# The images of a registry that is not there.
NOWHERE = "127.0.0.1:9/nothing:1"


@dataclass
class Site:
    folder: Path
    engine: Engine
    name: str

    @property
    def src(self) -> Path:
        return self.folder / "src"

    @property
    def dest(self) -> Path:
        return self.folder / "srv" / self.name

    def write(self, command: str, image: str = "") -> None:
        self.src.mkdir(exist_ok=True)
        url = f"postgresql://app:{quoted(SECRETS['database'])}@db:5432/app"
        web = client(
            env_file=[".env.production", ".env.own"],
            environment={"DATABASE_URL": url, "LITERAL_PASSWORD": SECRETS["literal"], "SHELL_TOKEN": "${SHELL_TOKEN}"},
            labels={"owner.token": SECRETS["token"]},
            configs=[{"source": "settings", "target": "/etc/settings"}],
            command=["sh", "-c", command],
        )
        web |= {"image": image} if image else {}
        document = {
            "services": {"db": server(SECRETS["database"]), "web": web},
            "configs": {"settings": {"content": f"password = {SECRETS['config']}"}},
        }
        (self.src / "compose.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
        # A user's own file, shipped as it is.
        (self.src / ".env.own").write_text(f"OWN_SECRET={SECRETS['vault']}\n", encoding="utf-8")

    def tasks(self) -> list[dict[str, Any]]:
        project = {"project_src": str(self.dest), "env_files": [".env.production"]}
        quick = {"stability": 0.5, "wait_timeout": 60}
        login = {"registry": "127.0.0.1:9", "username": "deploy", "password": SECRETS["registry"]}
        rendered = {"RENDERED_PASSWORD": SECRETS["rendered"], "SHELL_TOKEN": SECRETS["token"]}
        script = f"#!/bin/sh\nPGPASSWORD='{SECRETS['script']}'\nexit 0\n"
        inline = {"services": {"one": client(environment={"INLINE_PASSWORD": SECRETS["inline"]})}}
        asked = {
            "tree": {"src": str(self.src), "dest": str(self.dest), "env_files": {".env.production": rendered}},
            "script": {"content": script, "dest": str(self.folder / "tool.sh"), "run": True},
            "preflight": {**project, "registry_auth": [login]},
            "stack": {**project, **quick},
            "stack_info": project,
            "image": {**project, "version_marker": r"VERSION=(\S+)"},
            "credentials": project,
            "credentials ": {**project, **quick, "state": "rotated", "password": SECRETS["next"]},
            "stack ": {"definition": inline, "project_name": f"{self.name}-inline", **quick},
            "stack  ": {**project, "state": "absent", "remove_volumes": True, "wait_timeout": 60},
        }
        return [
            {"name": f"Call {name}", f"shipshape.deploy.{name.strip()}": options, "ignore_errors": True}
            for name, options in asked.items()
        ]

    def play(self) -> tuple[str, list[str]]:
        """What was printed, and which tasks failed."""
        play = [{"hosts": "localhost", "gather_facts": False, "tasks": self.tasks()}]
        path = self.folder / "play.yml"
        path.write_text(yaml.safe_dump(play), encoding="utf-8")
        env = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".tree"),
            "ANSIBLE_LOCAL_TEMP": str(self.folder / "tmp"),
            "ANSIBLE_REMOTE_TEMP": str(self.folder / "remote"),
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_NOCOLOR": "1",
        }
        variables = json.dumps({"ansible_python_interpreter": sys.executable})
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", "-c", "local"]
        done = subprocess.run(
            [*command, "-vvv", "--diff", "-e", variables, str(path)],
            env=env,
            capture_output=True,
            text=True,
            timeout=400,
        )
        printed = done.stdout + done.stderr
        assert done.returncode == 0, printed
        blocks = printed.split("\nTASK [")[1:]
        return printed, [block.partition("]")[0] for block in blocks if "\nfatal: " in block]

    def labels(self) -> str:
        """What we have written on the project's containers; a label of the user's own is the user's."""
        told = [at["Config"]["Labels"] for at in self.engine.containers(self.name)]
        return json.dumps([{key: at[key] for key in at if key != "owner.token"} for at in told])


def quoted(text: str) -> str:
    from urllib.parse import quote

    return quote(text, safe="")


@contextmanager
def watched_processes(found: set[str]) -> Iterator[None]:
    """Collects the command line of every process of the machine, as fast as it can look."""
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            for entry in Path("/proc").iterdir():
                if entry.name.isdigit():
                    try:
                        found.add((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
                    except OSError:
                        continue

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def left_behind(folder: Path, since: set[Path]) -> list[str]:
    """What lies in the places for temporary files and in ours, and did not before."""
    found = [path for path in Path(tempfile.gettempdir()).glob("*") if path not in since]
    for place in (folder / "tmp", folder / "remote", Path("/var/lib/shipshape")):
        found += place.rglob("*")
    texts = []
    for path in found:
        with suppress(FileNotFoundError):  # other tests have their files there, too
            if path.is_file():
                texts.append(path.read_text(encoding="utf-8", errors="replace"))
    return texts


@pytest.fixture
def site(engine: Engine, busybox: str, tmp_path: Path) -> Iterator[Site]:
    provide_postgres()
    name = unique("secret")
    yield Site(tmp_path, engine, name)
    engine.sweep(name)


STAYS = "trap 'exit 0' TERM; sleep 3600 & wait"
# It says what it has been given, as applications do that dump their configuration when they fail.
TELLS = "env; cat /etc/settings; env >&2; exit 3"


@pytest.mark.parametrize(
    ("command", "image", "failing"),
    [
        (STAYS, "", {"Call image"}),  # nothing is baked in, so the marker is nowhere
        (TELLS, "", {"Call image", "Call stack"}),
        (STAYS, NOWHERE, {"Call preflight", "Call stack"}),
    ],
    ids=["success", "a container that tells all", "a registry that is not there"],
)
def test_no_secret_is_shown_or_left(site: Site, command: str, image: str, failing: set[str]) -> None:
    site.write(command.replace("$", "$$"), image)
    before = set(Path(tempfile.gettempdir()).glob("*"))
    processes: set[str] = set()
    with watched_processes(processes):
        printed, failed = site.play()
    assert failing <= set(failed), f"{failed}: {printed}"
    assert "Call tree" not in failed, printed
    secrets = SECRETS.values()
    assert not leaks(secrets, printed), f"printed: {leaks(secrets, printed)}"
    assert not leaks(secrets, *processes), f"in the list of processes: {leaks(secrets, *processes)}"
    left = left_behind(site.folder, before)
    assert not leaks(secrets, *left), f"left in a temporary file: {leaks(secrets, *left)}"
    assert not leaks(secrets, site.labels()), "written on a container"


def test_the_search_finds_what_is_there(site: Site) -> None:
    """The same search, over what does hold the secrets."""
    site.write(STAYS)
    text = (site.src / "compose.yaml").read_text(encoding="utf-8")
    assert set(leaks(SECRETS.values(), text)) >= {SECRETS["database"], SECRETS["literal"], SECRETS["token"]}
    processes: set[str] = set()
    with watched_processes(processes):
        subprocess.run(["sh", "-c", "sleep 0.5; : of-this-test"], check=True)
    assert leaks(["of-this-test"], *processes)
