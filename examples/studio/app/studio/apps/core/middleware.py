# SPDX-License-Identifier: GPL-3.0-or-later
"""What every page has: its headers, and an answer when what it needs is not there."""

from __future__ import annotations

import logging
from collections.abc import Callable

from django.contrib.sessions.exceptions import SessionInterrupted
from django.contrib.sessions.middleware import SessionMiddleware
from django.db import DatabaseError, InterfaceError, OperationalError, ProgrammingError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from studio.apps.visitors.disk import StorageError

log = logging.getLogger(__name__)

# What PostgreSQL says of a table or column that is not there: migrations have not been run. SQLite has no words of its
# own for that.
UNMIGRATED = ("42P01", "42703")
POLICY = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; object-src 'none'"


class ContentSecurityPolicy:
    """Only what this site serves itself may run, load or be sent to."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        response.headers.setdefault("Content-Security-Policy", POLICY)
        return response


class Down:
    """A database or disk that is lost, or not made yet, is no programmer's error: 503, and when to come again."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        return _down_for(request, error) if isinstance(error, StorageError) or _is_lost(error) else None


class Sessions(SessionMiddleware):
    """The session is saved when the view has ended. A database that is lost just then is down, too: Django itself would
    take the session for deleted, and call that a bad request."""

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        try:
            return super().process_response(request, response)
        except (DatabaseError, InterfaceError, SessionInterrupted) as error:
            lost = _lost(error)
            if lost is None:
                raise
            return _down_for(request, lost)


def _lost(error: BaseException | None) -> BaseException | None:
    """The loss of the database that an error comes from, if it does."""
    while error is not None and not _is_lost(error):
        error = error.__context__
    return error


def _is_lost(error: BaseException) -> bool:
    if isinstance(error, ProgrammingError):
        return getattr(error.__cause__, "sqlstate", None) in UNMIGRATED
    return isinstance(error, (OperationalError, InterfaceError))


def _down_for(request: HttpRequest, error: BaseException) -> HttpResponse:
    log.error("%s cannot be served: %s", request.path, error)
    return down(request)


def down(request: HttpRequest, **context: object) -> HttpResponse:
    page = render(request, "core/down.html", context, status=503)
    page.headers["Retry-After"] = "30"
    return page
