# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of the project; what differs between two installations is read from the environment."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import dj_database_url

from .apps.visitors.limits import FORM_BYTES
from .environment import flag, positive, required, words

BASE_DIR = Path(__file__).resolve().parent.parent
VERSION = "1.0.0"

SECRET_KEY = required("DJANGO_SECRET_KEY")
DEBUG = flag("DJANGO_DEBUG")
# How the other containers call it, and this one's own healthcheck.
ALLOWED_HOSTS = [*words("DJANGO_ALLOWED_HOSTS", "127.0.0.1"), "localhost", "web", "proxy"]
CSRF_TRUSTED_ORIGINS = words("DJANGO_CSRF_TRUSTED_ORIGINS")

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "studio.apps.core",
    "studio.apps.tasks",
    "studio.apps.visitors",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "studio.apps.core.middleware.ContentSecurityPolicy",
    "studio.apps.core.middleware.Sessions",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "studio.apps.core.middleware.Down",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "studio.urls"
WSGI_APPLICATION = "studio.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

DATABASES = {"default": dj_database_url.parse(required("DATABASE_URL"), conn_max_age=60, conn_health_checks=True)}
if DATABASES["default"]["ENGINE"].endswith("postgresql"):
    # A database that is gone must show within a healthcheck's time, not after the kernel's two minutes. The statement
    # that lends a slot is prepared (see visitors/leases.py): of a pooler, that asks for sessions, as our locks do.
    DATABASES["default"]["OPTIONS"] = {
        "connect_timeout": 3,
        "prepare_threshold": 5,
        **DATABASES["default"].get("OPTIONS", {}),
    }
else:
    # A transaction that reads and then writes takes its lock at the beginning, or SQLite ends it when another wrote.
    DATABASES["default"].setdefault("OPTIONS", {}).update(transaction_mode="IMMEDIATE", timeout=20)

# Files that the worker makes and the proxy serves: one volume, shared by the three.
MEDIA_ROOT = Path(os.environ.get("STUDIO_MEDIA_ROOT", "/data/media"))
MEDIA_URL = "/media/"
STATIC_ROOT = BASE_DIR / "static-files"
STATIC_URL = "/static/"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}

# The visitors' directories and those of who signed up, below a volume of their own.
VISITOR_DATA_ROOT = Path(os.environ.get("STUDIO_DATA_ROOT", "/data/users"))
VISITOR_TEMPLATE = Path(os.environ.get("STUDIO_WORKSPACE_TEMPLATE", BASE_DIR / "studio/apps/visitors/workspace"))
VISITOR_POOL_SIZE = positive("STUDIO_VISITOR_POOL_SIZE", 32)
VISITOR_LIFETIME = timedelta(hours=positive("STUDIO_VISITOR_HOURS", 24))
# How often a worker removes what has ended.
VISITOR_UPKEEP = timedelta(minutes=positive("STUDIO_VISITOR_UPKEEP_MINUTES", 10))
# A visit is its session's, which must not end before it.
SESSION_COOKIE_AGE = int(max(timedelta(weeks=2), VISITOR_LIFETIME).total_seconds())
# What the writer's page lets people write must also arrive.
DATA_UPLOAD_MAX_MEMORY_SIZE = FORM_BYTES
# A page without the database must not ask it for messages.
MESSAGE_STORAGE = "django.contrib.messages.storage.cookie.CookieStorage"
# A save that is refused must not lose what was typed.
CSRF_FAILURE_VIEW = "studio.apps.visitors.views.csrf_failure"
# Whatever is not said to be something else is production: there visitors' work is not thrown away unasked.
PRODUCTION = os.environ.get("STUDIO_ENVIRONMENT", "production") not in ("demo", "development", "test")

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
LOGIN_URL = "visitors:login"
LOGIN_REDIRECT_URL = "visitors:writer"
LOGOUT_REDIRECT_URL = "home"

USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"

# The proxy says by this header whether the visitor came by HTTPS.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = flag("DJANGO_SECURE_COOKIES")

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": os.environ.get("STUDIO_LOG_LEVEL", "INFO").upper()},
}

# How old a worker's heartbeat may be. Its longest step between two beats is one task (limits.py).
WORKER_FRESH_SECONDS = 30
