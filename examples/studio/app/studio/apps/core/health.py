# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes the application healthy: each check looks at the thing itself and says how long that took."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from django.conf import settings
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone

from studio.apps.tasks.models import Worker
from studio.apps.visitors import disk, leases
from studio.apps.visitors.limits import username
from studio.apps.visitors.models import VisitorAllocation

log = logging.getLogger(__name__)

OK, DEGRADED, DOWN = "ok", "degraded", "down"


class UnhealthyError(Exception):
    """A check's own verdict, in words that may be shown to anybody."""


@dataclass(frozen=True)
class Check:
    """One check's outcome. Only a failed critical check makes the whole site down."""

    name: str
    ok: bool
    critical: bool
    detail: str
    milliseconds: float


def database() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        cursor.fetchone()
    return "answers"


@lru_cache(maxsize=1)
def shipped_migrations() -> frozenset[tuple[str, str]]:
    return frozenset(MigrationLoader(None, ignore_no_migrations=True).disk_migrations)


def migrations() -> str:
    """Compare this code's migrations with those that the database itself has recorded."""
    applied = set(MigrationRecorder(connection).applied_migrations())
    missing = sorted(f"{app}.{name}" for app, name in shipped_migrations() - applied)
    if missing:
        raise UnhealthyError(f"{len(missing)} not applied, first {missing[0]}")
    return f"{len(applied)} applied"


def worker() -> str:
    last = Worker.objects.order_by("-seen_at").first()
    if last is None:
        raise UnhealthyError("no worker has ever reported")
    age = (timezone.now() - last.seen_at).total_seconds()
    if age > settings.WORKER_FRESH_SECONDS:
        raise UnhealthyError(f"last seen {age:.0f} s ago")
    return f"{last.name} seen {max(age, 0):.0f} s ago"


def storage() -> str:
    """A file is really written: a full or read-only volume shows only then."""
    settings.MEDIA_ROOT.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=settings.MEDIA_ROOT, prefix=".health-") as probe:
        probe.write(b"studio")
        probe.flush()
        os.fsync(probe.fileno())
    return "writable"


def workspaces() -> str:
    """The volume of the visitors' and the accounts' directories."""
    disk.write_test()
    return "writable"


def visitors() -> str:
    """Whether there is a slot at all that may be lent, now or later: by the rows alone."""
    rows = list(VisitorAllocation.objects.all())
    if not rows:
        raise UnhealthyError("unprovisioned, there is no slot: manage.py create_visitor_pool")
    names = set(leases.accounts().values_list("username", flat=True))
    # Without an account a lease is nobody's, and no slot comes of it.
    states = Counter(row.state for row in rows if row.state == "quarantined" or username(row.visitor_number) in names)
    free, unclean = leases.count_free(), states["expired"] + states["resetting"]
    text = f"{states['leased']} lent, {free} free, {states['quarantined']} quarantined"
    if unclean:
        text += f", {unclean} to be cleaned"
    if not (free or unclean or states["leased"]):
        raise UnhealthyError(f"no slot can be lent ({text}): manage.py check_visitor_pool_health --fix")
    return text


CHECKS: tuple[tuple[Callable[[], str], bool], ...] = (
    (database, True),
    (migrations, True),
    (worker, False),
    (storage, False),
    (workspaces, False),
    (visitors, False),
)


def examine(function: Callable[[], str], critical: bool) -> Check:
    began = time.perf_counter()
    try:
        ok, detail = True, function()
    except UnhealthyError as verdict:
        ok, detail = False, str(verdict)
    except Exception as error:  # whatever fails, the report must still be made
        log.warning("health check %s failed: %s", function.__name__, error)
        ok, detail = False, f"failed ({type(error).__name__}); the web service's log says why"
    return Check(function.__name__, ok, critical, detail, round((time.perf_counter() - began) * 1000, 1))


def verdict(checks: Sequence[Check]) -> str:
    failed = [check for check in checks if not check.ok]
    if any(check.critical for check in failed):
        return DOWN
    return DEGRADED if failed else OK


def look() -> tuple[str, list[Check]]:
    checks: list[Check] = []
    for function, critical in CHECKS:
        if checks and not checks[0].ok and function not in (storage, workspaces):
            # Without its database nothing else can be asked, and each try would cost another time-out.
            checks.append(Check(function.__name__, False, critical, "not asked: the database does not answer", 0.0))
            continue
        checks.append(examine(function, critical))
    return verdict(checks), checks
