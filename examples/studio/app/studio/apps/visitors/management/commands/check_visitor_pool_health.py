# SPDX-License-Identifier: GPL-3.0-or-later
"""`manage.py check_visitor_pool_health`: what is wrong with the pool, slot by slot; exit code 1 when anything is."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from studio.apps.visitors import pool, status
from studio.apps.visitors.management.base import PoolCommand, not_whole


class Command(PoolCommand):
    help = "Look at the rows, directories and workspaces of the visitor pool."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--fix", action="store_true", help="clean expired slots, repair the rest, and look again")

    def handle(self, *_args: Any, **options: Any) -> None:
        wrong = status.look().findings()
        if options["fix"]:
            for line in wrong:
                self.stdout.write(f"found  {line}")
            pool.renew_expired()
            wrong = pool.provide()
        seen = status.look()
        self.stdout.write(seen.text())
        self.take_note(seen)
        if seen.crowded:
            self.stdout.write("warning: more than 80 % of the slots are lent; create_visitor_pool --size N makes more")
        if wrong:
            raise CommandError(not_whole(wrong))
