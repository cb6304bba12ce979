# SPDX-License-Identifier: GPL-3.0-or-later
"""Signing up and logging in: what a visitor has written becomes the account's, or is given up knowingly."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth import login
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
from .limits import PROJECT

GONE = "Your earlier visit has ended, and what was written in it is no longer there."


@sensitive_post_parameters()
@require_http_methods(["GET", "POST"])
@never_cache
def sign_up(request: HttpRequest) -> HttpResponse:
    if request.user.is_authenticated:
        return redirect("visitors:writer")
    lease = leases.claimed(request.session)
    form = SignUpForm(request.POST or None)
    if lease is None and leases.TOKEN_KEY in request.session:
        return _gone(request, form)
    if request.method == "GET" or not form.is_valid():
        return _page(request, form, lease)
    try:
        account = handover.sign_up(form.cleaned_data["username"], form.cleaned_data["password"], lease)
    except handover.TakenError:
        form.add_error("username", "That name is taken.")
        return _page(request, form, lease)
    except handover.EndedError:
        return _gone(request, form)
    leases.forget(request.session)
    login(request, account)
    kept = "What you have written is yours." if lease else "This is your own workspace."
    messages.success(request, f"Welcome, {account.username}. {kept}")
    return redirect("visitors:writer")


def _gone(request: HttpRequest, form: SignUpForm) -> HttpResponse:
    """Said once, before there is an account: whoever goes on then has been told."""
    leases.forget(request.session)
    if request.method == "POST" and form.is_valid():
        form.add_error(None, f"{GONE} Nothing was done yet: sign up again for an account with a fresh workspace.")
    else:
        messages.warning(request, GONE)
    return _page(request, form, None)


def _page(request: HttpRequest, form: SignUpForm, lease: Lease | None) -> HttpResponse:
    status = 422 if form.errors else 200
    return render(request, "visitors/signup.html", {"form": form, "lease": lease}, status=status)


class LogIn(LoginView):
    """Who logs in while a visit is going on takes its project along, or has said that it may go."""

    template_name = "visitors/login.html"

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        lease = leases.claimed(self.request.session)
        if lease is None and leases.TOKEN_KEY in self.request.session:
            messages.warning(self.request, GONE)
        if lease is not None and not self.kept(form.get_user(), lease):
            if "give_up" not in self.request.POST and not disk.untouched(disk.home(lease.name) / PROJECT):
                return self.ask(form, lease)
            slots.renew(lease.number, leases.bears(lease))
        leases.forget(self.request.session)
        return super().form_valid(form)

    def kept(self, account: User, lease: Lease) -> bool:
        try:
            handover.take_over(account, lease)
        except handover.EndedError:
            messages.warning(self.request, GONE)
        except handover.TakenError:
            return False
        else:
            messages.success(self.request, "What you have written is now your account's project.")
        return True

    def ask(self, form: AuthenticationForm, lease: Lease) -> HttpResponse:
        form.add_error(
            None,
            f"This account has a project already, and what you have written as {lease.name} would be deleted. Copy "
            "what you need; then tick the box, and log in again.",
        )
        return render(self.request, self.template_name, self.get_context_data(form=form, ask=True), status=409)
