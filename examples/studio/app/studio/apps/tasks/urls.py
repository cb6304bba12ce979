# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from django.urls import path

from . import views

app_name = "tasks"
urlpatterns = [
    path("", views.create, name="create"),
    path("recent", views.recent, name="recent"),
    path("<int:pk>", views.detail, name="detail"),
]
