# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where an application's database is: for modules that speak to it themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..report.finding import ShipshapeError, failure

if TYPE_CHECKING:
    from .sight import Looker, Seen
    from .url import Parsed, Url

# What libpq does to know the server, and how it lets itself be known, taken from an operator's URL as it is.
_AS_GIVEN = (
    *("sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl"),
    *("sslcrldir", "sslsni", "sslnegotiation", "sslcertmode", "channel_binding", "require_auth"),
    *("ssl_min_protocol_version", "ssl_max_protocol_version", "gssencmode", "krbsrvname", "target_session_attrs"),
)

Reach = tuple[dict[str, str], str]  # libpq's keywords; the URL as it may be shown


def looker(connection: Any, compose: Any, report: Any) -> Looker:
    """Who sees a service's variables as its containers do. Loaded only when a service is asked for."""
    from .sight import Looker

    return Looker(connection, compose, report)


def value(seen: Seen, service: str, variable: str) -> str:
    """What the next container of `service` gets in `variable`."""
    if service not in seen.project.services:
        known = ", ".join(sorted(seen.project.services))
        what = f"the project has no service {service} (it has {known})"
        raise failure(service, "service-unknown", what, "Check `service`, `services` and `profiles`")
    found = seen.resolved(service).get(variable)
    if not found:
        what = f"it has no variable {variable}, which is to hold its database's URL"
        raise failure(service, "variable-missing", what, "Check `database_variable`, or give `database_url`")
    return found


def given(text: str) -> Reach:
    """A URL as this machine sees it. What it says of TLS holds, for the files that it names are on this machine."""
    from .keywords import keywords
    from .spelling import masked
    from .url import parse

    parsed = parse(text)
    url = _postgresql(parsed, "database_url")
    found = keywords(url, "")
    said = {name: url.param(name) for name in _AS_GIVEN if url.param(name)}
    return {**found, **said, "host": url.host or "", "hostaddr": ""}, masked(parsed)


def of_service(looker: Looker, seen: Seen, service: str, text: str) -> Reach:
    """A URL as the containers of `service` see it: its host may be a name that only they know."""
    from .keywords import keywords
    from .spelling import masked, secrets_in
    from .url import parse

    parsed = parse(text)
    looker.hide_read(secrets_in(parsed))
    url = _postgresql(parsed, service)
    found = looker.address(text, seen, service)
    at = found[1] if found is not None else None
    if at is None or not at.ip:
        why = at.why if at is not None else "its URL cannot be read"
        remedy = (at.remedy if at is not None else "") or "Give `database_url` as this machine reaches the server"
        raise failure(masked(parsed), "database-unreachable", why, remedy)
    return keywords(url, at.ip), masked(parsed)


def _postgresql(parsed: Parsed, subject: str) -> Url:
    from .url import POSTGRESQL

    if parsed.url is None or parsed.fatal:
        flaw = next((flaw for flaw in parsed.flaws if flaw.fatal), parsed.flaws[0])
        raise _refused(subject, f"its URL {flaw.what}", flaw.remedy)
    if parsed.url.family != POSTGRESQL:
        raise _refused(subject, f"its URL is of {parsed.url.family}", "The pool can be in PostgreSQL or SQLite")
    return parsed.url


def _refused(subject: str, what: str, remedy: str) -> ShipshapeError:
    return failure(subject, "database-url-invalid", what, remedy)
