# SPDX-License-Identifier: GPL-3.0-or-later
"""Every URL of the application, one line an app."""

from __future__ import annotations

from django.urls import include, path

urlpatterns = [
    path("", include("studio.apps.core.urls")),
    path("tasks/", include("studio.apps.tasks.urls")),
    path("writer/", include("studio.apps.visitors.urls")),
]
