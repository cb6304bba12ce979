# SPDX-License-Identifier: GPL-3.0-or-later
"""Pages and health: what belongs to no single feature."""

from __future__ import annotations

from django.apps import AppConfig


class CoreConfig(AppConfig):
    name = "studio.apps.core"
    label = "core"
