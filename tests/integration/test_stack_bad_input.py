# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever is wrong with what `stack` is given: one clear message, and nothing of the running project touched.

Every row is given to a project that runs; its containers, networks and volumes must afterwards be the very same.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.corpus.observe import Observed, observe
from tests.support.engine import BUSYBOX, Engine, unique
from tests.support.engines import PrivateEngine
from tests.support.modules import ModuleCall, run_module

GOOD = f"""\
services:
  web:
    image: {BUSYBOX}
    command: [sleep, "3600"]
    stop_signal: SIGKILL
    volumes: [data:/data]
  db:
    image: {BUSYBOX}
    command: [sleep, "3600"]
    stop_signal: SIGKILL
volumes:
  data:
"""
CHANGED = GOOD.replace("volumes: [data:/data]", "environment: {CHANGED: '1'}")
LONG_ID = re.compile(r"\b[0-9a-f]{64}\b")


@dataclass
class Running:
    """The project that runs while it is given bad input."""

    engine: Engine
    name: str
    folder: Path

    def look(self) -> Observed:
        return observe(self.engine, self.name)

    def stack(self, text: str | bytes | None = None, **options: Any) -> dict[str, Any]:
        if text is not None:
            content = text.encode() if isinstance(text, str) else text
            (self.folder / "compose.yaml").write_bytes(content)
        return run_module("stack", self.arguments(**options))

    def arguments(self, **options: Any) -> dict[str, Any]:
        given = {"project_src": str(self.folder), "project_name": self.name, "docker_host": self.engine.host}
        return {**given, "stability": 0, "wait_timeout": 20, **options}


@pytest.fixture(scope="module")
def running(engine: Engine, busybox: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    project = Running(engine, unique("bad"), tmp_path_factory.mktemp("bad-input"))
    try:
        done = project.stack(GOOD)
        assert not done.get("failed"), done
        yield project
    finally:
        engine.sweep(project.name)


def refused(result: dict[str, Any], *words: str) -> None:
    """It failed, changed nothing, and says in one line all of `words`."""
    failed(result, *words)
    assert result["changed"] is False, result


def failed(result: dict[str, Any], *words: str) -> None:
    """It failed, and says in one line all of `words`."""
    assert result.get("failed"), f"it did not fail: {result}"
    message = result["msg"]
    assert "Traceback" not in json.dumps(result)
    assert "\n" not in message, message
    assert not LONG_ID.search(message), message
    for word in words:
        assert re.search(word, message), f"{word!r} is not in: {message}"
    critical = [finding for finding in result["findings"] if finding["severity"] == "critical"]
    assert critical, result
    assert all(finding["code"] and finding["remedy"] and finding["subject"] for finding in critical), critical


def untouched(before: Observed, after: Observed) -> None:
    assert after.identities() == before.identities()
    assert after.networks.keys() == before.networks.keys()
    assert after.volumes.keys() == before.volumes.keys()


def service(lines: str) -> str:
    """The good file with `lines` added to service web."""
    return CHANGED.replace("  db:\n", "".join(f"    {line}\n" for line in lines.splitlines()) + "  db:\n", 1)


# What the file says -> what the message must say.
FILES: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    "tab": (GOOD.replace("    command", "\tcommand", 1), (r"compose\.yaml", r"line \d+")),
    "unclosed": (GOOD.replace('"3600"]', '"3600"', 1), (r"compose\.yaml", r"line \d+")),
    "indentation": (GOOD.replace("    command", "     command", 1), (r"compose\.yaml", r"line \d+")),
    "not a mapping": ("just words\n", (r"compose\.yaml",)),
    "empty": ("", (r"compose\.yaml", "empty")),
    "binary": (b"\x00\x01\xfe\xff" * 64, (r"compose\.yaml",)),
    "not UTF-8": (GOOD.encode().replace(b"3600", b"\xe4\xf6"), (r"compose\.yaml",)),
    "unknown key": (service("imagee: x"), (r"compose\.yaml", r"services\.web", "imagee")),
    "unknown top-level key": (GOOD + "servces: {}\n", (r"compose\.yaml", "servces")),
    "wrong type": (service("privileged: [yes]"), (r"compose\.yaml", r"services\.web", "privileged")),
    "bad port": (service('ports: ["eighty:80"]'), (r"compose\.yaml", "eighty|hostPort|port")),
    "bad size": (service("mem_limit: 12 parsecs"), (r"compose\.yaml", "web", "mem_limit", "parsecs")),
    "bad duration": (service("stop_grace_period: soon"), (r"compose\.yaml", "soon")),
    "required variable": (
        service("hostname: ${NOWHERE:?set it in production.env}"),
        ("NOWHERE", "set it in production"),
    ),
    "bad interpolation": (service("hostname: ${NOWHERE"), (r"compose\.yaml", r"services\.web\.hostname")),
    "undefined dependency": (service("depends_on: [nobody]"), (r"compose\.yaml", "web", "nobody")),
    "circle": (service("depends_on: [web]"), ("web", "cycle|circle|itself")),
    "undefined network": (service("networks: [nowhere]"), (r"compose\.yaml", "web", "nowhere")),
    "undefined volume": (service("volumes: [nothing:/x]"), (r"compose\.yaml", "web", "nothing")),
    "undefined secret": (service("secrets: [none]"), (r"compose\.yaml", "web", "none")),
    "undefined config": (service("configs: [none]"), (r"compose\.yaml", "web", "none")),
    "neither image nor build": (CHANGED.replace(f"    image: {BUSYBOX}\n", "", 1), (r"compose\.yaml", "web", "image")),
    "missing env_file": (service("env_file: absent.env"), ("absent.env",)),
    "missing extends": (service("extends: {file: absent.yaml, service: web}"), ("absent.yaml",)),
    "missing include": ("include: [absent.yaml]\n" + GOOD, ("absent.yaml",)),
    "missing bind": (
        service("volumes: [{type: bind, source: ./absent, target: /x, bind: {create_host_path: false}}]"),
        ("web", "absent", "create_host_path"),
    ),
    "missing config file": (
        service("configs: [conf]") + "configs: {conf: {file: ./absent.conf}}\n",
        ("web", r"absent\.conf"),
    ),
    "missing external network": (
        service("networks: [outside]") + "networks: {outside: {external: true, name: no-such-network}}\n",
        ("no-such-network",),
    ),
    "missing external volume": (
        service("volumes: [outside:/x]") + "  outside: {external: true, name: no-such-volume}\n",
        ("no-such-volume",),
    ),
    "image absent": (
        CHANGED.replace(f"image: {BUSYBOX}", "image: shipshape-test/absent:7", 1),
        ("shipshape-test/absent:7",),
    ),
    "image name invalid": (CHANGED.replace(f"image: {BUSYBOX}", "image: Not:An:Image", 1), ("web", "Not:An:Image")),
    "build fails": (
        CHANGED.replace(f"image: {BUSYBOX}", f"build: {{dockerfile_inline: 'FROM {BUSYBOX}\n\n      RUN exit 3'}}", 1),
        ("web", "exit"),
    ),
    "no such runtime": (service("runtime: no-such-runtime"), ("web", "no-such-runtime")),
    "too many processors": (service("cpus: 4096"), ("web", "CPUs", "definition")),
    "address outside": (
        service("networks: {default: {ipv4_address: 10.99.99.99}}"),
        ("web",),
    ),
}


