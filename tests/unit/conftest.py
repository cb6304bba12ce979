# SPDX-License-Identifier: GPL-3.0-or-later
"""For ansible-test, which brings a configuration of its own: our marker, no long repetitions, and of Hypothesis what
tests/conftest.py says."""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: a long repetition, run by `make faults` and left out of `make test`")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "ansible_test" in str(config.inipath):
        long = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
