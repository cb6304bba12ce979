# SPDX-License-Identifier: GPL-3.0-or-later
"""The writer: anybody may come and write; who signs up keeps what was written."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.contrib.auth import login
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from . import disk, handover, leases, sections, visits
from .forms import SignUpForm
from .leases import Lease
from .limits import ACCOUNT, PROJECT, SECTION, SECTION_CHARACTERS, number_of
from .models import Project

log = logging.getLogger(__name__)
FIELD = "section:"


@dataclass(frozen=True)
class Place:
    """Whose workspace a request is about: an account's own, or the slot that the session was lent."""

    owner: str
    project_id: int
    lease: Lease | None

    def holds(self) -> bool:
        return self.lease is None or leases.holds(self.lease)


def place_of(request: HttpRequest) -> Place | None:
    """Where the request may read and write, or None: looked up anew each time."""
    if isinstance(request.user, User):
        name = request.user.username
        if not ACCOUNT.fullmatch(name) or number_of(name):
            return None
        project, _ = Project.objects.get_or_create(owner=request.user, slug=PROJECT, defaults={"name": PROJECT})
        return Place(name, project.pk, None)
    lease = leases.held(request.session)
    return Place(lease.name, lease.project_id, lease) if lease else None


@require_GET
@never_cache
def writer(request: HttpRequest) -> HttpResponse:
    if request.user.is_anonymous:
        before = request.session.get(leases.TOKEN_KEY)
        try:
            lease = visits.lease_for(request.session)
        except visits.ExhaustedError as reason:
            log.warning("[VisitorPool] High Traffic: %s", reason)
            page = render(request, "visitors/busy.html", status=503)
            page.headers["Retry-After"] = str(reason.retry_after)
            return page
        if before not in (None, lease.token):
            messages.info(request, "Your earlier visit has ended. This is a fresh workspace.")
    place = place_of(request)
    if place is None:
        return _ended(request)
    return _page(request, place)


def _page(request: HttpRequest, place: Place) -> HttpResponse:
    context: dict[str, Any] = {"place": place, "workspace": disk.has_workspace(place.owner), "sections": []}
    try:
        with sections.opened(place.owner) as folder:
            if not place.holds():
                return _ended(request)
            found = [(name, f"{FIELD}{name}", sections.read(folder, name)) for name in sections.names(folder)]
            context["sections"] = found
    except OSError:
        if context["workspace"]:
            log.warning("%s: the sections of its workspace cannot be read", place.owner, exc_info=True)
    return render(request, "visitors/writer.html", context)


def _ended(request: HttpRequest, texts: dict[str, str] | None = None) -> HttpResponse:
    """Nothing is saved without a lease, but what was written is not taken out of its writer's hands either."""
    return render(request, "visitors/ended.html", {"texts": texts or {}}, status=403)


@require_POST
@never_cache
def save(request: HttpRequest) -> HttpResponse:
    texts = {
        field.removeprefix(FIELD): value.replace("\r\n", "\n")
        for field, value in request.POST.items()
        if field.startswith(FIELD)
    }
    if any(not SECTION.fullmatch(name) or len(text) > SECTION_CHARACTERS for name, text in texts.items()):
        return HttpResponseBadRequest("That is no section's name, or its text is too long. Nothing was saved.")
    place = place_of(request)
    if place is None:
        return _ended(request, texts)
    try:
        with sections.opened(place.owner) as folder:
            if not place.holds():
                return _ended(request, texts)
            if not set(texts) <= set(sections.names(folder)):
                return HttpResponseBadRequest("There is no such section. Nothing was saved.")
            for name, text in texts.items():
                sections.write(folder, name, text)
    except FileNotFoundError:
        return _ended(request, texts)
    log.info("[%s] [Writer] Saving %d sections for manuscript", place.owner, len(texts))
    messages.success(request, "Saved.")
    return redirect("visitors:writer")


@require_POST
def create_workspace(request: HttpRequest) -> HttpResponse:
    """A workspace is files out of a template, and waits for no other service."""
    place = place_of(request)
    if place is None:
        return _ended(request)
    try:
        disk.mend(place.owner)
    except OSError:
        log.exception("%s: no workspace can be made", place.owner)
        messages.error(request, "The workspace cannot be made just now.")
    Project.objects.filter(pk=place.project_id).update(writer_initialized=disk.has_workspace(place.owner))
    return redirect("visitors:writer")


@sensitive_post_parameters()
@require_http_methods(["GET", "POST"])
@never_cache
def sign_up(request: HttpRequest) -> HttpResponse:
    if request.user.is_authenticated:
        return redirect("visitors:writer")
    lease = leases.held(request.session)
    form = SignUpForm(request.POST or None)
    if request.method == "GET" or not form.is_valid():
        return _sign_up_page(request, form, lease)
    try:
        account = handover.sign_up(form.cleaned_data["username"], form.cleaned_data["password"], lease)
    except handover.TakenError:
        form.add_error("username", "That name is taken.")
        return _sign_up_page(request, form, lease)
    except handover.EndedError:
        return _ended(request)
    leases.forget(request.session)
    login(request, account)
    messages.success(request, f"Welcome, {account.username}. What you have written is yours.")
    return redirect("visitors:writer")


def _sign_up_page(request: HttpRequest, form: SignUpForm, lease: Lease | None) -> HttpResponse:
    status = 422 if form.errors else 200
    return render(request, "visitors/signup.html", {"form": form, "lease": lease}, status=status)
