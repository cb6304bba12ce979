# SPDX-License-Identifier: GPL-3.0-or-later
"""The writer: anybody may come and write; who signs up keeps what was written."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.contrib.auth.models import User
from django.db import Error
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views import csrf
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from . import disk, handover, leases, sections, slots, visits
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

    @property
    def visit(self) -> str:
        """Tells one visit from the next to the same slot, which keeps its project; it opens nothing."""
        return leases.digest(self.lease.token)[:16] if self.lease else ""

    def holds(self) -> bool:
        return self.lease is None or leases.holds(self.lease)

    def has_workspace(self) -> bool:
        """What a killed sign-up has taken out of a slot comes back before anybody says that it is not there."""
        try:
            if not disk.has_workspace(self.owner) and self.lease:
                slots.settle(self.lease.number)
            return disk.has_workspace(self.owner)
        except OSError as error:
            raise disk.StorageError(f"{self.owner}: its workspace cannot be looked at: {error}") from error


def place_of(request: HttpRequest) -> Place | None:
    """Where the request may read and write, or None: looked up anew each time."""
    if isinstance(request.user, User):
        return _place_of_account(request.user)
    lease = leases.held(request.session)
    return Place(lease.name, lease.project_id, lease) if lease else None


def _place_of_account(account: User) -> Place | None:
    name = account.username
    if not ACCOUNT.fullmatch(name) or number_of(name):
        return None
    project = Project.objects.filter(owner=account, slug=PROJECT).first()
    if project is None:
        # A project of the account's says of a killed transfer that it was committed, so that is settled before.
        handover.settle(name, wait=True)
        project, _ = Project.objects.get_or_create(owner=account, slug=PROJECT, defaults={"name": PROJECT})
    return Place(name, project.pk, None)


@require_GET
@never_cache
def writer(request: HttpRequest) -> HttpResponse:
    if request.user.is_authenticated:
        place = place_of(request)
        return _page(request, place) if place else _ended(request)
    before, key = request.session.get(leases.TOKEN_KEY), request.session.session_key
    try:
        lease = visits.lease_for(request.session)
    except visits.ExhaustedError as reason:
        log.warning("[VisitorPool] High Traffic: %s", reason)
        page = render(request, "visitors/busy.html", {"cause": reason.cause}, status=503)
        page.headers["Retry-After"] = str(reason.retry_after)
        return page
    if before not in (None, lease.token):
        messages.info(request, "Your earlier visit has ended. This is a fresh workspace.")
    try:
        return _page(request, Place(lease.name, lease.project_id, lease))
    except Exception:
        if before != lease.token:
            # The browser may never learn of this session, and would be lent one slot after another.
            visits.give_back(lease)
            visits.leave(request.session, key)
        raise


@disk.trouble()
def _page(request: HttpRequest, place: Place) -> HttpResponse:
    context: dict[str, Any] = {"place": place, "workspace": place.has_workspace(), "sections": []}
    if not context["workspace"]:
        return render(request, "visitors/writer.html", context)
    try:
        with sections.opened(place.owner) as folder:
            if not place.holds():
                return _ended(request)
            context["sections"] = _read(folder)
    except FileNotFoundError:
        if not place.holds():
            return _ended(request)  # the slot was cleaned meanwhile
    return render(request, "visitors/writer.html", context)


@disk.trouble()
def _read(folder: int) -> list[tuple[str, str, str]]:
    """All sections, or none: a page without those that cannot be read would say that they are not there."""
    return [(name, f"{FIELD}{name}", sections.read(folder, name)) for name in sections.names(folder)]


def _ended(request: HttpRequest, texts: dict[str, str] | None = None) -> HttpResponse:
    """Nothing is saved without a lease, but what was written is not taken out of its writer's hands either."""
    return render(request, "visitors/ended.html", {"texts": texts or {}}, status=403)


def _unsaved(request: HttpRequest, texts: dict[str, str], status: int, **why: object) -> HttpResponse:
    return render(request, "visitors/unsaved.html", {"texts": texts, **why}, status=status)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """A page from before a log-in, in another tab, has a token that is no longer good. What is typed in it is."""
    if request.path != reverse("visitors:save"):
        return csrf.csrf_failure(request, reason)
    return _unsaved(request, _texts(request), 403, why="The form is from before a log-in or a log-out.")


def _texts(request: HttpRequest) -> dict[str, str]:
    return {
        field.removeprefix(FIELD): value.replace("\r\n", "\n")
        for field, value in request.POST.items()
        if field.startswith(FIELD)
    }


@require_POST
@never_cache
def save(request: HttpRequest) -> HttpResponse:
    texts = _texts(request)
    if not texts:
        return _unsaved(request, texts, 400, why="There was no section in what was sent.")
    if any(not SECTION.fullmatch(name) or len(text) > SECTION_CHARACTERS for name, text in texts.items()):
        return _unsaved(request, texts, 400, why="That is no section's name, or its text is too long.")
    saved: list[str] = []
    try:
        return _save(request, texts, saved)
    except (OSError, Error):
        log.exception("[Writer] %d of %d sections could not be saved", len(texts) - len(saved), len(texts))
        unsaved = {name: text for name, text in texts.items() if name not in saved}
        page = _unsaved(request, unsaved, 503, saved=saved)
        page.headers["Retry-After"] = "60"
        return page


def _save(request: HttpRequest, texts: dict[str, str], saved: list[str]) -> HttpResponse:
    place = place_of(request)
    if place is None or not _is_the_forms(request, place):
        return _ended(request, texts)
    try:
        with sections.opened(place.owner) as folder:
            if not place.holds():
                return _ended(request, texts)
            if not set(texts) <= set(sections.names(folder)):
                return _unsaved(request, texts, 400, why="This workspace has no such section.")
            sections.write(folder, texts, saved)
    except FileNotFoundError:
        if not place.holds():
            return _ended(request, texts)  # the slot was cleaned meanwhile
        raise
    log.info("[%s] [Writer] Saving %d sections for manuscript", place.owner, len(texts))
    messages.success(request, "Saved.")
    return redirect("visitors:writer")


def _is_the_forms(request: HttpRequest, place: Place) -> bool:
    """An old tab's form may be about a visit that has ended, or an account that has logged out. The next workspace of
    the same browser is not where that belongs."""
    if request.POST.get("project", str(place.project_id)) != str(place.project_id):
        return False
    return not place.lease or request.POST.get("visit", place.visit) == place.visit


@require_POST
def create_workspace(request: HttpRequest) -> HttpResponse:
    """A workspace is files out of a template, and waits for no other service."""
    place = place_of(request)
    if place is None:
        return _ended(request)
    try:
        if not _mend(place):
            return _ended(request)
    except OSError:
        log.exception("%s: no workspace can be made", place.owner)
        messages.error(request, "The workspace cannot be made just now.")
    return redirect("visitors:writer")


def _mend(place: Place) -> bool:
    """False when the lease has ended meanwhile: then nothing is made in the slot."""
    if place.lease is None:
        disk.mend(place.owner)
        Project.objects.filter(pk=place.project_id).update(writer_initialized=True)
        return True
    with slots.lock(place.lease.number, wait=True):
        if not place.holds():
            return False
        slots.mend(place.lease.number)
    return True
