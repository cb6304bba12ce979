# SPDX-License-Identifier: GPL-3.0-or-later
"""The production settings on a database of the tests' own; SQLite unless TEST_DATABASE_URL names a PostgreSQL."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

os.environ["DATABASE_URL"] = os.environ.get("TEST_DATABASE_URL", "sqlite://:memory:")
os.environ["DJANGO_SECRET_KEY"] = "tests-only"
os.environ.setdefault("STUDIO_LOG_LEVEL", "CRITICAL")

from studio.settings import *  # noqa: F403

VISITOR_DATA_ROOT = Path(tempfile.mkdtemp(prefix="studio-users-"))
VISITOR_POOL_SIZE = 4
PRODUCTION = False
# The real one is slow on purpose.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
MEDIA_ROOT = Path(tempfile.mkdtemp(prefix="studio-tests-"))
STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}  # noqa: F405
MIDDLEWARE.remove("whitenoise.middleware.WhiteNoiseMiddleware")  # noqa: F405
LOGGING["loggers"] = {"django": {"level": "CRITICAL"}}  # noqa: F405
