# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings come from the environment (.env.production on a server) and from nowhere else."""

from __future__ import annotations

import os

from django.core.exceptions import ImproperlyConfigured


def required(name: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise ImproperlyConfigured(f"{name} is not set: add it to .env.production")
    return value


def words(name: str, default: str = "") -> list[str]:
    """A comma-separated list."""
    return [word.strip() for word in os.environ.get(name, default).split(",") if word.strip()]


def flag(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true", "yes")


def positive(name: str, default: int) -> int:
    text = os.environ.get(name, "") or str(default)
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ImproperlyConfigured(f"{name} is {text!r}, and must be a whole number from 1 on")
    return int(text)
