# SPDX-License-Identifier: GPL-3.0-or-later
"""How long it takes to say which layer of 20 baked files in 5 services is stale. Nobody else says it.

The module's own process, which is what a task costs beyond Ansible itself; every file is stale, so that nothing can be
concluded from an image's id alone.
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
from tests.support.engine import BUSYBOX, Engine, unique
from tests.support.modules import ModuleCall

ROUNDS = 5
SERVICES, FILES = 5, 4
BOUND = 3.0


def write(directory: Path) -> None:
    services = {}
    for number in range(SERVICES):
        folder = directory / f"s{number}"
        folder.mkdir()
        names = [f"f{at}.txt" for at in range(FILES)]
        for name in names:
            (folder / name).write_text(f"{number} {name}\n" * 100)
        (folder / "Dockerfile").write_text(f"FROM {BUSYBOX}\nCOPY {' '.join(names)} /srv/\n")
        services[f"s{number}"] = {"build": str(folder), "command": STAY}
    (directory / "compose.yaml").write_text(json.dumps({"name": unique("bench-image"), "services": services}))


def rows() -> list[dict[str, Any]]:
    Engine().ensure_busybox()
    with tempfile.TemporaryDirectory(prefix="shipshape-bench-") as name:
        directory = Path(name)
        write(directory)
        try:
            seconds(["docker", "compose", "up", "-d", "--build"], cwd=directory)
            for path in directory.glob("s*/*.txt"):
                path.write_text("changed\n")
            times = [_look(directory) for _ in range(ROUNDS)]
        finally:
            down(directory)
            seconds(["docker", "compose", "down", "--rmi", "local"], cwd=directory)
    took = statistics.median(times)
    work = f"{SERVICES * FILES} baked files of {SERVICES} services, each in source, image and container"
    return [row(work, "none", took, None, f"<= {BOUND:g} s", took <= BOUND, None)]


def _look(directory: Path) -> float:
    started = time.monotonic()
    result = ModuleCall("image", {"project_src": str(directory)}).wait()
    took = time.monotonic() - started
    found = [tuple(entry["layers"]) for at in result["services"].values() for entry in at["stale"]]
    if found != [("image", "container")] * SERVICES * FILES:
        raise RuntimeError(f"it should have found {SERVICES * FILES} stale files: {result.get('msg')}")
    return took


if __name__ == "__main__":
    print(json.dumps(rows(), indent=2))
