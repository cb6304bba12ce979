# SPDX-License-Identifier: GPL-3.0-or-later
"""`manage.py reset_visitor_pool`: ends leases, clears their workspaces, and leaves a whole pool. Never asks."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from studio.apps.visitors import pool, slots, status
from studio.apps.visitors.limits import username
from studio.apps.visitors.management.arguments import at_least_one
from studio.apps.visitors.management.base import PoolCommand, not_whole
from studio.apps.visitors.models import VisitorAllocation


class Command(PoolCommand):
    help = "Clear the workspaces of all visitors, of one, or of those whose lease has expired."

    def add_arguments(self, parser: CommandParser) -> None:
        which = parser.add_mutually_exclusive_group()
        which.add_argument("--visitor", type=at_least_one, metavar="N", help="only this slot")
        which.add_argument("--expired", action="store_true", help="only leases that have ended; allowed anywhere")
        parser.add_argument("--force", action="store_true", help="also where STUDIO_ENVIRONMENT is production")
        parser.add_argument("--dry-run", action="store_true", help="only say what would be cleared; allowed anywhere")

    def handle(self, *_args: Any, **options: Any) -> None:
        if options["dry_run"]:
            self.foretell(options["visitor"], expired=options["expired"])
            return
        if options["expired"]:
            self.stdout.write(f"Expired leases cleared: {pool.renew_expired()}")
            seen = status.look()
            self.take_note(seen)
            self.whole(seen.findings())
            return
        if settings.PRODUCTION and not options["force"]:
            raise CommandError("This is production (STUDIO_ENVIRONMENT): visitors would lose their work. See --force.")
        numbers = self.numbers(options["visitor"])
        cleared = sum(slots.renew(number) for number in numbers)
        self.stdout.write(f"Slots cleared: {cleared} of {len(numbers)}")
        self.whole(pool.provide())
        self.stdout.write("Visitor pool ready")

    def foretell(self, visitor: int | None, *, expired: bool) -> None:
        numbers = self.numbers(visitor)
        rows = VisitorAllocation.objects.filter(visitor_number__in=numbers).order_by("visitor_number")
        meant = [row for row in rows if not expired or pool.is_over(row)]
        for row in meant:
            self.stdout.write(f"would clear  {row}")
        self.stdout.write(f"Slots that would be cleared: {len(meant)} of {len(numbers)}. Nothing was changed.")

    def numbers(self, visitor: int | None) -> list[int]:
        known = list(VisitorAllocation.objects.order_by("visitor_number").values_list("visitor_number", flat=True))
        if visitor is None:
            return known
        if visitor not in known:
            raise CommandError(f"There is no slot {username(visitor)}; the pool has {len(known)}. Nothing was changed.")
        return [visitor]

    def whole(self, wrong: list[str]) -> None:
        if wrong:
            raise CommandError(not_whole(wrong))
