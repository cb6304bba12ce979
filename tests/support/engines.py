# SPDX-License-Identifier: GPL-3.0-or-later
"""Engines and Compose versions that the machine itself does not run.

`engine2010` is Debian 12's Docker Engine 20.10, `private_engine` a fresh one of the machine's own version that a test
may stop, kill, restart or fill up; `compose_versions` maps each Compose version to the environment that selects it.
A private engine lives in a network namespace of its own, so that it shares neither bridge nor firewall rules with the
machine's engine: reach its published ports with `engine.inside(...)`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.debs import CACHE, unpacked
from tests.support.engine import Engine


@dataclass
class PrivateEngine(Engine):
    """A dockerd of the tests' own. `binaries` comes first in its PATH, `config` goes into its daemon.json."""

    folder: Path = Path()
    binaries: Path | None = None
    config: dict[str, Any] | None = None
    process: subprocess.Popen[bytes] | None = None

    @classmethod
    def at(cls, binaries: Path | None = None, config: dict[str, Any] | None = None) -> PrivateEngine:
        # A short path: a Unix socket's address has room for 107 bytes only.
        folder = Path(tempfile.mkdtemp(prefix="shipshape-"))
        return cls(host=f"unix://{folder}/docker.sock", folder=folder, binaries=binaries, config=config)

    def start(self) -> PrivateEngine:
        (self.folder / "daemon.json").write_text(json.dumps(self.config or {}), encoding="utf-8")
        path = os.environ["PATH"]
        if self.binaries:
            path = f"{self.binaries}/usr/sbin:{self.binaries}/usr/bin:{path}"
        words = [
            "dockerd",
            *("--config-file", f"{self.folder}/daemon.json"),
            *("--data-root", f"{self.folder}/data"),
            *("--exec-root", f"{self.folder}/exec"),
            *("--pidfile", f"{self.folder}/docker.pid"),
            *("--host", self.host),
        ]
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *words],
                env={**os.environ, "PATH": path},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while self.docker("version", check=False).returncode:
            tail = (self.folder / "log").read_text(encoding="utf-8", errors="replace")[-3000:]
            assert self.process.poll() is None, f"the private engine did not start:\n{tail}"
            assert time.monotonic() < deadline, f"the private engine did not answer in time:\n{tail}"
            time.sleep(0.1)
        return self

    def stop(self, sig: int = signal.SIGTERM) -> None:
        """Ends dockerd: with SIGTERM it takes its containers along, with SIGKILL it leaves them as a crash does."""
        if self.process and self.process.poll() is None:
            os.kill(self.process.pid, sig)
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)

    def inside(self, *words: str) -> list[str]:
        """The command line that runs `words` in this engine's network."""
        assert self.process is not None
        return ["nsenter", f"--net=/proc/{self.process.pid}/ns/net", "--", *words]

    def remove(self) -> None:
        self.stop()
        self._end_orphans()
        with open("/proc/mounts", encoding="utf-8") as handle:
            points = [line.split()[1] for line in handle]
        for point in sorted((point for point in points if point.startswith(f"{self.folder}/")), reverse=True):
            subprocess.run(["umount", "--lazy", point], capture_output=True, check=False)
        shutil.rmtree(self.folder)

    def _end_orphans(self) -> None:
        """containerd, its shims and their containers outlive a killed dockerd; all but the last bear our directory."""
        parents: dict[int, int] = {}
        ours: set[int] = set()
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                words = (entry / "cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
                stat = (entry / "stat").read_text(encoding="utf-8", errors="replace")
                parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
                if any(word.startswith(f"{self.folder}/") for word in words):
                    ours.add(int(entry.name))
        for pid, parent in parents.items():
            if (pid in ours or parent in ours) and pid != os.getpid():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def running(binaries: Path | None = None) -> Iterator[PrivateEngine]:
    engine = PrivateEngine.at(binaries)
    try:
        engine.start().ensure_busybox()
        yield engine
    finally:
        engine.remove()


@pytest.fixture(scope="session")
def engine2010() -> Iterator[PrivateEngine]:
    """Docker Engine 20.10 as Debian 12 has it, with its own containerd and runc."""
    packages = ["docker.io", "containerd", "runc", "tini"]
    yield from running(unpacked("engine-20.10", packages, ["bookworm", "bookworm-updates"]))


@pytest.fixture
def private_engine() -> Iterator[PrivateEngine]:
    """An engine of the machine's own version that a test may break; two seconds."""
    yield from running()


@pytest.fixture(scope="session")
def compose_versions() -> dict[str, dict[str, str]]:
    """The machine's own Compose and Debian's newest, each with the environment that selects it."""
    newer = unpacked("compose-newer", ["docker-compose"], ["forky"]) / "usr/libexec/docker/cli-plugins/docker-compose"
    config = CACHE / "compose-newer-config"
    (config / "cli-plugins").mkdir(parents=True, exist_ok=True)
    link = config / "cli-plugins/docker-compose"
    if not link.is_symlink():
        link.symlink_to(newer)
    choices: list[dict[str, str]] = [{}, {"DOCKER_CONFIG": str(config)}]
    found = {}
    for env in choices:
        version = Engine(env=env).docker("compose", "version", "--short").stdout.strip().split("+")[0].split("-")[0]
        found[version] = env
    assert len(found) == 2, f"two Compose versions were expected, not {sorted(found)}"
    return found
