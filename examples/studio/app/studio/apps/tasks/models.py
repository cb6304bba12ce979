# SPDX-License-Identifier: GPL-3.0-or-later
"""The queue's table, and the workers that empty it."""

from __future__ import annotations

from django.db import models


class Task(models.Model):
    """One piece of work that somebody asked for."""

    class Kind(models.TextChoices):
        CHART = "chart", "Word chart"
        CHECKSUM = "checksum", "Checksum"
        COUNTDOWN = "countdown", "Countdown"

    class State(models.TextChoices):
        QUEUED = "queued", "Queued"
        RUNNING = "running", "Running"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"

    kind = models.CharField(max_length=20, choices=Kind)
    payload = models.TextField()
    state = models.CharField(max_length=10, choices=State, default=State.QUEUED)
    result = models.TextField(blank=True)
    artifact = models.CharField(max_length=200, blank=True, help_text="path below MEDIA_ROOT")
    attempts = models.PositiveSmallIntegerField(default=0)
    worker = models.CharField(max_length=100, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    leased_until = models.DateTimeField(null=True, help_text="a worker that is silent for longer is taken for dead")

    class Meta:
        ordering = ("-id",)
        indexes = [models.Index(fields=["state", "id"], name="task_queue")]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} #{self.pk}"

    @property
    def finished(self) -> bool:
        return self.state in (self.State.DONE, self.State.FAILED)

    @property
    def seconds(self) -> float | None:
        if self.started_at is None or self.finished_at is None:
            return None
        return (self.finished_at - self.started_at).total_seconds()


class Worker(models.Model):
    """A worker process, by its container's name, and when it last got round its loop."""

    name = models.CharField(max_length=100, primary_key=True)
    seen_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name
