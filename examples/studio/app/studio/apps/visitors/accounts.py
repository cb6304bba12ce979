# SPDX-License-Identifier: GPL-3.0-or-later
"""Signing up and logging in: what a visitor has written becomes the account's, or is given up knowingly."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth import authenticate, login
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.models import User
from django.contrib.auth.views import LoginView
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from . import disk, handover, leases, slots
from .forms import SignUpForm
from .leases import Lease
from .limits import NEW_ACCOUNT, PROJECT

GONE = "Your earlier visit has ended, and what was written in it is no longer there."
KEPT = "What you have written is now your account's project."


@sensitive_post_parameters()
@require_http_methods(["GET", "POST"])
@never_cache
def sign_up(request: HttpRequest) -> HttpResponse:
    if request.user.is_authenticated:
        return redirect("visitors:writer")
    lease = leases.claimed(request.session)
    form = SignUpForm(request.POST or None)
    if lease is None and leases.TOKEN_KEY in request.session:
        return _again(request) or _gone(request, form)
    if request.method == "GET" or not form.is_valid():
        return _again(request) or _page(request, form, lease)
    try:
        account = handover.sign_up(form.cleaned_data["username"], form.cleaned_data["password"], lease)
    except handover.TakenError:
        form.add_error("username", "That name is taken.")
        return _again(request) or _page(request, form, lease)
    except handover.EndedError:
        return _again(request) or _gone(request, form)
    kept = "What you have written is yours." if lease else "This is your own workspace."
    messages.success(request, f"Welcome, {account.username}. {kept}")
    return _let_in(request, account)


def _let_in(request: HttpRequest, account: User) -> HttpResponse:
    leases.forget(request.session)
    login(request, account)
    return redirect("visitors:writer")


def _again(request: HttpRequest) -> HttpResponse | None:
    """A form that was sent twice, or whose first answer was lost: then the account is there, and whoever knows its
    password is let in. But nobody who still has something in a slot: that would be lost."""
    name, password = (request.POST.get(field, "") for field in ("username", "password"))
    if not NEW_ACCOUNT.fullmatch(name.strip()) or leases.claimed(request.session):
        return None
    account = authenticate(request, username=name.strip(), password=password)
    if account is None:
        return None
    _say_what_became(request, account)
    return _let_in(request, account)


def _say_what_became(request: HttpRequest, account: User) -> None:
    """Of what was written in a visit that has ended, to whom is being let in."""
    if leases.TOKEN_KEY not in request.session:
        return
    if leases.heir(request.session) == account:
        messages.success(request, KEPT)
    else:
        messages.warning(request, GONE)


def _gone(request: HttpRequest, form: SignUpForm) -> HttpResponse:
    """Said once, before there is an account: whoever goes on then has been told."""
    heir = leases.heir(request.session)
    why = f"What you have written is {heir.username}'s project now: log in." if heir else GONE
    leases.forget(request.session)
    if request.method == "POST" and form.is_valid():
        form.add_error(None, f"{why} Nothing was done yet: sign up again for an account with a fresh workspace.")
    else:
        messages.warning(request, why)
    return _page(request, form, None)


def _page(request: HttpRequest, form: SignUpForm, lease: Lease | None) -> HttpResponse:
    status = 422 if form.errors else 200
    return render(request, "visitors/signup.html", {"form": form, "lease": lease}, status=status)


class LogIn(LoginView):
    """Who logs in while a visit is going on takes its project along, or has said that it may go."""

    template_name = "visitors/login.html"

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        lease = leases.claimed(self.request.session)
        if lease is None:
            _say_what_became(self.request, form.get_user())
        if lease is not None and not self.kept(form.get_user(), lease):
            if "give_up" not in self.request.POST and not self.nothing_written(lease):
                return self.ask(form, lease)
            slots.renew(lease.number, leases.bears(lease))
        leases.forget(self.request.session)
        return super().form_valid(form)

    @disk.trouble()
    def nothing_written(self, lease: Lease) -> bool:
        return disk.untouched(disk.home(lease.name) / PROJECT)

    def kept(self, account: User, lease: Lease) -> bool:
        try:
            handover.take_over(account, lease)
        except handover.EndedError:
            _say_what_became(self.request, account)
        except handover.TakenError:
            return False
        else:
            messages.success(self.request, KEPT)
        return True

    def ask(self, form: AuthenticationForm, lease: Lease) -> HttpResponse:
        form.add_error(
            None,
            f"This account has a project already, and what you have written as {lease.name} would be deleted. Copy "
            "what you need; then tick the box, and log in again.",
        )
        return render(self.request, self.template_name, self.get_context_data(form=form, ask=True), status=409)
