# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What this machine knows before it logs in: how to, and where a name is."""

from __future__ import annotations

import socket

from .url import MYSQL, POSTGRESQL, REDIS, Url

LIBRARIES = {POSTGRESQL: "psycopg", REDIS: "redis", MYSQL: "pymysql"}


def can_log_in(url: Url) -> bool:
    """Whether there is a library for its scheme; a URL of another is only compared."""
    return url.family in LIBRARIES


def resolved(host: str) -> str:
    """A name as this machine's resolver knows it; '' when it does not."""
    try:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except (OSError, UnicodeError):
        return ""
