# SPDX-License-Identifier: GPL-3.0-or-later
"""50 new containers: `stack` against `docker compose up -d`, both from nothing to running, alternating in one run.

The module's own process is compared with Compose's, because Ansible's start and transport are what neither of them
does; what a whole playbook takes stands beside it. `stability: 0`, because Compose does not watch what it started.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.projects import down, playbook, project, row, seconds
from tests.support.engine import Engine
from tests.support.modules import ModuleCall

CONTAINERS = 50
ROUNDS = 5
BOUND = 1.0

_TASK = """
    - shipshape.deploy.stack:
        project_src: "{{ project }}"
        stability: 0
"""


def module(directory: Path) -> float:
    started = time.monotonic()
    result = ModuleCall("stack", {"project_src": str(directory), "stability": 0}).wait()
    elapsed = time.monotonic() - started
    if result.get("failed") or not result["changed"]:
        raise RuntimeError(f"it should have created everything: {result}")
    return elapsed


def rows() -> list[dict[str, Any]]:
    Engine().ensure_busybox()
    ours, peer = [], []
    with project(CONTAINERS) as directory:
        for _ in range(ROUNDS):
            peer.append(seconds(["docker", "compose", "up", "-d"], cwd=directory))
            down(directory)
            ours.append(module(directory))
            down(directory)
        whole = playbook(directory, _TASK)
    mine, theirs = statistics.median(ours), statistics.median(peer)
    work = f"{CONTAINERS} new containers (a whole playbook takes {whole:.1f} s)"
    # Each pair ran within one minute: what else the machine does by then weighs on both.
    ratio = statistics.median(one / other for one, other in zip(ours, peer))
    return [row(work, "docker compose up -d", mine, theirs, f"<= {BOUND}", ratio <= BOUND, ratio)]


if __name__ == "__main__":
    print(json.dumps(rows(), indent=2))
