# SPDX-License-Identifier: GPL-3.0-or-later
"""What the pool's commands have in common: how they fail."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error

from studio.apps.visitors.disk import StorageError
from studio.apps.visitors.status import Pool


class PoolCommand(BaseCommand):
    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            return super().execute(*args, **options)
        except StorageError as error:
            raise CommandError(f"Nothing can be said of the visitor pool, nor done: {error}") from error
        except Error as error:
            said = str(error).strip().partition("\n")[0]
            raise CommandError(
                f"The database does not answer, or lacks what the visitor pool needs: {said}. See whether it runs; if "
                "it does, run manage.py migrate."
            ) from error

    def take_note(self, seen: Pool) -> None:
        """What is not wrong, and yet no figure says. Not on stdout: the status there is read by programs."""
        for note in seen.notes():
            self.stderr.write(f"note: {note}")


def not_whole(wrong: list[str]) -> str:
    return "The visitor pool is not whole:\n  " + "\n  ".join(wrong)
