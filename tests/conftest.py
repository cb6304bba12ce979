# SPDX-License-Identifier: GPL-3.0-or-later
"""What all suites share. The fixtures themselves are in tests/support/."""

from __future__ import annotations

import os
from pathlib import Path

# What the modules remember of images (engine/history.py) belongs to the tests' own projects here.
os.environ["XDG_STATE_HOME"] = str(Path(__file__).resolve().parents[1] / ".cache/test-state")

pytest_plugins = [
    "tests.support.engine",
    "tests.support.engines",
    "tests.support.pools",
    "tests.support.registries",
    "tests.support.sites",
    "tests.support.worlds",
]
