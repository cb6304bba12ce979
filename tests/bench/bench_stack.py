# SPDX-License-Identifier: GPL-3.0-or-later
"""50 new containers: `stack` against `docker compose up -d`, both from nothing to running, alternating in one run.

The task alone is compared (the whole playbook less an empty one), because Ansible's own start is not what either of
them does; the whole playbook's time stands beside it. `stability: 0`, because Compose does not watch what it started.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.projects import NOOP, down, playbook, project, row, seconds
from tests.support.engine import Engine

CONTAINERS = 50
ROUNDS = 3
BOUND = 1.0

_TASK = """
    - shipshape.deploy.stack:
        project_src: "{{ project }}"
        stability: 0
"""


def rows() -> list[dict[str, Any]]:
    Engine().ensure_busybox()
    ours, peer, empty = [], [], []
    with project(CONTAINERS) as directory:
        for _ in range(ROUNDS):
            peer.append(seconds(["docker", "compose", "up", "-d"], cwd=directory))
            down(directory)
            ours.append(playbook(directory, _TASK))
            down(directory)
            empty.append(playbook(directory, NOOP))
    whole, alone = statistics.median(ours), statistics.median(ours) - statistics.median(empty)
    theirs = statistics.median(peer)
    work = f"{CONTAINERS} new containers (the task; the whole playbook takes {whole:.1f} s)"
    ratio = alone / theirs
    return [row(work, "docker compose up -d", alone, theirs, f"<= {BOUND}", ratio <= BOUND, ratio)]


if __name__ == "__main__":
    print(json.dumps(rows(), indent=2))
