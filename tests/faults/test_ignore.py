# SPDX-License-Identifier: GPL-3.0-or-later
"""Ignore patterns against git, long: ansible-test knows no markers, so this stands apart from the short comparison."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.shipshape.deploy.tests.unit.plugins.module_utils.files.test_ignore import agrees


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10))
def test_agrees_with_git(tmp_path: Path, seed: int) -> None:
    agrees(tmp_path, seed, rounds=400)
