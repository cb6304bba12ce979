# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rotation does to the text of an env file."""

from __future__ import annotations

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.database.rewrite import Account, rewritten

ACCOUNT = Account("app", frozenset({"db"}), frozenset({"old"}), frozenset({"MINE"}))
CASES = [
    ("A=postgres://app:old@db/x # why", "A=postgres://app:n%40w@db/x # why"),
    ("A=postgres://app:stale@db/x", "A=postgres://app:n%40w@db/x"),
    ("export A='postgres://app:old@db/x'\r\nB=1", "export A='postgres://app:n%40w@db/x'\r\nB=1"),
    ('A="postgres://app:old@db/${NAME}"', 'A="postgres://app:n%40w@db/${NAME}"'),
    ('A="postgres://app:o\\$d@db/x"', "A=postgres://app:n%40w@db/x"),
    ("A=postgres://app:${MINE}@db/x\nMINE=old", "A=postgres://app:${MINE}@db/x\nMINE=n@w"),
    ("POSTGRES_PASSWORD='old'", "POSTGRES_PASSWORD=n@w"),
    ("# A=postgres://app:old@db/x\nPGPASSWORD: old", "# A=postgres://app:old@db/x\nPGPASSWORD: n@w"),
    # Not its password:
    ("A=postgres://app:old@elsewhere/x", None),
    ("A=postgres://other:old@db/x", None),
    ("A=mysql://app:old@db/x", None),
    ("A=postgres://app@db/x", None),
    ("REDIS_PASSWORD=old", None),
    ("NAME=old", None),
    ("POSTGRES_PASSWORD=else", None),
    ("PASSWORD", None),
]


@pytest.mark.parametrize(("text", "wanted"), CASES, ids=[text for text, _ in CASES])
def test_only_the_password_changes(text: str, wanted: str | None) -> None:
    found, names = rewritten(".env", text, ACCOUNT, "n@w")
    assert found == (text if wanted is None else wanted)
    assert bool(names) == (wanted is not None)
    assert rewritten(".env", found, ACCOUNT, "n@w") == (found, [])
