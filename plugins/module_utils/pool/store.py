# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the pool asks of a database: a handful of operations on sets of rows, the same for PostgreSQL and SQLite."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from ..report.finding import CRITICAL, Finding, ShipshapeError, failure

Row = Mapping[str, Any]

INTEGER, TEXT, BOOLEAN, TIME, OTHER = "integer", "text", "boolean", "timestamp", "other"
UNREACHABLE = "database-unreachable"
PADDED, JSON, LIST = "padded text", "json", "list"  # PADDED: with blanks, to its full length


@dataclass(frozen=True)
class LiveColumn:
    """A column as the database has it. `kind` is one of the above, `type` the database's own word. `filled`: the
    database gives it a value by itself; `computed`: and takes none from anybody."""

    kind: str
    type: str
    length: int | None = None
    not_null: bool = False
    filled: bool = False
    computed: bool = False


@dataclass(frozen=True)
class LiveTable:
    """A table as the database has it. `unique`: sets of columns that no two rows have in common. `hidden`: there may be
    rows that whoever has logged in is not shown. `view`: it shows what other tables hold."""

    columns: Mapping[str, LiveColumn]
    unique: frozenset[frozenset[str]] = field(default_factory=frozenset)
    hidden: bool = False
    view: bool = False


@dataclass(frozen=True)
class Change:
    """Of the row in which `old` holds, `new` is to hold."""

    old: Row
    new: Row


class Store(Protocol):
    """Tables are named as the caller knows them (`schema.table` with PostgreSQL); all names are quoted. Every failure
    is a ShipshapeError. Values are plain Python ones, times with a zone; mappings and lists are for columns of JSON."""

    spoken: str  # the database, for a message
    doubts: Sequence[Finding]  # about the connection
    closed: str  # why nothing can be changed, '' when it can
    nowhere: str  # why no table can be there, '' when one can
    own_lock: bool  # whoever writes is alone: what is done to a slot is done while writing

    def describe(self, tables: Collection[str]) -> dict[str, LiveTable | None]:
        """By name; None where there is no such table."""

    def create(self, statements: Sequence[str]) -> None: ...

    def now(self) -> datetime: ...

    def time(self, value: Any) -> datetime | None:
        """A time as it was read, with a zone; None only for what is empty. Raises ValueError for what is there and is
        no time that can be read."""

    def select(self, table: str, columns: Sequence[str], where: str = "", values: Sequence[Any] = ()) -> list[Row]:
        """Rows of which `where` (a column) is one of `values`; all rows when there is none."""

    def starting(self, table: str, columns: Sequence[str], column: str, prefix: str) -> list[Row]:
        """Rows of which `column` begins with `prefix` (upper and lower case may be taken for the same)."""

    def insert(self, table: str, rows: Sequence[Row]) -> None: ...

    def rehearse(self, table: str, row: Row) -> None:
        """Raises when the columns of such a new row can have no such values. Changes nothing."""

    def update(self, table: str, key: str, changes: Sequence[Change]) -> set[Any]:
        """Makes the changes, all with the same columns; gives the keys of the rows that were as their `old` says."""

    def delete(self, table: str, column: str, values: Collection[Any]) -> None: ...

    def snapshot(self) -> AbstractContextManager[None]:
        """What is read inside is as it was at one moment."""

    def transaction(self) -> AbstractContextManager[None]:
        """All or nothing. One inside another is all or nothing by itself."""

    def run_lock(self) -> AbstractContextManager[None]:
        """Tells applications that somebody is alive who may be cleaning any slot."""

    def slot_locks(self, numbers: Collection[int]) -> AbstractContextManager[set[int]]:
        """Those of the slots that nobody else is cleaning now."""

    def close(self) -> None: ...


class RowsRefusedError(ShipshapeError):
    """The database will not have these rows so, which says nothing of others: a constraint, or a trigger."""


def refused(spoken: str, doing: str, error: BaseException | str, *, rows: bool = False) -> ShipshapeError:
    """What the database said, on one line. `rows`: see RowsRefusedError."""
    words = " ".join(str(error).split()) or type(error).__name__
    what = f"it refused to {doing}: {words}"
    remedy = "Mend what it names (`schema`: columns, constants; the role's rights), then run this again"
    kind = RowsRefusedError if rows else ShipshapeError
    return kind(Finding(CRITICAL, spoken, "database-refused", what, remedy))


def lost(spoken: str, doing: str) -> ShipshapeError:
    """The connection ended by itself: nobody can say whether the last statement was still carried out."""
    what = f"the connection was lost while the pool tried to {doing}"
    remedy = "See that the server runs, then run this again; what was begun is finished then"
    return failure(spoken, UNREACHABLE, what, remedy)


def chunks(rows: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def quoted(name: str) -> str:
    """A name as SQL has it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'
