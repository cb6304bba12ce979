# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a module's options to a pool that can be looked at: database, schema, data_root, template."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..report.finding import Finding, ShipshapeError, failure
from ..report.result import Report
from .conform import MISSING_TABLE, differences, lasting
from .data_root import Anyone, DataRoot, refuse_link
from .model import Settings, settings
from .origin import Run, Source, source
from .rows import Rows
from .schema import Schema, schema
from .sight import Sight
from .store import LiveTable, Store
from .walk import HostPath

if TYPE_CHECKING:
    from .place import Application
    from .reconcile import Pool

_SQLITE = "sqlite:"


@dataclass(frozen=True)
class Reached:
    """A PostgreSQL server: libpq's keywords, and its URL as it may be shown."""

    keywords: Mapping[str, str]
    spoken: str


@dataclass
class Wish:
    """Everything that the options ask for, before anything is opened. `url` is the database's; `application` the
    project that `service` and `data_service` are of, None for none; `reach` makes out a PostgreSQL server."""

    options: Mapping[str, Any]
    url: str
    application: Application | None
    reach: Callable[[str], Reached]
    run: Run
    report: Report
    check: bool
    settings: Settings = field(init=False)
    schema: Schema = field(init=False)
    template: Source = field(init=False)

    def __post_init__(self) -> None:
        given = self.options
        self.settings = settings(given)
        self.schema = schema(given["schema"], given["user_flag"] or "", given["workspace_flag"] or "")
        self.template = source(given["workspace"])


def open_store(wish: Wish) -> tuple[Store, bool]:
    """The database, and whether it is SQLite."""
    if not wish.url.startswith(_SQLITE):
        from .postgresql import PostgresqlStore

        reached = wish.reach(wish.url)
        return PostgresqlStore(reached.keywords, reached.spoken), False
    from .sqlite import SqliteStore

    path = sqlite_path(wish.url)
    if wish.options.get("database_url") is None and wish.application is not None:
        place = wish.application.host_path(wish.options["service"], path, "service")
        refuse_link(place)
        path = str(place)
    return SqliteStore(path, write=not wish.check), True


def sqlite_path(url: str) -> str:
    """`sqlite:////var/lib/app.db` is /var/lib/app.db. Pure."""
    rest = url[len(_SQLITE) :].partition("?")[0]
    path = rest[3:] if rest.startswith("///") else rest.removeprefix("//")
    if not path.startswith("/") or ".." in path.split("/"):
        what = "names no absolute path of a SQLite file"
        raise failure("database_url", "option-invalid", what, "Write sqlite:////directory/file, with four slashes")
    return path


