# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Times in PostgreSQL that Python has no value for."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from .model import FOREVER


class Far(datetime):
    """A time that Python has no value for, `infinity` or one of the year 20000. It stands for the latest or the
    earliest that there is; `text` is what the database has, so that the row is still known by it."""

    text = ""


def read_any_time(connection: Any) -> None:
    """psycopg raises for such times, and with that would keep all other rows from being read."""
    from psycopg.errors import DataError
    from psycopg.types.datetime import TimestampLoader, TimestamptzLoader

    def far(data: Any, zone: timezone | None) -> Far:
        text = bytes(data).decode()
        early = text.startswith("-") or text.endswith("BC")
        at = datetime.min if early else FOREVER
        found = Far(at.year, at.month, at.day, tzinfo=zone)
        found.text = text
        return found

    def tolerant(loader: type[Any], zone: timezone | None) -> type[Any]:
        class Tolerant(loader):  # type: ignore[misc]
            def load(self, data: Any) -> datetime:
                try:
                    found: datetime = super().load(data)
                except DataError:
                    return far(data, zone)
                return found

        return Tolerant

    connection.adapters.register_loader("timestamptz", tolerant(TimestamptzLoader, timezone.utc))
    connection.adapters.register_loader("timestamp", tolerant(TimestampLoader, None))
