# SPDX-License-Identifier: GPL-3.0-or-later
"""A task queue in PostgreSQL: a table, a form to add to it, and a worker that empties it."""

from __future__ import annotations

from django.apps import AppConfig


class TasksConfig(AppConfig):
    name = "studio.apps.tasks"
    label = "tasks"
