# SPDX-License-Identifier: GPL-3.0-or-later
"""A real engine for the tests: a small image, names of one's own, and nothing left behind.

Fixtures: `engine` (the machine's engine), `busybox` (the image's name), `prefix` (a name of this test's own; whatever
bears it is removed afterwards), `project` (the same, as a Compose project with a directory).
"""

from __future__ import annotations

import io
import json
import os
import secrets
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.debs import locked, unpacked

BUSYBOX = "shipshape-test/busybox:1"
SOCKET = "unix:///var/run/docker.sock"


@dataclass
class Engine:
    """One engine, driven by the docker command: what the tests look at is never read through the code under test."""

    host: str = SOCKET
    env: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "DOCKER_HOST": self.host, **self.env}

    def docker(self, *words: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["docker", *words], env=self.environment, capture_output=True, text=True, check=False, **options
        )
        if check and done.returncode:
            raise AssertionError(f"docker {' '.join(words)} failed ({done.returncode}):\n{done.stdout}{done.stderr}")
        return done

    def compose(self, folder: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.docker("compose", *words, cwd=folder, check=check)

    def lines(self, *words: str) -> list[str]:
        return self.docker(*words).stdout.split("\n")[:-1]

    def inspect(self, *names: str) -> list[dict[str, Any]]:
        if not names:
            return []
        found: list[dict[str, Any]] = json.loads(self.docker("inspect", *names).stdout)
        return found

    def containers(self, project: str, service: str | None = None) -> list[dict[str, Any]]:
        """Inspected containers of a Compose project, stopped ones too, by name."""
        filters = ["--filter", f"label=com.docker.compose.project={project}"]
        if service:
            filters += ["--filter", f"label=com.docker.compose.service={service}"]
        ids = self.lines("ps", "-aq", "--no-trunc", *filters)
        return sorted(self.inspect(*ids), key=lambda container: str(container["Name"]))

    def ensure_busybox(self) -> str:
        """Imports the test image when it is absent: about a second, from Debian's busybox-static."""
        label = ["image", "inspect", BUSYBOX, "--format", '{{index .Config.Labels "shipshape.test"}}']
        with locked("busybox-image"):
            if self.docker(*label, check=False).stdout.strip() == "busybox":
                return BUSYBOX
            changes = ['CMD ["/bin/sh"]', "ENV PATH=/bin", "LABEL shipshape.test=busybox"]
            words = [word for change in changes for word in ("--change", change)]
            done = subprocess.run(
                ["docker", "import", *words, "-", BUSYBOX],
                env=self.environment,
                input=_rootfs(),
                capture_output=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr.decode()
        return BUSYBOX

    def leftovers(self, prefix: str) -> dict[str, list[str]]:
        """Everything whose name, or whose Compose project, starts with `prefix`."""
        listings = {
            "container": ["ps", "-a", "--format", '{{.Names}}\t{{.Label "com.docker.compose.project"}}'],
            "network": ["network", "ls", "--format", '{{.Name}}\t{{.Label "com.docker.compose.project"}}'],
            "volume": ["volume", "ls", "--format", '{{.Name}}\t{{.Label "com.docker.compose.project"}}'],
            "image": ["images", "--format", "{{.Repository}}:{{.Tag}}\t"],
        }
        found: dict[str, list[str]] = {}
        for kind, words in listings.items():
            rows = [line.split("\t") for line in self.lines(*words)]
            names = [row[0] for row in rows if any(part.startswith(prefix) for part in row)]
            if names:
                found[kind] = names
        return found

    def sweep(self, prefix: str) -> None:
        """Removes what bears `prefix`, and says so when something would not go."""
        assert len(prefix) > 3, f"{prefix!r} is too short to be one test's own"
        removals = {
            "container": ["rm", "-fv"],
            "network": ["network", "rm"],
            "volume": ["volume", "rm", "-f"],
            "image": ["rmi", "-f"],
        }
        deadline = time.monotonic() + 20
        while left := self.leftovers(prefix):
            for kind, names in left.items():
                self.docker(*removals[kind], *names, check=False)
            assert time.monotonic() < deadline, f"left behind after the test: {left}"


@dataclass
class Project:
    """A Compose project of one test's own: its name, its directory, its engine."""

    name: str
    folder: Path
    engine: Engine

    def write(self, definition: dict[str, Any] | str, name: str = "compose.yml") -> Path:
        text = definition if isinstance(definition, str) else yaml.safe_dump(definition, sort_keys=False)
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path

    def compose(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.engine.compose(self.folder, "--project-name", self.name, *words, check=check)

    def containers(self, service: str | None = None) -> list[dict[str, Any]]:
        return self.engine.containers(self.name, service)


def unique(stem: str = "st") -> str:
    """A name that no other test has: valid for projects, containers, networks, volumes and images."""
    return f"{stem}-{secrets.token_hex(4)}"


def _rootfs() -> bytes:
    busybox = unpacked("busybox", ["busybox-static"], ["bookworm"]) / "bin/busybox"
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    files = {
        "bin/busybox": busybox.read_bytes(),
        "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        "etc/group": b"root:x:0:\nnogroup:x:65534:\n",
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, mode in {"bin": 0o755, "etc": 0o755, "root": 0o700, "tmp": 0o1777, "srv": 0o755}.items():
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, mode
            tar.addfile(folder)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755 if name.startswith("bin/") else 0o644
            tar.addfile(member, io.BytesIO(content))
        for applet in sorted(set(applets) - {"busybox"}):
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def engine() -> Engine:
    """The machine's own engine. A missing engine is a failure and not a skip: a skipped suite proves nothing."""
    found = Engine()
    assert found.docker("version", check=False).returncode == 0, f"no engine answers at {found.host}"
    return found


@pytest.fixture(scope="session")
def busybox(engine: Engine) -> str:
    return engine.ensure_busybox()


@pytest.fixture
def prefix(engine: Engine) -> Iterator[str]:
    """A name of this test's own; whatever starts with it is gone afterwards."""
    name = unique()
    try:
        yield name
    finally:
        engine.sweep(name)


@pytest.fixture
def project(engine: Engine, busybox: str, prefix: str, tmp_path: Path) -> Project:
    """A Compose project of this test's own, with the test image at hand."""
    folder = tmp_path / "project"
    folder.mkdir()
    return Project(prefix, folder, engine)
