# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How connection URLs are shown, and how they are written with another password. Pure."""

from __future__ import annotations

import re
from urllib.parse import quote

from ..report.masking import MASK
from .url import REDIS, Parsed

# Parameters that may be shown; the value of any other may be a secret.
_HARMLESS = frozenset({"sslmode", "schema", "ssl", "connection_limit", "pool_timeout", "pgbouncer", "charset"})
_PLACEHOLDER = re.compile(
    r"change[-_ ]?(me|this|it)([-_ !].*)?|<.*>|\[.*\]|\{\{.*\}\}|\$\{?[A-Za-z_]\w*\}?|to[-_ ]?do|fix[-_ ]?me|tbd"
    r"|x{3,}|\*{3,}|\.{3,}|\?{2,}|(your|insert|enter|put)[-_ ].*(password|secret|here)|replace[-_ ]?(me|this|with).*"
    r"|redacted|place[-_ ]?holder|password[-_ ](goes[-_ ])?here",
    re.IGNORECASE,
)


def masked(parsed: Parsed) -> str:
    """The URL as it may be shown: rebuilt from its parts, so that nothing comes along that was not meant to."""
    url = parsed.url
    if url is None:
        return MASK
    if parsed.doubtful:
        return f"{url.scheme}://{MASK}"
    userinfo = quote(url.user, safe="", errors="surrogateescape")
    if url.password is not None:
        userinfo += f":{MASK}"
    elif userinfo and url.family == REDIS:
        userinfo = MASK  # a Redis password is often written where the user belongs
    host = f"[{url.host}]" if ":" in url.host else url.host
    shown = f"{url.scheme}://{userinfo}{'@' if userinfo else ''}{host}:{url.port}"
    shown += f"/{quote(url.database, safe='', errors='surrogateescape')}" if url.database else ""
    words = [f"{name}={value if name in _HARMLESS else MASK}" for name, value in url.params if name.isidentifier()]
    return f"{shown}?{'&'.join(words)}" if words else shown


def secrets_in(parsed: Parsed) -> set[str]:
    """Whatever in it must not be shown: the password as written and decoded, and parameters that may hold one."""
    if parsed.url is None:
        return {parsed.text}
    start, end = parsed.password_span
    found = {parsed.text[start:end], parsed.url.password or ""}
    if parsed.fatal or parsed.doubtful:
        found.add(parsed.text)  # what looks like something else may be part of the password
    found |= {value for name, value in parsed.url.params if name in ("password", "sslpassword", "passwd")}
    if parsed.url.family == REDIS and parsed.url.password is None:
        found.add(parsed.url.user)
    return found - {""}


def with_password(parsed: Parsed, password: str) -> str:
    """The same URL with another password; everything else stays as it is written."""
    start, end = parsed.password_span
    return parsed.text[:start] + encoded(password) + parsed.text[end:]


def encoded(password: str) -> str:
    """`password` as it stands in a URL, an env file and a shell alike: letters, digits, and - . _ ~ %."""
    return quote(password, safe="", errors="surrogateescape")


def is_placeholder(value: str) -> bool:
    """Whether somebody was meant to put something else in the place of `value`: `changeme`, `<password>`, `TODO`."""
    return bool(_PLACEHOLDER.fullmatch(value.strip())) or value in ("PASSWORD", "DB_PASSWORD")
