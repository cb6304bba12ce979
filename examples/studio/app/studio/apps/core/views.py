# SPDX-License-Identifier: GPL-3.0-or-later
"""The home page, and the health report."""

from __future__ import annotations

from dataclasses import asdict

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from studio.apps.tasks.forms import TaskForm
from studio.apps.tasks.queue import overview

from . import health
from .middleware import down


@require_safe
@never_cache
def home(request: HttpRequest) -> HttpResponse:
    status, checks = health.look()
    if status == health.DOWN:
        return down(request, checks=checks)
    context = {"status": status, "checks": checks, "form": TaskForm(), "version": settings.VERSION, **overview()}
    return render(request, "core/home.html", context)


@require_safe
@never_cache
def healthz(request: HttpRequest) -> HttpResponse:
    """JSON for programs; a line a check, the verdict first, for shell scripts that ask for text/plain.

    Degraded is still 200: the site serves, and a proxy must not take it out of service for its worker's sake.
    """
    status, checks = health.look()
    code = 503 if status == health.DOWN else 200
    if request.headers.get("Accept", "").startswith("text/plain"):
        lines = [f"{check.name}: {check.detail}\n" for check in checks if not check.ok]
        return HttpResponse(f"{status}\n{''.join(lines)}", content_type="text/plain", status=code)
    report = {"status": status, "version": settings.VERSION, "checks": [asdict(check) for check in checks]}
    return JsonResponse(report, status=code)
