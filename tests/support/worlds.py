# SPDX-License-Identifier: GPL-3.0-or-later
"""Applications without a pool yet, as fixtures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.pools import Database, Server, World, make_template, sqlite


def world_of(database: Database, folder: Path) -> World:
    database.make()
    (folder / "users").mkdir()
    return World(database, folder / "users", make_template(folder / "template"))


@pytest.fixture
def light(tmp_path: Path) -> Iterator[World]:
    """An empty application in SQLite."""
    made = sqlite(tmp_path / "app.db")
    yield world_of(made, tmp_path)
    made.close()


@pytest.fixture
def heavy(pool_server: Server, tmp_path: Path) -> Iterator[World]:
    """One in PostgreSQL."""
    made = pool_server.database()
    yield world_of(made, tmp_path)
    made.close()


def codes(result: dict[str, Any], subject: str | None = None) -> list[str]:
    return [at["code"] for at in result["findings"] if subject in (None, at["subject"])]
