# SPDX-License-Identifier: GPL-3.0-or-later
"""What is kept of transfers that were done, so that one that is asked for again is not refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.pool import receipts
from ansible_collections.shipshape.deploy.plugins.module_utils.pool.receipts import Receipts, proof


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Receipts:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return Receipts("/srv/users")


def test_the_latest_are_kept(kept: Receipts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "_KEPT", 3)
    for number in range(1, 6):
        kept.add(number, "alice", proof("s", str(number)))
    assert [kept.has(at, "alice", proof("s", str(at))) for at in range(1, 6)] == [False, False, True, True, True]


def test_each_is_of_one_slot_account_session_and_token(kept: Receipts) -> None:
    kept.add(1, "alice", proof("s", "t"))
    assert kept.has(1, "alice", proof("s", "t"))
    assert Receipts("/srv/../srv/users").has(1, "alice", proof("s", "t"))
    for slot, account, shown in ((2, "alice", ("s", "t")), (1, "bob", ("s", "t")), (1, "alice", ("s", "x"))):
        assert not kept.has(slot, account, proof(*shown))
    assert not Receipts("/srv/others").has(1, "alice", proof("s", "t"))
