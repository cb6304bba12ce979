# SPDX-License-Identifier: GPL-3.0-or-later
"""A build of the example's base image that is killed, with and without its children, is healed by one more run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.engine import Engine

IMAGES = Path(__file__).resolve().parents[2] / "examples/studio/images"


@pytest.mark.long
def test_a_killed_build_is_healed_by_one_more_run(engine: Engine, prefix: str, tmp_path: Path) -> None:
    folder, cache = tmp_path / "images", tmp_path / "cache"
    shutil.copytree(IMAGES, folder, ignore=shutil.ignore_patterns("__pycache__"))
    program = folder / "build.py"
    program.write_text(program.read_text().replace('"shipshape-', f'"{prefix}-'))
    words = [folder / "build", "--only", "base", "--source", "debian"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    tag = f"{prefix}-base:bookworm"

    for seconds, whole_group in ((1.0, True), (4.0, False), (12.0, True)):
        build = subprocess.Popen(words, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)
        time.sleep(seconds)
        assert build.poll() is None, "it ended before it could be killed"
        # The program alone: its children live on and keep the lock, and the next run waits for them.
        (os.killpg if whole_group else os.kill)(build.pid, signal.SIGKILL)
        build.wait()
        assert engine.docker("image", "inspect", tag, check=False).returncode != 0, "half an image has a name"

    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in (cache / "shipshape-images").iterdir()] == ["lock"]
    assert str(cache) not in Path("/proc/self/mountinfo").read_text()
    seen = engine.docker("run", "--rm", tag, "sh", "-c", "python3 --version && apt-get check && dpkg --audit")
    assert seen.stdout.startswith("Python 3.11")
