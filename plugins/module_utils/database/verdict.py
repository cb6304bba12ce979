# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with one credential, who is the odd one out, and what to do. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ..report.finding import CRITICAL, INFO, WARNING
from .address import Address
from .login import MISSING, OK, REFUSED, UNREACHABLE, UNTRIED, Login
from .spelling import is_placeholder
from .url import Parsed, looks_like_one, parse

FINE = "ok"
# The first that applies is the verdict: the one to mend first.
ORDER = (
    "placeholder",
    "malformed",
    "login-refused",
    "database-missing",
    "unreachable",
    "file-differs",
    "container-stale",
    FINE,
)


@dataclass(frozen=True)
class Reading:
    """What one place says: `where` in words."""

    where: str
    value: str


@dataclass(frozen=True)
class Facts:
    """All that is known of one variable of one service. `compose` is what the next container gets; `file` what the env
    file says; `containers` what the running ones have. `logins` are by value, `server` is where they went."""

    service: str
    variable: str
    compose: Reading
    file: Reading | None = None
    containers: tuple[Reading, ...] = ()
    logins: Mapping[str, Login] = field(default_factory=dict)
    server: Address = field(default_factory=Address)

    @property
    def subject(self) -> str:
        return f"{self.service} {self.variable}"


@dataclass(frozen=True)
class Judgement:
    """One thing that is wrong; `code` is the verdict, and the finding's code."""

    code: str
    severity: str
    message: str
    remedy: str


def judge(facts: Facts) -> list[Judgement]:
    """Everything that is wrong, the worst first; nothing when all is well."""
    return sorted(_judgements(facts), key=lambda entry: ORDER.index(entry.code) if entry.code in ORDER else len(ORDER))


def verdict(judgements: list[Judgement]) -> str:
    return next((entry.code for entry in judgements if entry.code in ORDER), FINE)


def _judgements(facts: Facts) -> Iterator[Judgement]:
    value = facts.compose.value
    a_url = looks_like_one(facts.variable, value)
    parsed = parse(value) if a_url else None
    password = parsed.url.password if parsed and parsed.url else value
    yield from _differences(facts)
    if is_placeholder(value) or (password is not None and is_placeholder(password)):
        what = f"{facts.compose.where} still has a placeholder where the password belongs"
        yield Judgement("placeholder", CRITICAL, what, f"Put the real one into {facts.compose.where}")
        return
    if not a_url or parsed is None:
        if "://" in value:
            yield Judgement("login-not-tried", INFO, "nobody has logged in: its scheme is compared only", "")
        return
    yield from _flaws(facts, parsed)
    login = facts.logins.get(value)
    if login is not None:
        yield from _login(facts, login)


def _flaws(facts: Facts, parsed: Parsed) -> Iterator[Judgement]:
    login = facts.logins.get(parsed.text)
    for flaw in parsed.flaws:
        where = f"at character {flaw.position} " if flaw.position else ""
        what = f"the value in {facts.compose.where} {where}{flaw.what}"
        works = not flaw.fatal and login is not None and login.outcome == OK
        if works:
            what += "; libpq can read it, other libraries read another password, host or database"
        yield Judgement("malformed", WARNING if works else CRITICAL, what, flaw.remedy)


def _differences(facts: Facts) -> Iterator[Judgement]:
    compose, file = facts.compose, facts.file
    if file is not None and file.value != compose.value:
        what = f"{compose.where} wins over {file.where}, and they differ in {difference(compose.value, file.value)}"
        if _outcome(facts, compose.value) == OK and _outcome(facts, file.value) == REFUSED:
            what += f"; the database knows the first: {file.where} is the odd one out"
        elif _outcome(facts, file.value) == OK and _outcome(facts, compose.value) == REFUSED:
            what += f"; the database knows the second: {compose.where} is the odd one out"
        remedy = f"Remove {facts.variable} from {compose.where} so that {file.where} counts, or make them equal"
        yield Judgement("file-differs", WARNING, what, remedy)
    for container in facts.containers:
        if container.value == compose.value:
            continue
        what = (
            f"{container.where} runs with what was true when it was created: it differs from {compose.where} in "
            f"{difference(compose.value, container.value)}"
        )
        remedy = "Recreate it (module stack, or docker compose up -d); a restart keeps the old value"
        if _outcome(facts, container.value) == OK and _outcome(facts, compose.value) == REFUSED:
            remedy = f"Mend {compose.where} first: recreated now it would get what the database refuses"
        yield Judgement("container-stale", WARNING, what, remedy)


