# SPDX-License-Identifier: GPL-3.0-or-later
"""What all suites share. The fixtures themselves are in tests/support/."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import settings

# What the modules remember of images (engine/history.py) belongs to the tests' own projects here. Each worker has a
# place of its own, because some tests read all that is in it, and files come and go there.
os.environ["XDG_STATE_HOME"] = str(
    Path(__file__).resolve().parents[1] / ".cache/test-state" / os.environ.get("PYTEST_XDIST_WORKER", "alone")
)

pytest_plugins = [
    "tests.support.engine",
    "tests.support.engines",
    "tests.support.pools",
    "tests.support.registries",
    "tests.support.sites",
    "tests.support.views",
    "tests.support.worlds",
]

# What is tried is the same on every run, and no example fails because the machine was busy with something else: who
# runs `make test` is to learn of his own change. The long repetitions of `make faults` draw anew each time.
settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")
