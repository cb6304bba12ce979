# SPDX-License-Identifier: GPL-3.0-or-later
"""What it costs to run the whole deploy.yml on the example when there is nothing to change.

No peer does the same, so the bound is absolute: 12 s and 30 tasks on two cores. The example's images have to be there
(`make deploy`); a first run, which is not measured, deploys what is not deployed yet.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SECONDS, TASKS, RUNS = 12.0, 30, 3


def deploy() -> tuple[float, int, bool]:
    """Seconds and tasks of one deploy, and whether it changed something."""
    started = time.monotonic()
    done = subprocess.run(
        ["ansible-playbook", "playbooks/deploy.yml", "-i", "examples/studio/inventory.yml"],
        cwd=ROOT,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".tree"),
            "ANSIBLE_NOCOLOR": "1",
        },
        capture_output=True,
        text=True,
    )
    seconds = time.monotonic() - started
    if done.returncode:
        raise RuntimeError(
            f"the deploy failed (was `make deploy` run first?):\n{done.stdout[-3000:]}{done.stderr[-500:]}"
        )
    tasks = len(re.findall(r"^TASK \[", done.stdout, re.MULTILINE))
    return seconds, tasks, bool(re.search(r"\bchanged=[1-9]", done.stdout))


def rows() -> list[dict[str, Any]]:
    deploy()
    runs = [deploy() for _ in range(RUNS)]
    if any(changed for _, _, changed in runs):
        raise RuntimeError("a deploy with nothing to change has changed something")
    seconds, tasks = statistics.median(run[0] for run in runs), max(run[1] for run in runs)
    return [
        {
            "work": f"whole deploy.yml on the example, nothing to change ({tasks} tasks)",
            "peer": "none",
            "ours_s": round(seconds, 2),
            "peer_s": None,
            "ratio": None,
            "bound": f"<= {SECONDS:g} s, <= {TASKS} tasks",
            "ok": seconds <= SECONDS and tasks <= TASKS,
        }
    ]


if __name__ == "__main__":
    for row in rows():
        print(row)
