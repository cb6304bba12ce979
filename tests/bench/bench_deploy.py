# SPDX-License-Identifier: GPL-3.0-or-later
"""What it costs to run the whole deploy.yml on the example when there is nothing to change.

No peer does the same, so the bound is absolute: 12 s and 30 tasks on two cores. `make deploy` comes first.
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


def deploy() -> tuple[float, int]:
    """Seconds and tasks of one deploy that must change nothing."""
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
    if done.returncode or re.search(r"\bchanged=[1-9]", done.stdout):
        raise RuntimeError(
            f"`make deploy` has to come first; this one failed or changed something:\n{done.stdout[-3000:]}"
        )
    return seconds, len(re.findall(r"^TASK \[", done.stdout, re.MULTILINE))


def rows() -> list[dict[str, Any]]:
    runs = [deploy() for _ in range(RUNS)]
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