@pytest.mark.parametrize("what", FILES)
def test_a_bad_file_is_refused(running: Running, what: str) -> None:
    text, words = FILES[what]
    before, begun = running.look(), time.monotonic()
    refused(running.stack(text), *words)
    untouched(before, running.look())
    assert time.monotonic() - begun < 30


def test_an_unset_variable_is_told_and_names_itself(running: Running) -> None:
    """Compose puts an empty text there, and so do we; nobody should have to look for why."""
    result = running.stack(GOOD.replace('"3600"', '"3600${NOWHERE}"', 1))
    assert not result.get("failed"), result
    told = [finding for finding in result["findings"] if "NOWHERE" in finding["message"]]
    assert [(finding["severity"], finding["code"]) for finding in told] == [("warning", "variable-unset")]


OPTIONS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "no such directory": ({"project_src": "/no/such/directory"}, ("/no/such/directory",)),
    "no such file": ({"files": ["absent.yaml"]}, (r"absent\.yaml",)),
    "no such env file": ({"env_files": ["absent.env"]}, (r"absent\.env",)),
    "unknown profile": ({"profiles": ["nobody-has-it"]}, ("nobody-has-it",)),
    "unknown service": ({"services": ["web", "nobody"]}, ("nobody",)),
    "bad project name": ({"project_name": "Not A Name"}, ("Not A Name|project name",)),
    "engine not there": ({"docker_host": "unix:///no/such/docker.sock"}, ("/no/such/docker.sock",)),
    "engine not at the port": ({"docker_host": "tcp://127.0.0.1:9"}, (r"127\.0\.0\.1:9",)),
    "bad address": ({"docker_host": "gopher://somewhere"}, ("gopher",)),
}


