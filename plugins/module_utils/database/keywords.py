# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A database's URL in libpq's own words. Pure."""

from __future__ import annotations

import os

from .url import Url

_SSL_MODES = frozenset({"disable", "allow", "prefer", "require", "verify-ca", "verify-full"})


def keywords(url: Url, ip: str) -> dict[str, str]:
    """Everything that libpq would take from its environment or its files otherwise is said here."""
    mode = url.param("sslmode") or ("require" if url.param("ssl") == "true" else "")
    if mode in ("verify-ca", "verify-full"):
        mode = "require"  # the authority's certificate is in the container, or nowhere
    return {
        "host": url.host if _is_name(url.host) else ip,
        "hostaddr": _numeric(ip),
        "port": str(url.port),
        "user": url.user,
        "password": url.password or "",
        "dbname": url.database or url.user,
        "sslmode": mode if mode in _SSL_MODES else "prefer",
        "options": url.param("options"),
        "passfile": os.devnull,
        "gssencmode": "disable",
        "target_session_attrs": "any",
        "application_name": "shipshape.deploy",
        "client_encoding": "UTF8",
        "sslcert": "",
        "sslkey": "",
        "sslrootcert": "",
    }


def _numeric(ip: str) -> str:
    return ip.partition("%")[0]


def _is_name(host: str) -> bool:
    return bool(host) and not host.startswith("/") and "," not in host
