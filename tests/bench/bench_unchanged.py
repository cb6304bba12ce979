# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers that nothing has to be done to: `stack`, which inspects each of them, against community.docker.

Whole playbooks with one task each are compared, alternating; for what a container costs, an empty playbook's time is
taken off both.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.projects import NOOP, ROOT, STAY, playbook, project, row, seconds
from tests.support.engine import BUSYBOX, Engine, unique
from tests.support.modules import ModuleCall

ROUNDS = 5
FEW, MANY, HUGE = 20, 100, 200
MEGABYTES = 120

_OURS = """
    - shipshape.deploy.stack:
        project_src: "{{ project }}"
"""
_COMPOSE_V2 = """
    - community.docker.docker_compose_v2:
        project_src: "{{ project }}"
"""


# Where `make bench` has put community.docker, out of the PyPI package `ansible`.
PEERS = ROOT / ".deps"


def median(*samples: float) -> float:
    return statistics.median(samples)


def unchanged_project() -> list[dict[str, Any]]:
    """100 containers: the whole playbook against docker_compose_v2's, and what each further container costs."""
    with project(MANY) as directory:
        playbook(directory, _OURS)
        pairs = [(playbook(directory, _OURS), playbook(directory, _COMPOSE_V2, PEERS)) for _ in range(ROUNDS)]
        many = module_seconds(directory)
    with project(FEW) as directory:
        playbook(directory, _OURS)
        few = module_seconds(directory)
    ours, theirs = (median(*times) for times in zip(*pairs))
    each = (many - few) / (MANY - FEW) * 1000
    return [
        row(
            f"{MANY} unchanged containers, each inspected, whole playbook",
            "docker_compose_v2, which looks at a label",
            ours,
            theirs,
            "<= 0.9",
            ours / theirs <= 0.9,
            ours / theirs,
        ),
        row("each further unchanged container, in ms", "none", each, None, "<= 3 ms", each <= 3, None),
    ]


def module_seconds(directory: Path) -> float:
    """What the module's own process takes, without Ansible around it."""
    times = []
    for _ in range(ROUNDS):
        started = time.monotonic()
        result = ModuleCall("stack", {"project_src": str(directory)}).wait()
        times.append(time.monotonic() - started)
        if result.get("failed") or result["changed"]:
            raise RuntimeError(f"it should have had nothing to do: {result}")
    return median(*times)


def container_by_container() -> list[dict[str, Any]]:
    """20 containers against docker_container in a loop: the task, and what each further container adds to it."""
    prefix = f"bench-{unique()}"

    def loop(count: int) -> str:
        return f"""
    - community.docker.docker_container:
        name: "{prefix}-{{{{ item }}}}"
        image: {BUSYBOX}
        command: {json.dumps(STAY)}
        pull: never
      loop: "{{{{ range({count}) | list }}}}"
"""

    with project(FEW) as directory, project(1) as lone:
        try:
            for place in (directory, lone):
                playbook(place, _OURS)
            playbook(directory, loop(FEW), PEERS)
            empty = median(*(playbook(directory, NOOP) for _ in range(ROUNDS)))
            ours, one = (median(*(playbook(place, _OURS) for _ in range(ROUNDS))) for place in (directory, lone))
            theirs = median(*(playbook(directory, loop(FEW), PEERS) for _ in range(2)))
            their_one = median(*(playbook(directory, loop(1), PEERS) for _ in range(ROUNDS)))
        finally:
            names = [f"{prefix}-{number}" for number in range(FEW)]
            subprocess.run(["docker", "rm", "-fv", *names], capture_output=True)
    # Ours is too little to be told from how much one playbook differs from the next: a millisecond at least.
    each, their_each = max((ours - one) / (FEW - 1), 0.001), (theirs - their_one) / (FEW - 1)
    peer, ratio = "docker_container in a loop", their_each / each
    alone, their_alone = ours - empty, theirs - empty
    return [
        row(f"each of {FEW} unchanged containers", peer, each, their_each, "30 times faster", ratio >= 30, ratio),
        row(
            f"{FEW} unchanged containers, the task alone",
            peer,
            alone,
            their_alone,
            "shown",
            True,
            their_alone / alone,
        ),
    ]


def memory() -> list[dict[str, Any]]:
    """Peak resident memory of the module's process with 200 containers that are there already."""
    with project(HUGE) as directory:
        seconds(["docker", "compose", "up", "-d"], cwd=directory)
        playbook(directory, _OURS.replace("stack:", "stack:\n        recreate: always\n        stability: 0", 1))
        call = ModuleCall("stack", {"project_src": str(directory)})
        peak = [0.0]
        watcher = threading.Thread(target=_watch, args=(call.process, peak), daemon=True)
        watcher.start()
        result = call.wait()
        watcher.join()
        if result.get("failed") or result["changed"]:
            raise RuntimeError(f"it should have had nothing to do: {result.get('msg')}")
    work = f"peak memory of the module with {HUGE} unchanged containers, in MB"
    return [row(work, "none", peak[0], None, f"<= {MEGABYTES} MB", peak[0] <= MEGABYTES, None)]


def _watch(process: subprocess.Popen[bytes], peak: list[float]) -> None:
    """VmHWM only ever grows, so the last reading before the end is the peak."""
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            return
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                peak[0] = max(peak[0], int(line.split()[1]) / 1024)
        time.sleep(0.005)


def rows() -> list[dict[str, Any]]:
    Engine().ensure_busybox()
    return [*unchanged_project(), *container_by_container(), *memory()]


if __name__ == "__main__":
    print(json.dumps(rows(), indent=2))