def _login(facts: Facts, login: Login) -> Iterator[Judgement]:
    said = f" ({login.code}: {login.words})" if login.code else f" ({login.words})" if login.words else ""
    server = server_name(facts)
    if login.outcome == REFUSED:
        what, remedy = _refusal(facts)
        yield Judgement("login-refused", CRITICAL, f"{server} refuses the login{said}; {what}", remedy)
    elif login.outcome == MISSING:
        what = f"{server} lets it in, but has no such database{said}"
        yield Judgement("database-missing", CRITICAL, what, "Create the database, or correct its name in the URL")
    elif login.outcome == UNREACHABLE:
        coming = facts.server.coming or bool(facts.server.container)
        remedy = facts.server.remedy or f"See that {server} runs and listens on that port"
        what = f"{server} cannot be reached{said or ': ' + facts.server.why}"
        severity = INFO if facts.server.coming else WARNING if coming else CRITICAL
        yield Judgement("unreachable", severity, what, remedy)
    elif login.outcome == UNTRIED:
        severity = WARNING if login.code == "login-library-missing" else INFO
        remedy = "Role shipshape.deploy.engine installs what logs in" if severity == WARNING else ""
        yield Judgement(login.code, severity, f"nobody has logged in: {login.words}", remedy)
    elif not login.asked and parse(facts.compose.value).url is not None:
        what = f"{server} let it in without asking for the password, so whether it is right is not known"
        remedy = "Ask for passwords on TCP (pg_hba.conf: scram-sha-256 instead of trust)"
        yield Judgement("password-not-asked", WARNING, what, remedy)


def _refusal(facts: Facts) -> tuple[str, str]:
    """Who is the odd one out when the database refuses what the next container would get."""
    places = [facts.file, *facts.containers]
    others = [place for place in places if place is not None and place.value != facts.compose.value]
    knows = [place.where for place in others if _outcome(facts, place.value) == OK]
    if knows:
        what = f"it knows what {' and '.join(knows)} says: {facts.compose.where} is the odd one out"
        remedy = f"Put that back into {facts.compose.where}, or give the database the new one (state: rotated)"
        return what, remedy
    if others:
        what = f"it refuses what {' and '.join(place.where for place in others)} says as well"
    else:
        what = "all other places agree: the database is the odd one out"
    return what, reset_hint(facts)


def reset_hint(facts: Facts) -> str:
    """How to set a password when nobody knows one that works."""
    url = parse(facts.compose.value).url
    if url is not None and url.family == "postgresql" and facts.server.service:
        # Over the container's own socket the official image asks nobody.
        command = f"docker compose exec {facts.server.service} psql -U {url.user or 'postgres'} -c '\\password'"
        return f"Set the database's password to that of {facts.compose.where}, as in: {command}"
    return f"Set the database's password to that of {facts.compose.where}, as its administrator"


def server_name(facts: Facts) -> str:
    url = parse(facts.compose.value).url
    host = f"{url.host}:{url.port}" if url else "the server"
    return f"{facts.server.container} ({host})" if facts.server.container else host


def _outcome(facts: Facts, value: str) -> str:
    login = facts.logins.get(value)
    return login.outcome if login is not None else ""


def difference(one: str, other: str) -> str:
    """In which parts two values differ, never what they are."""
    if not other or not one:
        return "everything: one of them is empty or not set"
    first, second = parse(one).url, parse(other).url
    if first is None or second is None:
        return "their value"
    parts = ("family", "user", "password", "host", "port", "database", "params")
    found = [part for part in parts if getattr(first, part) != getattr(second, part)]
    words = {"family": "scheme", "database": "database name", "params": "parameters"}
    return ", ".join(words.get(part, part) for part in found) or "spelling only (they mean the same)"