class Opened:
    """A pool whose database answers; its schema may still be wrong."""

    def __init__(self, wish: Wish) -> None:
        self.wish = wish
        self.store, self.sqlite = open_store(wish)
        self.differences: list[Finding] = []
        self._root: DataRoot | None = None

    def verify(self) -> list[Finding]:
        """What keeps the pool from working in this database. Raises nothing: both modules say it, each in its way."""
        tables = self.wish.schema.tables
        there = self.store.describe([table.name for table in tables.values()])
        live = {part: there[table.name] for part, table in tables.items()}
        found = differences(self.wish.schema, live, self.sqlite, self.store.nowhere)
        self.differences = [*found, *self.store.doubts]
        return [finding for finding in self.differences if finding.severity == "critical"]

    def transferable(self) -> list[Finding]:
        """What keeps a slot's project from being somebody else's while the slot has another."""
        projects = self.wish.schema.projects.name
        return lasting(self.wish.schema, self.store.describe([projects])[projects])

    def provide(self) -> list[Finding]:
        """The same, after missing tables were made: our own, or the application's by its own command. In check mode
        tables that would be made count as empty ones."""
        if self.store.closed:
            remedy = "Nothing was done. Give the address of the server that is written to in `database_url`"
            raise failure(self.store.spoken, "database-read-only", self.store.closed, remedy)
        problems = self.verify()
        missing = [finding.subject for finding in problems if finding.code == MISSING_TABLE]
        wish = self.wish
        if not missing:
            return problems
        if wish.schema.builtin:
            action = ("create-tables", ", ".join(missing), "they are missing")
        elif wish.options["migrate_command"]:
            action = ("migrate", wish.options["service"], f"there is no table {', '.join(missing)}")
        else:
            return problems
        if wish.check:
            wish.report.planned(*action)
            self._imagine(missing)
            return [finding for finding in problems if finding.code != MISSING_TABLE]
        with wish.report.doing(*action):
            if wish.schema.builtin:
                from .builtin import statements

                self.store.create(statements(self.sqlite))
            else:
                application(wish).run(wish.options["service"], wish.options["migrate_command"], "migrate_command")
        return self.verify()

    def look_only(self) -> list[Finding]:
        """For who changes nothing: tables of our own that are not there yet are empty ones, for a run makes them."""
        problems = self.verify()
        missing = [finding.subject for finding in problems if finding.code == MISSING_TABLE]
        if not (self.wish.schema.builtin and missing):
            return problems
        self._imagine(missing)
        self.differences = [finding for finding in self.differences if finding.code != MISSING_TABLE]
        return [finding for finding in problems if finding.code != MISSING_TABLE]

    def _imagine(self, missing: list[str]) -> None:
        self.store = _Lacking(self.store, frozenset(missing))

    def data_root(self) -> HostPath:
        path, service = self.wish.options["data_root"], self.wish.options["data_service"]
        if "\0" in path:
            raise failure("data_root", "option-invalid", f"{path!r} cannot be a path", "Take out its null character")
        if not os.path.normpath(path).strip("/"):
            remedy = "Give a directory that holds nothing but the users' directories"
            raise failure("data_root", "option-invalid", f"{path!r} is the whole file system", remedy)
        if service:
            return application(self.wish).host_path(service, path, "data_service")
        if not path.startswith("/"):
            raise failure("data_root", "option-invalid", f"{path!r} is no absolute path", "Begin it with /")
        return HostPath(path)

    def sight(self) -> Sight:
        """Opens the disk, too."""
        wish = self.wish
        place = self.data_root()
        if place.inside:
            from .place import provide_root

            provide_root(place, wish.report, check=wish.check)
        self._root = DataRoot(place, wish.settings, self._access(place))
        return Sight(Rows(self.store, wish.schema, wish.settings), self._root)

    def pool(self, sight: Sight) -> Pool:
        """What is seen, and all that it takes to change it."""
        from ..engine.memory import state_directory
        from .reconcile import Pool
        from .template import Template

        wish, cache = self.wish, os.path.join(state_directory(), "templates")
        return Pool(sight, Template(wish.template, wish.settings.marker, wish.run, cache, wish.report), wish.report)

    def _access(self, place: HostPath) -> Anyone:
        options, running = self.wish.options, self.wish.application
        services = list(dict.fromkeys(options[name] for name in ("service", "data_service") if options[name]))
        workers = running.workers(services, str(place)) if running is not None else []
        if not workers:
            return Anyone()
        from .access import Access

        return Access(place, workers)

    def close(self) -> None:
        self.store.close()
        if self._root is not None:
            self._root.close()


def application(wish: Wish) -> Application:
    if wish.application is None:
        what = "needs a Compose project, and none is given"
        raise failure("data_service, seed_command and migrate_command", "option-invalid", what, "Set `project_src`")
    return wish.application


def raise_for(problems: list[Finding]) -> None:
    if problems:
        raise ShipshapeError(*problems)


class _Lacking:
    """A store in which some tables are taken for empty ones, because a run would make them."""

    def __init__(self, store: Store, missing: frozenset[str]) -> None:
        self._store, self._missing = store, missing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def select(self, table: str, *words: Any) -> list[Mapping[str, Any]]:
        return [] if table in self._missing else self._store.select(table, *words)

    def starting(self, table: str, *words: Any) -> list[Mapping[str, Any]]:
        return [] if table in self._missing else self._store.starting(table, *words)

    def describe(self, tables: Collection[str]) -> dict[str, LiveTable | None]:
        return self._store.describe(tables)
