# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pool in PostgreSQL, by psycopg: every operation is one statement, however many rows it is about.

Rows travel as JSON and are taken apart by the server (`jsonb_populate_record` with the table's own row type), so that
each value gets the type of the very column that it is for.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

from ..report.finding import failure
from .store import BOOLEAN, INTEGER, OTHER, TEXT, TIME, Change, LiveColumn, LiveTable, Row, refused

# The class of our advisory locks: "SHIP". Applications use the same (see the README of role visitor_pool).
LOCK_CLASS = 0x53484950
_PATIENCE = 60.0
_PAUSE = 0.1
_KINDS = {
    **dict.fromkeys(("int2", "int4", "int8", "numeric"), INTEGER),
    **dict.fromkeys(("text", "varchar", "bpchar", "citext"), TEXT),
    **dict.fromkeys(("timestamptz", "timestamp"), TIME),
    "bool": BOOLEAN,
}
_COLUMNS = """
SELECT a.attname, t.typname, format_type(a.atttypid, a.atttypmod),
       CASE WHEN t.typname IN ('varchar', 'bpchar') AND a.atttypmod > 4 THEN a.atttypmod - 4 END,
       a.attnotnull, a.atthasdef OR a.attidentity <> ''
FROM pg_attribute a JOIN pg_type d ON d.oid = a.atttypid
JOIN pg_type t ON t.oid = COALESCE(NULLIF(d.typbasetype, 0), d.oid)
WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped
"""
_UNIQUE = """
SELECT array_agg(a.attname::text) FROM pg_index i
CROSS JOIN LATERAL unnest(i.indkey::int2[]) AS key(number)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = key.number
WHERE i.indrelid = to_regclass(%s) AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
GROUP BY i.indexrelid
"""


class PostgresqlStore:
    """See store.Store. `keywords` are libpq's."""

    own_lock = False

    def __init__(self, keywords: Mapping[str, str], spoken: str) -> None:
        try:
            import psycopg
            from psycopg import sql
        except ImportError as error:
            what = "the Python library psycopg, which speaks to PostgreSQL, is not on the target"
            remedy = "Install psycopg[binary]; role shipshape.deploy.engine makes an environment that has it"
            raise failure("target", "database-library-missing", what, remedy) from error
        self.spoken = spoken
        self._sql, self._error = sql, psycopg.Error
        given = {name: value for name, value in keywords.items() if value}
        try:
            self._connection = psycopg.connect(**given, connect_timeout=10, autocommit=True)  # type: ignore[arg-type]
            self._run("begin", "SET TIME ZONE 'UTC'")  # columns without a zone hold UTC
        except psycopg.Error as error:
            words = " ".join(str(error).split())
            remedy = "Check `database_url`, or look with module credentials; then run this again"
            raise failure(spoken, "database-unreachable", f"could not log in: {words}", remedy) from error

    def close(self) -> None:
        self._connection.close()

    # -- looking ----------------------------------------------------------------------------------------------------

    def describe(self, table: str) -> LiveTable | None:
        name = self._table(table).as_string(self._connection)
        [(there,)] = self._rows("look for a table", "SELECT to_regclass(%s) IS NOT NULL", (name,))
        if not there:
            return None
        columns = {
            column: LiveColumn(_KINDS.get(kind, OTHER), spoken, length, not_null, filled)
            for column, kind, spoken, length, not_null, filled in self._rows("look at a table", _COLUMNS, (name,))
        }
        unique = frozenset(frozenset(at) for (at,) in self._rows("look at indexes", _UNIQUE, (name,)))
        return LiveTable(columns, unique)

    def now(self) -> datetime:
        [(now,)] = self._rows("tell the time", "SELECT clock_timestamp()")
        found: datetime = now
        return found

    def time(self, value: Any) -> datetime | None:
        if not isinstance(value, datetime):
            return None
        return value if value.tzinfo else value.replace(tzinfo=timezone.utc)

    def select(self, table: str, columns: Sequence[str], where: str = "", values: Sequence[Any] = ()) -> list[Row]:
        text = self._sql.SQL("SELECT {} FROM {}").format(self._columns(columns), self._table(table))
        if not where:
            return self._named(columns, self._rows("read", text))
        text += self._sql.SQL(" WHERE {} = ANY(%s)").format(self._sql.Identifier(where))
        return self._named(columns, self._rows("read", text, (list(values),))) if values else []

    def starting(self, table: str, columns: Sequence[str], column: str, prefix: str) -> list[Row]:
        escaped = prefix.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        text = self._sql.SQL("SELECT {} FROM {} WHERE {} LIKE %s").format(
            self._columns(columns), self._table(table), self._sql.Identifier(column)
        )
        return self._named(columns, self._rows("read", text, (f"{escaped}%",)))

    # -- changing ---------------------------------------------------------------------------------------------------

    def create(self, statements: Sequence[str]) -> None:
        with self.transaction():
            for statement in statements:
                self._run("create tables", statement)

    def insert(self, table: str, rows: Sequence[Row]) -> None:
        if not rows:
            return
        names = self._columns(list(rows[0]))
        text = self._sql.SQL(
            "INSERT INTO {table} ({names}) SELECT {names} FROM jsonb_populate_recordset(NULL::{table}, %s::jsonb)"
        ).format(table=self._table(table), names=names)
        self._run(f"add rows to {table}", text, (_json(rows),))

    def update(self, table: str, key: str, changes: Sequence[Change]) -> set[Any]:
        if not changes:
            return set()
        column = self._sql.Identifier
        assigned = self._sql.SQL(", ").join(
            self._sql.SQL("{0} = n.{0}").format(column(name)) for name in changes[0].new
        )
        holds = self._sql.SQL(" AND ").join(
            self._sql.SQL("t.{0} IS NOT DISTINCT FROM o.{0}").format(column(name))
            for name in changes[0].old
            if name != key
        )
        text = self._sql.SQL(
            "UPDATE {table} AS t SET {assigned} FROM jsonb_array_elements(%s::jsonb) AS e(doc),"
            " LATERAL jsonb_populate_record(NULL::{table}, e.doc -> 'old') AS o,"
            " LATERAL jsonb_populate_record(NULL::{table}, e.doc -> 'new') AS n"
            " WHERE t.{key} = o.{key}{holds} RETURNING t.{key}"
        ).format(
            table=self._table(table),
            assigned=assigned,
            key=column(key),
            holds=self._sql.SQL(" AND ") + holds if len(changes[0].old) > 1 else self._sql.SQL(""),
        )
        documents = _json([{"old": dict(change.old), "new": dict(change.new)} for change in changes])
        return {found for (found,) in self._rows(f"change rows of {table}", text, (documents,))}

    def delete(self, table: str, column: str, values: Collection[Any]) -> None:
        if values:
            text = self._sql.SQL("DELETE FROM {} WHERE {} = ANY(%s)").format(
                self._table(table), self._sql.Identifier(column)
            )
            self._run(f"remove rows from {table}", text, (list(values),))

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        with self.transaction():
            self._run("begin", "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield

    @contextmanager
    def transaction(self) -> Iterator[None]:
        try:
            with self._connection.transaction():
                yield
        except self._error as error:
            raise refused(self.spoken, "commit", error) from error

    # -- locks ------------------------------------------------------------------------------------------------------

    @contextmanager
    def run_lock(self) -> Iterator[None]:
        deadline = time.monotonic() + _PATIENCE
        while not self._rows("lock", "SELECT pg_try_advisory_lock(%s, 0)", (LOCK_CLASS,))[0][0]:
            if time.monotonic() > deadline:
                what = f"somebody else has been cleaning its slots for {_PATIENCE:g} s"
                raise failure("pool", "pool-busy", what, "Wait for it to end, and run this again")
            time.sleep(_PAUSE)
        try:
            yield
        finally:
            if not self._connection.closed:
                self._connection.execute("SELECT pg_advisory_unlock(%s, 0)", (LOCK_CLASS,))

    @contextmanager
    def slot_locks(self, numbers: Collection[int]) -> Iterator[set[int]]:
        wanted = (sorted(numbers), LOCK_CLASS)
        text = "SELECT n FROM unnest(%s::int[]) AS n WHERE pg_try_advisory_lock(%s, n)"
        held = {number for (number,) in self._rows("lock slots", text, wanted)} if numbers else set()
        try:
            yield held
        finally:
            if held and not self._connection.closed:
                self._connection.execute(
                    "SELECT pg_advisory_unlock(%s, n) FROM unnest(%s::int[]) AS n", (LOCK_CLASS, sorted(held))
                )

    # -- inside -----------------------------------------------------------------------------------------------------

    def _table(self, name: str) -> Any:
        return self._sql.Identifier(*name.split(".", 1))

    def _columns(self, names: Sequence[str]) -> Any:
        return self._sql.SQL(", ").join(self._sql.Identifier(name) for name in names)

    def _named(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[Row]:
        return [dict(zip(columns, row)) for row in rows]

    def _rows(self, doing: str, text: Any, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            found: list[tuple[Any, ...]] = self._connection.execute(text, values).fetchall()
        except self._error as error:
            raise refused(self.spoken, doing, error) from error
        return found

    def _run(self, doing: str, text: Any, values: Sequence[Any] = ()) -> None:
        try:
            self._connection.execute(text, values or None)
        except self._error as error:
            raise refused(self.spoken, doing, error) from error


def _json(rows: Any) -> str:
    return json.dumps(rows, default=_plain)


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
