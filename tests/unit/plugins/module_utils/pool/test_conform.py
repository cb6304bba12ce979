# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a live schema will do: how long columns are, and what keeps two rows apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from ansible_collections.shipshape.deploy.plugins.module_utils.pool.conform import differences
from ansible_collections.shipshape.deploy.plugins.module_utils.pool.schema import ALLOCATIONS, schema
from ansible_collections.shipshape.deploy.plugins.module_utils.pool.store import (
    BOOLEAN,
    INTEGER,
    TEXT,
    TIME,
    LiveColumn,
    LiveTable,
)

OURS = schema("builtin", "", "")
COLUMNS = {
    "id": LiveColumn(INTEGER, "bigint", None, True, True),
    "visitor_number": LiveColumn(INTEGER, "integer", None, True),
    "session_key": LiveColumn(TEXT, "varchar(40)", 40, True),
    "allocation_token": LiveColumn(TEXT, "varchar(64)", 64, True),
    "allocated_at": LiveColumn(TIME, "timestamptz", None, True),
    "expires_at": LiveColumn(TIME, "timestamptz", None, True),
    "is_active": LiveColumn(BOOLEAN, "boolean", None, True),
}
UNIQUE = [["visitor_number"], ["allocation_token"]]


def said(unique: Sequence[Sequence[str]] = UNIQUE, **changed: LiveColumn) -> list[tuple[str, str, str]]:
    """Of the table of allocations; the others are not there, which is said of them."""
    table = LiveTable({**COLUMNS, **changed}, frozenset(frozenset(at) for at in unique))
    found = differences(OURS, {part: table if part == ALLOCATIONS else None for part in OURS.tables}, sqlite=False)
    name = OURS.allocations.name
    return [(at.subject[len(name) + 1 :], at.code, at.severity) for at in found if at.subject.startswith(f"{name}.")]


def test_what_the_documentation_shows_will_do() -> None:
    assert said() == []


@pytest.mark.parametrize(("column", "least"), [("allocation_token", 64), ("session_key", len("shipshape:quarantined"))])
def test_a_column_takes_what_is_written_to_it(column: str, least: int) -> None:
    for length, will_do in ((least - 1, False), (least, True), (None, True)):
        found = said(**{column: replace(COLUMNS[column], length=length)})
        assert found == ([] if will_do else [(column, "column-type", "critical")]), length


@pytest.mark.parametrize(
    ("sqlite", "view", "remedy"),
    [
        (False, False, 'CREATE UNIQUE INDEX "slotNo_once" ON app."Slot"".x" ("slotNo")'),
        (True, False, 'CREATE UNIQUE INDEX "slotNo_once" ON "app.Slot"".x" ("slotNo")'),
        (False, True, "It is a view, which can have none: name the table behind it in schema.allocations.table"),
    ],
)
def test_the_index_that_is_lacking_can_be_copied(sqlite: bool, view: bool, remedy: str) -> None:
    named = schema({"allocations": {"table": 'app.Slot".x', "columns": {"visitor_number": "slotNo"}}}, "", "")
    columns = {"slotNo" if name == "visitor_number" else name: about for name, about in COLUMNS.items()}
    table = LiveTable(columns, frozenset({frozenset({"allocation_token"})}), view=view)
    found = differences(named, {part: table if part == ALLOCATIONS else None for part in named.tables}, sqlite)
    [lacking] = [at for at in found if at.code == "not-unique"]
    assert remedy in lacking.remedy


@pytest.mark.parametrize(
    ("unique", "expected"),
    [
        ([["allocation_token"]], [("visitor_number", "not-unique", "critical")]),
        ([["visitor_number"]], [("allocation_token", "not-unique", "critical")]),
        # Two rows of one slot would differ in the other column.
        ([["visitor_number", "session_key"], ["allocation_token"]], [("visitor_number", "not-unique", "critical")]),
        ([["visitor_number"], ["allocation_token", "is_active"]], [("allocation_token", "not-unique", "critical")]),
        ([*UNIQUE, ["visitor_number", "session_key"]], []),
        ([*UNIQUE, ["session_key"]], [("session_key", "unique-in-the-way", "critical")]),
    ],
)  # fmt: skip
def test_two_rows_of_one_slot_are_kept_apart(unique: list[list[str]], expected: list[tuple[str, str, str]]) -> None:
    assert said(unique) == expected


def test_a_column_that_nobody_fills_is_named() -> None:
    region = LiveColumn(TEXT, "text", None, not_null=True)
    assert said(region=region) == [("region", "column-without-value", "critical")]
    assert said(region=replace(region, not_null=False)) == []
    assert said(region=replace(region, filled=True)) == []
