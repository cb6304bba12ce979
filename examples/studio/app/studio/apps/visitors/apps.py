# SPDX-License-Identifier: GPL-3.0-or-later
"""The visitor pool: accounts made ahead, lent to whoever comes without one, cleaned and lent again."""

from __future__ import annotations

from django.apps import AppConfig


class VisitorsConfig(AppConfig):
    name = "studio.apps.visitors"
    label = "visitors"
