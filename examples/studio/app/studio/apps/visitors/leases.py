# SPDX-License-Identifier: GPL-3.0-or-later
"""Leases: one row a slot. Taking one is one statement, so that any number of visitors may come at the same moment."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from datetime import datetime

from django.conf import settings
from django.contrib.auth.hashers import UNUSABLE_PASSWORD_PREFIX
from django.contrib.auth.models import User
from django.contrib.sessions.backends.base import SessionBase
from django.db import connection
from django.db.models import Q, QuerySet
from django.utils import timezone

from .limits import PREFIX, PROJECT, number_of, username
from .models import Project, VisitorAllocation

PROJECT_KEY, USER_KEY, TOKEN_KEY = SESSION_KEYS = (
    "visitor_project_id",
    "visitor_user_id",
    "visitor_allocation_token",
)


@dataclass(frozen=True)
class Lease:
    """A session's hold on a slot."""

    number: int
    user_id: int
    project_id: int
    session_key: str
    token: str = field(repr=False)

    @property
    def name(self) -> str:
        return username(self.number)


# Free slots that have a visitor's account and a project, each look at the two limited to the rows that are met. A row
# that still bears a session was freed by somebody who has not cleared the slot.
_CANDIDATES_POSTGRESQL = """
    FROM project_app_visitorallocation AS slot
    CROSS JOIN LATERAL (
        SELECT account.id AS user_id, project.id AS project_id
        FROM auth_user AS account
        JOIN project_app_project AS project ON project.owner_id = account.id AND project.slug = %s
        WHERE account.is_active AND NOT account.is_staff AND NOT account.is_superuser
            AND account.password LIKE '!%%' AND account.username =
            %s || lpad(slot.visitor_number::text, greatest(3, length(slot.visitor_number::text)), '0')
        LIMIT 1
    ) AS own
    WHERE NOT slot.is_active AND slot.session_key = ''
"""
# The lowest of them. A row that another visit is just taking is passed by, not waited for: no two visits get the same,
# and none waits for another. The CTE is run once, where a subquery in the UPDATE could be run again for each row.
_TAKE_POSTGRESQL = f"""
    WITH free AS (
        SELECT slot.id, own.user_id, own.project_id {_CANDIDATES_POSTGRESQL}
        ORDER BY slot.visitor_number LIMIT 1 FOR UPDATE OF slot SKIP LOCKED
    )
    UPDATE project_app_visitorallocation AS slot
    SET is_active = true, session_key = %s, allocation_token = %s, allocated_at = %s, expires_at = %s
    FROM free WHERE slot.id = free.id
    RETURNING slot.visitor_number, free.user_id, free.project_id
"""
_CANDIDATES_SQLITE = """
    FROM project_app_visitorallocation AS slot
    JOIN project_app_project AS project ON project.slug = %s
    JOIN auth_user AS account ON account.id = project.owner_id AND account.is_active
        AND NOT account.is_staff AND NOT account.is_superuser AND account.password LIKE '!%%'
        AND account.username = %s || printf('%%03d', slot.visitor_number)
    WHERE NOT slot.is_active AND slot.session_key = ''
"""
# SQLite lets one writer in at a time, and the whole statement is inside.
_TAKE_SQLITE = f"""
    WITH free AS (SELECT slot.id {_CANDIDATES_SQLITE} ORDER BY slot.visitor_number LIMIT 1)
    UPDATE project_app_visitorallocation
    SET is_active = true, session_key = %s, allocation_token = %s, allocated_at = %s, expires_at = %s
    WHERE id = (SELECT id FROM free)
    RETURNING visitor_number
"""
_FREE = """
    UPDATE project_app_visitorallocation
    SET is_active = false, session_key = '', allocation_token = %s, allocated_at = %s, expires_at = %s
    WHERE visitor_number = %s
"""


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def no_token() -> str:
    """What stands in the row of a slot that nobody has: the hash of nothing that anybody knows."""
    return secrets.token_hex(32)


def allocate(session_key: str) -> Lease | None:
    """Lend the lowest free slot to a session; None when every one is taken at this moment."""
    token, now = secrets.token_hex(32), timezone.now()
    values = (session_key, digest(token), now, now + settings.VISITOR_LIFETIME)
    row = _take_postgresql(*values) if connection.vendor == "postgresql" else _take_sqlite(*values)
    return Lease(*row, session_key, token) if row else None


def _take_postgresql(*values: object) -> tuple[int, int, int] | None:
    """By a cursor of the driver's own: the server plans the statement once for each connection, and that takes as long
    as running it. Django's put the values into the text, which is a new statement each time."""
    import psycopg

    connection.ensure_connection()
    with connection.wrap_database_errors, psycopg.Cursor(connection.connection) as cursor:
        return cursor.execute(_TAKE_POSTGRESQL, [PROJECT, PREFIX, *values], prepare=True).fetchone()


