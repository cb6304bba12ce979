# SPDX-License-Identifier: GPL-3.0-or-later
"""What one look by `credentials` costs: 20 variables in 10 services, each with a login of its own over TCP.

The module's own process, as a task costs beyond Ansible itself. Nobody else logs in before a deploy.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench.projects import STAY, down, row, seconds
from tests.support.databases import provide_postgres, server
from tests.support.engine import BUSYBOX, Engine, unique
from tests.support.modules import ModuleCall

ROUNDS, SERVICES, NAMES = 5, 10, ("DATABASE_URL", "DIRECT_URL")
BOUND = 2.0
PASSWORD = "bench-pa55word"


def write(directory: Path) -> None:
    services: dict[str, Any] = {"db": server(PASSWORD)}
    lines = []
    for number in range(SERVICES):
        # Each under a name of its own, so that no login can stand for another.
        url = f"postgresql://app:{PASSWORD}@db/app?application_name"
        lines += [f"{name}_{number}={url}={name.lower()}{number}" for name in NAMES]
        given = {name: f"${{{name}_{number}}}" for name in NAMES}
        services[f"s{number}"] = {"image": BUSYBOX, "command": STAY, "environment": given}
    (directory / ".env").write_text("\n".join(lines) + "\n")
    (directory / "compose.yaml").write_text(json.dumps({"name": unique("bench-cred"), "services": services}))


def rows() -> list[dict[str, Any]]:
    Engine().ensure_busybox()
    provide_postgres()
    with tempfile.TemporaryDirectory(prefix="shipshape-bench-") as name:
        directory = Path(name)
        write(directory)
        try:
            seconds(["docker", "compose", "up", "-d", "--wait"], cwd=directory)
            times = [_look(directory) for _ in range(ROUNDS)]
        finally:
            down(directory)
            seconds(["docker", "compose", "down", "-v"], cwd=directory)
    took = statistics.median(times)
    work = f"{SERVICES * len(NAMES)} credentials of {SERVICES} services, each logged in with over TCP"
    return [row(work, "none", took, None, f"<= {BOUND:g} s", took <= BOUND, None)]


def _look(directory: Path) -> float:
    started = time.monotonic()
    result = ModuleCall("credentials", {"project_src": str(directory)}).wait()
    took = time.monotonic() - started
    outcomes = [at["sources"]["login"]["outcome"] for at in result["credentials"]]
    if outcomes != ["ok"] * SERVICES * len(NAMES):
        raise RuntimeError(f"it should have logged in {SERVICES * len(NAMES)} times: {result.get('msg')} {outcomes}")
    return took


if __name__ == "__main__":
    print(json.dumps(rows(), indent=2))