@pytest.mark.parametrize("what", OPTIONS)
def test_a_bad_option_is_refused(running: Running, what: str) -> None:
    options, words = OPTIONS[what]
    before = running.look()
    refused(running.stack(CHANGED, **options), *words)
    untouched(before, running.look())


def test_a_directory_without_a_compose_file(running: Running, tmp_path: Path) -> None:
    refused(run_module("stack", running.arguments(project_src=str(tmp_path))), str(tmp_path), r"compose\.ya?ml")


def test_a_bad_definition_names_what_is_bad(running: Running) -> None:
    before = running.look()
    definition = {"services": {"web": {"image": BUSYBOX, "imagee": "x"}}}
    arguments = running.arguments(definition=definition)
    refused(run_module("stack", arguments), "definition", r"services\.web", "imagee")
    untouched(before, running.look())


@pytest.fixture
def port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


# What only shows when a container starts: its predecessor has been stopped by then, and must run again.
STARTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "port in use": ('ports: ["127.0.0.1:{port}:80"]', ("web", "{port}")),
    "no such program": ("entrypoint: [no-such-program]", ("web", "no-such-program")),
    "no such device": ("devices: [/dev/no-such-device]", ("web", "no-such-device")),
    "no such user": ("user: nobody-of-that-name", ("web", "nobody-of-that-name")),
}


@pytest.mark.parametrize("what", STARTS)
def test_a_container_that_cannot_start_leaves_the_old_one_running(running: Running, port: int, what: str) -> None:
    lines, words = STARTS[what]
    before = running.look()
    result = running.stack(service(lines.format(port=port)))
    failed(result, *(word.format(port=port) for word in words))
    after = running.look()
    same = [{name: each["Id"] for name, each in look.containers.items()} for look in (before, after)]
    assert same[0] == same[1]
    assert all(each["State"]["Status"] == "running" for each in after.containers.values())


def test_nobody_may_reach_the_engine(running: Running) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    before = running.look()
    (running.folder / "compose.yaml").write_text(CHANGED, encoding="utf-8")
    outside = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    running.folder.chmod(0o755)
    for parent in running.folder.parents:
        with suppress(PermissionError):
            parent.chmod(parent.stat().st_mode | 0o005) if parent.is_relative_to("/tmp/") else None
    call = ModuleCall("stack", running.arguments(), prefix=outside, env={"HOME": "/tmp"})
    refused(call.wait(), r"docker\.sock", "may not|denied", "become|group")
    untouched(before, running.look())


def test_a_socket_that_nobody_listens_on(running: Running, tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    refused(running.stack(CHANGED, docker_host=f"unix://{path}"), str(path), "start|running")


def test_something_else_listens(running: Running, port: int) -> None:
    refused(running.stack(CHANGED, docker_host=f"tcp://127.0.0.1:{port}", timeout=2), str(port))


def commands(folder: Path, *names: str) -> str:
    """A PATH that has only these commands."""
    for name in names:
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    return str(folder)


def test_no_docker_command(running: Running, tmp_path: Path) -> None:
    call = ModuleCall("stack", running.arguments(), env={"PATH": commands(tmp_path, "env")})
    result = call.wait()
    # The usual places are looked at beside PATH, so the command may still be found; then all is well.
    if result.get("failed"):
        refused(result, "docker")


def full(folder: Path) -> Callable[[], None]:
    """A small file system mounted at `folder`; returns what unmounts it."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], check=True)
    return lambda: subprocess.run(["umount", "--lazy", str(folder)], check=False) and None


def test_the_engines_disk_is_full(tmp_path: Path) -> None:
    """A private engine on a small file system, filled up: the message says so, and what ran still runs."""
    engine = PrivateEngine.at(config={"storage-driver": "vfs"})
    unmount = full(engine.folder / "data")
    try:
        engine.start().ensure_busybox()
        project = Running(engine, unique("full"), tmp_path)
        done = project.stack(GOOD)
        assert not done.get("failed"), done
        before = project.look()
        with open(engine.folder / "data" / "filler", "wb") as filler, suppress(OSError):
            while True:
                filler.write(b"\0" * 65536)
                filler.flush()
        result = project.stack(CHANGED)
        refused(result, "web|disk", "no space left|full")
        assert any(finding["code"] == "disk-full" for finding in result["findings"]), result["findings"]
        after = project.look()
        assert {name: each["Id"] for name, each in after.containers.items()} == {
            name: each["Id"] for name, each in before.containers.items()
        }
        (engine.folder / "data" / "filler").unlink()
        assert project.stack().get("changed"), "with room again, the same call does its work"
    finally:
        engine.stop()
        unmount()
        engine.remove()