def _take_sqlite(session_key: str, stored: str, *times: datetime) -> tuple[int, int, int] | None:
    adapted = [connection.ops.adapt_datetimefield_value(at) for at in times]
    with connection.cursor() as cursor:
        cursor.execute(_TAKE_SQLITE, [PROJECT, PREFIX, session_key, stored, *adapted])
        return _whole(cursor.fetchone())


def any_free() -> bool:
    """Whether a slot is free at this moment, be it that another visit is just taking it."""
    return _ask_candidates("SELECT 1 {} LIMIT 1") is not None


def count_free() -> int:
    """How many could be lent at this moment, by their rows."""
    return int((_ask_candidates("SELECT count(*) {}") or (0,))[0])


def _ask_candidates(question: str) -> tuple[int] | None:
    candidates = _CANDIDATES_POSTGRESQL if connection.vendor == "postgresql" else _CANDIDATES_SQLITE
    with connection.cursor() as cursor:
        cursor.execute(question.format(candidates), [PROJECT, PREFIX])
        row: tuple[int] | None = cursor.fetchone()
        return row


def _whole(row: tuple[int] | None) -> tuple[int, int, int] | None:
    """SQLite returns columns of the changed table only; the account and the project are looked up beside it."""
    if row is None:
        return None
    project = Project.objects.get(owner__username=username(row[0]), slug=PROJECT)
    return row[0], project.owner_id, project.pk


def held(session: SessionBase) -> Lease | None:
    """The session's lease, if it holds one at this very moment: looked up anew for every use."""
    lease = _named(session)
    return lease if lease and holds(lease) else None


def claimed(session: SessionBase) -> Lease | None:
    """The same, or one that has ended: until the slot is cleaned, what was written is there, and its writer's."""
    lease = _named(session)
    return lease if lease and holds(lease, ended=True) else None


def _named(session: SessionBase) -> Lease | None:
    """The lease that a session speaks of, which is no proof of anything."""
    token, user_id, project_id = (session.get(key) for key in (TOKEN_KEY, USER_KEY, PROJECT_KEY))
    if not (isinstance(token, str) and isinstance(user_id, int) and isinstance(project_id, int)):
        return None
    project = Project.objects.select_related("owner").filter(pk=project_id, owner_id=user_id, slug=PROJECT).first()
    number = number_of(project.owner.username) if project else None
    if project is None or number is None or not session.session_key:
        return None
    if is_somebodys(project.owner):
        return None
    return Lease(number, user_id, project_id, session.session_key, token)


def holds(lease: Lease, *, lock: bool = False, ended: bool = False) -> bool:
    """Whether the row agrees: this slot, this session, this token, not expired (or be it `ended`). With `lock` it stays
    so, until the transaction ends."""
    rows = VisitorAllocation.objects.select_for_update() if lock else VisitorAllocation.objects
    alive = Q() if ended else Q(expires_at__gte=timezone.now())
    row = rows.filter(alive, visitor_number=lease.number, session_key=lease.session_key, is_active=True).first()
    return hmac.compare_digest(digest(lease.token), row.allocation_token if row else no_token())


def bears(lease: Lease) -> Q:
    """Rows that still bear this lease."""
    return Q(is_active=True, session_key=lease.session_key, allocation_token=digest(lease.token))


def is_somebodys(account: User) -> bool:
    """Whether a person can log in to it, or it may more than visitors: then it is no slot's, and is not touched."""
    return account.is_staff or account.is_superuser or account.has_usable_password()


def accounts() -> QuerySet[User]:
    """Those that may be slots'."""
    unusable = Q(password__startswith=UNUSABLE_PASSWORD_PREFIX, is_staff=False, is_superuser=False)
    return User.objects.filter(unusable, username__startswith=PREFIX)


def remember(session: SessionBase, lease: Lease) -> None:
    session[PROJECT_KEY], session[USER_KEY], session[TOKEN_KEY] = lease.project_id, lease.user_id, lease.token


def forget(session: SessionBase) -> None:
    """Takes the keys out of the session. One that another request has ended cannot be written any more: it is left."""
    if session.session_key and not session.exists(session.session_key):
        session.flush()
    for key in SESSION_KEYS:
        session.pop(key, None)


def heir(session: SessionBase) -> User | None:
    """The account that has taken over what was written in the session's visit.

    A slot keeps its project from one visit to the next, so the project may have been taken along by a later visitor,
    who is nobody's business. A module that hands over does not say whose visit it was.
    """
    mine = Q(visit=digest(str(session.get(TOKEN_KEY)))) | Q(visit=None)
    project = Project.objects.select_related("owner").filter(mine, pk=session.get(PROJECT_KEY)).first()
    return project.owner if project and number_of(project.owner.username) is None else None


def free(number: int) -> None:
    """Offers a slot. Whoever calls this has looked at its directory."""
    now = connection.ops.adapt_datetimefield_value(timezone.now())
    with connection.cursor() as cursor:
        cursor.execute(_FREE, [no_token(), now, now, number])
