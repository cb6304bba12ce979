# SPDX-License-Identifier: GPL-3.0-or-later
"""The queue: put in, take out, give back. Every function is one short transaction."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import Count, F, Q
from django.utils import timezone

from .limits import LEASE_SECONDS, MAX_ATTEMPTS, SHOWN
from .models import Task, Worker


def enqueue(kind: str, payload: str) -> Task:
    return Task.objects.create(kind=kind, payload=payload)


@transaction.atomic
def claim(worker: str) -> Task | None:
    """Take the oldest waiting task. SKIP LOCKED lets any number of workers do so without meeting each other."""
    now = timezone.now()
    waiting = Q(state=Task.State.QUEUED) | Q(state=Task.State.RUNNING, leased_until__lt=now)
    task = Task.objects.select_for_update(skip_locked=True).filter(waiting).order_by("id").first()
    if task is None:
        return None
    if task.attempts >= MAX_ATTEMPTS:
        finish(task, Task.State.FAILED, f"given up: {task.attempts} workers died while at it")
        return None
    task.state, task.worker, task.started_at = Task.State.RUNNING, worker, now
    task.leased_until = now + timedelta(seconds=LEASE_SECONDS)
    task.attempts += 1
    task.save()
    return task


def renew(task: Task) -> None:
    """Say that the work goes on, so that no other worker takes the task for abandoned."""
    Task.objects.filter(pk=task.pk).update(leased_until=timezone.now() + timedelta(seconds=LEASE_SECONDS))


def finish(task: Task, state: str, result: str, artifact: str = "") -> None:
    task.state, task.result, task.artifact = state, result, artifact
    task.finished_at, task.leased_until = timezone.now(), None
    task.save()


def give_back(task: Task) -> None:
    """Return a task that a stopping worker did not finish; that is nobody's failure, so no attempt is counted."""
    Task.objects.filter(pk=task.pk).update(
        state=Task.State.QUEUED, worker="", started_at=None, leased_until=None, attempts=F("attempts") - 1
    )


def beat(worker: str) -> None:
    now = timezone.now()
    Worker.objects.update_or_create(name=worker, defaults={"seen_at": now})
    Worker.objects.filter(seen_at__lt=now - timedelta(days=1)).delete()


def overview() -> dict[str, Any]:
    """What the home page shows: the latest tasks, and how many there are in each state."""
    counted = {row["state"]: row["n"] for row in Task.objects.order_by().values("state").annotate(n=Count("pk"))}
    states = [(state.label, state.value, counted.get(state.value, 0)) for state in Task.State]
    busy = any(counted.get(state, 0) for state in (Task.State.QUEUED, Task.State.RUNNING))
    return {"tasks": Task.objects.all()[:SHOWN], "states": states, "busy": busy}
