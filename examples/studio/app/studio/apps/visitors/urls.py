# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from . import views

app_name = "visitors"
urlpatterns = [
    path("", views.writer, name="writer"),
    path("save", views.save, name="save"),
    path("workspace", views.create_workspace, name="workspace"),
    path("signup", views.sign_up, name="signup"),
    path("login", LoginView.as_view(template_name="visitors/login.html"), name="login"),
    path("logout", LogoutView.as_view(), name="logout"),
]
