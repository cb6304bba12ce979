# SPDX-License-Identifier: GPL-3.0-or-later
"""Adding a task, and looking at one."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from .forms import TaskForm
from .models import Task
from .queue import enqueue, overview


@require_POST
def create(request: HttpRequest) -> HttpResponse:
    form = TaskForm(request.POST)
    if not form.is_valid():
        return render(request, "tasks/form_page.html", {"form": form}, status=422)
    task = enqueue(form.cleaned_data["kind"], form.cleaned_data["payload"])
    messages.success(request, f"{task} is in the queue.")
    return redirect("home")


@require_safe
@never_cache
def recent(request: HttpRequest) -> HttpResponse:
    """The part of the home page that changes while a worker is busy."""
    return render(request, "tasks/_recent.html", overview())


@require_safe
@never_cache
def detail(request: HttpRequest, pk: int) -> HttpResponse:
    return render(request, "tasks/detail.html", {"task": get_object_or_404(Task, pk=pk)})
