# SPDX-License-Identifier: GPL-3.0-or-later
"""Batches: each row is in one, and only in one."""

from __future__ import annotations

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.pool.store import chunks


@pytest.mark.parametrize(
    ("rows", "sizes"), [(0, []), (1, [1]), (19, [19]), (20, [20]), (21, [20, 1]), (40, [20, 20]), (41, [20, 20, 1])]
)
def test_no_row_falls_between_two_batches(rows: int, sizes: list[int]) -> None:
    parts = list(chunks(list(range(rows)), 20))
    assert [len(part) for part in parts] == sizes
    assert [row for part in parts for row in part] == list(range(rows))
