# SPDX-License-Identifier: GPL-3.0-or-later
"""What the comparisons of `stack` share: projects of many small containers, timed playbooks and timed commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.support.engine import BUSYBOX  # noqa: E402  (found only from the checkout's top)

STAY = ["sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"]
NOOP = """
    - ansible.builtin.meta: noop
"""
_PLAY = """
- hosts: localhost
  gather_facts: false
  tasks:
"""


def write_project(directory: Path, count: int) -> None:
    """A project of `count` services that start at once and end at once."""
    services = {f"s{number:03}": {"image": BUSYBOX, "command": STAY} for number in range(count)}
    (directory / "compose.yaml").write_text(json.dumps({"services": services}))


@contextmanager
def project(count: int) -> Iterator[Path]:
    """A directory with such a project; whatever was deployed from it is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="shipshape-bench-") as name:
        directory = Path(name)
        write_project(directory, count)
        try:
            yield directory
        finally:
            down(directory)


def down(directory: Path) -> None:
    seconds(["docker", "compose", "down", "--timeout", "1"], cwd=directory)


def playbook(directory: Path, tasks: str, collections: Path | None = None) -> float:
    """Seconds that ansible-playbook takes for `tasks` (YAML, indented for a play); `collections`: where more are."""
    play = directory / "play.yml"
    play.write_text(_PLAY + tasks)
    paths = [str(ROOT / ".tree"), *([str(collections)] if collections else [])]
    env = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": ":".join(paths), "ANSIBLE_LOCALHOST_WARNING": "false"}
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", "-c", "local", str(play)]
    command += ["-e", json.dumps({"project": str(directory), "ansible_python_interpreter": sys.executable})]
    return seconds(command, env=env)


def seconds(command: list[str], **options: Any) -> float:
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, **options)
    elapsed = time.monotonic() - started
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return elapsed


def row(
    work: str, peer: str, ours: float, theirs: float | None, bound: str, ok: bool, ratio: float | None
) -> dict[str, Any]:
    """One row as run.py wants it."""
    return {"work": work, "peer": peer, "ours_s": ours, "peer_s": theirs, "ratio": ratio, "bound": bound, "ok": ok}
