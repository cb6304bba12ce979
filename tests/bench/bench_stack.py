# SPDX-License-Identifier: GPL-3.0-or-later
"""50 new containers: `stack` against `docker compose up -d`, both from nothing to running, alternating in one run.

The task alone is compared (the whole playbook less an empty one), because Ansible's own start is not what either of
them does; the whole playbook's time stands beside it. `stability: 0`, because Compose does not watch what it started.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.support.engine import BUSYBOX, Engine  # noqa: E402  (found only from the checkout's top)

CONTAINERS = 50
ROUNDS = 3
BOUND = 1.0

_PLAY = """
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.meta: noop
"""
_TASK = """
    - shipshape.deploy.stack:
        project_src: "{{ project }}"
        stability: 0
"""


def write_project(directory: Path, count: int) -> None:
    """A project of `count` services that start at once and end at once."""
    service = {"image": BUSYBOX, "command": ["sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"]}
    services = {f"s{number:03}": service for number in range(count)}
    (directory / "compose.yaml").write_text(json.dumps({"services": services}))


def playbook(directory: Path, *tasks: str) -> float:
    """Seconds that ansible-playbook takes for `tasks` (YAML, indented for a play)."""
    play = directory / "play.yml"
    play.write_text(_PLAY + "".join(tasks))
    env = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".tree"), "ANSIBLE_LOCALHOST_WARNING": "false"}
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


def rows() -> list[dict[str, Any]]:
    Engine().ensure_busybox()
    ours, peer, empty = [], [], []
    with tempfile.TemporaryDirectory(prefix="shipshape-bench-") as name:
        directory = Path(name)
        write_project(directory, CONTAINERS)
        down = ["docker", "compose", "down", "--timeout", "1"]
        try:
            for _ in range(ROUNDS):
                peer.append(seconds(["docker", "compose", "up", "-d"], cwd=directory))
                seconds(down, cwd=directory)
                ours.append(playbook(directory, _TASK))
                seconds(down, cwd=directory)
                empty.append(playbook(directory))
        finally:
            seconds(down, cwd=directory)
    whole, alone = statistics.median(ours), statistics.median(ours) - statistics.median(empty)
    theirs = statistics.median(peer)
    return [
        {
            "work": f"{CONTAINERS} new containers (the task; the whole playbook takes {whole:.1f} s)",
            "peer": "docker compose up -d",
            "ours_s": alone,
            "peer_s": theirs,
            "ratio": alone / theirs,
            "bound": f"<= {BOUND}",
            "ok": alone / theirs <= BOUND,
        }
    ]


if __name__ == "__main__":
    print(json.dumps(rows(), indent=2))
