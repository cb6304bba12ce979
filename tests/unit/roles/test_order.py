# SPDX-License-Identifier: GPL-3.0-or-later
"""What roles and playbooks say and do has one order, on every run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FILES = sorted(path for top in ("roles", "playbooks") for path in (ROOT / top).rglob("*.yml"))

# These filters of ansible-core go by way of a Python set of strings, whose order differs from process to process.
SHUFFLES = re.compile(r"\|\s*(?:ansible\.builtin\.)?(?:difference|intersect|symmetric_difference|union)\b")


def test_there_are_files():
    assert len(FILES) > 20


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_list_is_shuffled(file):
    assert not SHUFFLES.findall(file.read_text(encoding="utf-8"))
