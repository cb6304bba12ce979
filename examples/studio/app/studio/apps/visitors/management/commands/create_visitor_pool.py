# SPDX-License-Identifier: GPL-3.0-or-later
"""`manage.py create_visitor_pool`: makes, grows, shrinks and repairs the pool, or shows how it is."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from studio.apps.visitors import disk, pool, status
from studio.apps.visitors.management.arguments import at_least_one
from studio.apps.visitors.management.base import PoolCommand, not_whole


class Command(PoolCommand):
    help = "Make every slot of the visitor pool that is missing, and repair the others. Safe to run at every start."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--size", type=at_least_one, help="number of slots; without it the pool never shrinks")
        parser.add_argument("--status", action="store_true", help="only count, and change nothing")
        parser.add_argument(
            "--at-start", action="store_true", help="fail only when no slot is usable: one that is broken stops no site"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        if options["status"]:
            seen = status.look()
            self.stdout.write(seen.text())
            self.take_note(seen)
            wrong = seen.findings()
        else:
            self.stdout.write("Initializing visitor pool...")
            wrong = self.provided(options["size"], at_start=options["at_start"])
        if wrong:
            said = not_whole(wrong)
            if not (options["at_start"] and status.look().usable):
                raise CommandError(said)
            self.stderr.write(said)
        elif not options["status"]:
            # Rows and directories have just been looked at once more; this is not a wish.
            self.stdout.write("Visitor pool ready")

    def provided(self, size: int | None, *, at_start: bool) -> list[str]:
        try:
            return pool.provide(size)
        except disk.StorageError as error:
            if not at_start:
                raise
            return [str(error)]  # slots that are whole can be lent all the same
