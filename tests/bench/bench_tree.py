# SPDX-License-Identifier: GPL-3.0-or-later
"""Module tree against ansible.builtin.copy of the same directory, each as a whole ansible-playbook.

copy needs several minutes for 1,000 files, so it is measured with a part of them and scaled up: its time less that of
an empty playbook grows with the number of files. The row says so.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.playbook import environment, play

FILES = 1000
PEER_FILES = 20
MEGABYTES = 100


def make(root: Path, count: int) -> None:
    """Files of varied sizes, most of them small, in some directories, as a project has them: 20 MB for 1,000."""
    chance = random.Random(1)
    for number in range(count):
        folder = root / f"part{number % 23}" / f"sub{number % 7}"
        folder.mkdir(parents=True, exist_ok=True)
        size = min(int(chance.lognormvariate(8, 1.6)), 2_000_000)
        (folder / f"file{number}.txt").write_bytes(chance.randbytes(size))


def timed(folder: Path, task: dict[str, Any]) -> float:
    started = time.perf_counter()
    done = play(folder, task, timeout=1800)
    assert done.rc == 0, done.output
    return time.perf_counter() - started


def peaks(folder: Path, task: dict[str, Any]) -> tuple[float, float]:
    """Peak memory in MB: of the largest process of the whole call, and of an empty play's."""
    return _peak(folder, task), _peak(folder, {"ansible.builtin.meta": "noop"})


def _peak(folder: Path, task: dict[str, Any]) -> float:
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    import yaml

    (folder / "peak.yml").write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": [task]}]))
    words = [str(Path(sys.executable).parent / "ansible-playbook"), "peak.yml"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout.strip().splitlines()[-1]) / 1024


def rows() -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="shipshape-bench-") as name:
        folder = Path(name)
        make(folder / "many", FILES)
        make(folder / "few", PEER_FILES)
        ours = {"shipshape.deploy.tree": {"src": f"{folder}/many", "dest": f"{folder}/ours"}}
        peer = {"ansible.builtin.copy": {"src": f"{folder}/few/", "dest": f"{folder}/peer/", "mode": "preserve"}}
        empty = min(timed(folder, {"ansible.builtin.meta": "noop"}) for _ in range(2))
        result = []
        for label, bound in (("first time", 10), ("nothing changed", 30)):
            ours_s = timed(folder, ours)
            part = timed(folder, peer)
            peer_s = empty + max(0.0, part - empty) * FILES / PEER_FILES
            result.append(
                {
                    "work": f"tree of {FILES} files, {label}",
                    "peer": f"ansible.builtin.copy of the directory (scaled up from {PEER_FILES} files, {part:.1f} s)",
                    "ours_s": round(ours_s, 2),
                    "peer_s": round(peer_s, 1),
                    "ratio": round(peer_s / ours_s, 1),
                    "bound": f"at least {bound} times faster",
                    "ok": peer_s / ours_s >= bound,
                }
            )
        shutil.rmtree(folder / "ours")
        whole, base = peaks(folder, ours)
        result.append(
            {
                "work": f"tree of {FILES} files, peak memory of its largest process, in MB",
                "peer": "an empty play, in MB",
                "ours_s": round(whole, 1),
                "peer_s": round(base, 1),
                "ratio": round(whole / base, 2),
                "bound": f"at most {MEGABYTES} MB",
                "ok": whole <= MEGABYTES,
            }
        )
        return result


if __name__ == "__main__":
    os.nice(0)
    for row in rows():
        print(row)
    print(f"this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
