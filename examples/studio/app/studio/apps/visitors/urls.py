# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from django.contrib.auth.views import LogoutView
from django.urls import path

from . import accounts, views

app_name = "visitors"
urlpatterns = [
    path("", views.writer, name="writer"),
    path("save", views.save, name="save"),
    path("workspace", views.create_workspace, name="workspace"),
    path("signup", accounts.sign_up, name="signup"),
    path("login", accounts.LogIn.as_view(), name="login"),
    path("logout", LogoutView.as_view(), name="logout"),
]
