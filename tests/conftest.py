# SPDX-License-Identifier: GPL-3.0-or-later
"""What all suites share. The fixtures themselves are in tests/support/."""

from __future__ import annotations

pytest_plugins = ["tests.support.engine", "tests.support.engines"]
