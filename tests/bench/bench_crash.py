# SPDX-License-Identifier: GPL-3.0-or-later
"""How soon a crash loop is found: from the container's first start to the task's failure, default stability.

`docker compose up -d --wait` reports such a service as healthy (PEERS), so there is no peer to compare with.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.projects import project, row
from tests.support.engine import BUSYBOX, Engine
from tests.support.modules import ModuleCall

DELAYS = (0, 2)
RUNS = 5
BOUND = 5.0


def found_after(delay: float) -> float:
    """Seconds from the container's first start, by its own account, to the module's end. Both read the same clock."""
    with project(1) as directory:
        command = ["sh", "-c", f"cut -d' ' -f1 /proc/uptime; sleep {delay}; exit 1"]
        service = {"image": BUSYBOX, "command": command, "restart": "always"}
        (directory / "compose.yaml").write_text(json.dumps({"services": {"web": service}}))
        result = ModuleCall("stack", {"project_src": str(directory)}).wait()
        ended = time.clock_gettime(time.CLOCK_BOOTTIME)
        if not result.get("failed") or "container-restarting" not in {at["code"] for at in result["findings"]}:
            raise RuntimeError(f"a crash loop passed for a success: {result}")
        [lines] = result["logs"].values()
        return ended - float(lines[0])


def rows() -> list[dict[str, Any]]:
    Engine().ensure_busybox()
    result = []
    for delay in DELAYS:
        worst = max(found_after(delay) for _ in range(RUNS))
        work = f"a crash loop (exit after {delay} s) found, from its first start, slowest of {RUNS}"
        result.append(row(work, "none", worst, None, f"<= {BOUND:g} s", worst <= BOUND, None))
    return result


if __name__ == "__main__":
    print(json.dumps(rows(), indent=2))
