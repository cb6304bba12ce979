# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Collects what every place says of every credential, logs in, and reports."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from ..engine.compose import Compose
from ..engine.connection import Connection
from ..engine.model import Service
from ..engine.observed import Observed
from ..report.finding import CRITICAL, WARNING, Finding, ShipshapeError, failure
from ..report.result import Report
from . import journal
from .address import Address
from .login import UNREACHABLE, UNTRIED, Login, log_in
from .places import Origin
from .sight import Looker, Seen
from .spelling import masked, secrets_in
from .url import looks_like_one, parse
from .verdict import Facts, Reading, judge, verdict

_AT_ONCE = 8


@dataclass(frozen=True)
class Credential:
    """One variable of one service with all its readings, before anybody has logged in."""

    facts: Facts
    origin: Origin | None

    @property
    def values(self) -> list[str]:
        """Distinct values, what the next container gets first."""
        readings = [self.facts.compose, *([self.facts.file] if self.facts.file else []), *self.facts.containers]
        return list(dict.fromkeys(reading.value for reading in readings if reading.value))


class Verifier(Looker):
    """Looks, and changes nothing."""

    def __init__(self, connection: Connection, compose: Compose, report: Report) -> None:
        super().__init__(connection, compose, report)
        self._key = secrets.token_bytes(16)  # so that fingerprints compare within this run, and with nothing else

    def verified(self, variables: Sequence[str]) -> None:
        """State verified: raises when a credential will not work."""
        seen = self.look()
        left = journal.find(seen.texts.contents)
        if left is not None:
            what = f"a rotation of the password of {left.user} was begun and not finished"
            remedy = "Run it again (state: rotated); old and new password are in that file until then"
            self.report.add(Finding(WARNING, self.shown(left.path), "rotation-unfinished", what, remedy))
            self.hide([left.new, *left.old])
        self.tell(self.log_in(self.find(seen, variables), seen))

    # -- credentials ------------------------------------------------------------------------------------------------

    def find(self, seen: Seen, variables: Sequence[str]) -> list[Credential]:
        """The credentials of every service; those of `variables` when given, else what looks like a database's URL."""
        found = []
        for name, service in sorted(seen.project.services.items()):
            values = seen.resolved(name)
            try:
                known = seen.origins(name)
            except ShipshapeError:
                known = {}  # Compose reads the file, we do not: only its place is not known
            wanted = set(variables) or {key for key, value in values.items() if looks_like_one(key, value)}
            for variable in sorted(wanted & set(values)):
                origin = known.get(variable)
                if origin is not None and origin.value != values[variable]:
                    origin = None
                found.append(self._credential(seen, service, variable, values[variable], origin))
        unknown = sorted(set(variables) - {entry.facts.variable for entry in found})
        if unknown:
            what = f"no service has the variable {', '.join(unknown)}"
            raise failure(seen.project.name, "variable-missing", what, "Check `variables`, `services` and `profiles`")
        self.hide_read(secret for entry in found for value in entry.values for secret in secrets_in(parse(value)))
        return found

    def _credential(self, seen: Seen, service: Service, variable: str, value: str, origin: Origin | None) -> Credential:
        running = tuple(
            Reading(f"container {at.name}", environment(at).get(variable, "")) for at in seen.running(service.name)
        )
        file = None
        if origin is not None and origin.in_file is not None and origin.place != origin.file:
            file = Reading(self.shown(origin.file), origin.in_file)
        where = self.shown(origin.place) if origin is not None else f"Compose ({seen.texts.spoken})"
        return Credential(Facts(service.name, variable, Reading(where, value), file, running), origin)

    def shown(self, path: str) -> str:
        """A path relative to the project, where it lies in it."""
        base = os.path.abspath(self.compose.source.directory or "/")
        inside = path.startswith("/") and os.path.commonpath([base, path]) == base and base != "/"
        return os.path.relpath(path, base) if inside else path

    # -- logins -----------------------------------------------------------------------------------------------------

    def log_in(self, found: Sequence[Credential], seen: Seen) -> list[Credential]:
        """The same, with logins: each distinct one is done once, all side by side."""
        jobs: dict[tuple[Any, ...], tuple[Any, str]] = {}
        keys: list[tuple[int, str, tuple[Any, ...]]] = []
        logins: list[dict[str, Login]] = [{} for _entry in found]
        servers = []
        for index, entry in enumerate(found):
            servers.append(Address())
            for value in entry.values:
                reached = self.address(value, seen, entry.facts.service)
                if reached is None:
                    continue
                url, at = reached
                servers[index] = at if value == entry.facts.compose.value else servers[index]
                if isinstance(at.ip, str) and at.ip:
                    key = (url.family, url.tls, at.ip, url.port, url.user, url.password, url.database, url.params)
                    jobs[key] = (url, at.ip)
                    keys.append((index, value, key))
                else:
                    logins[index][value] = _not_there(at)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            results = dict(zip(jobs, pool.map(lambda job: log_in(*job), jobs.values())))
        for index, value, key in keys:
            logins[index][value] = results[key]
        return [
            replace(entry, facts=replace(entry.facts, logins=logins[index], server=servers[index]))
            for index, entry in enumerate(found)
        ]

    # -- telling ----------------------------------------------------------------------------------------------------

    def tell(self, found: Sequence[Credential]) -> None:
        """Puts everything into the report; raises when something will not work."""
        critical = []
        told = []
        for entry in found:
            judgements = judge(entry.facts)
            for at in judgements:
                finding = Finding(at.severity, entry.facts.subject, at.code, at.message, at.remedy)
                (critical.append(finding) if at.severity == CRITICAL else self.report.add(finding))
            told.append(self._told(entry, verdict(judgements), [at.code for at in judgements]))
        self.report.values["credentials"] = told
        if critical:
            raise ShipshapeError(*critical)

    def _told(self, entry: Credential, word: str, codes: Sequence[str]) -> dict[str, Any]:
        facts = entry.facts
        login = facts.logins.get(facts.compose.value)
        sources: dict[str, Any] = {"compose": self._reading(facts.compose)}
        if entry.origin is not None and entry.origin.in_file is not None:
            sources["file"] = self._reading(Reading(self.shown(entry.origin.file), entry.origin.in_file))
        sources["containers"] = [self._reading(reading) for reading in facts.containers]
        if login is not None:
            sources["login"] = {
                "address": facts.server.ip,
                "server": facts.server.container,
                "outcome": login.outcome,
                "code": login.code,
                "words": login.words,
            }
        return {
            "service": facts.service,
            "variable": facts.variable,
            "verdict": word,
            "verdicts": list(dict.fromkeys(codes)),
            "sources": sources,
        }

    def _reading(self, reading: Reading) -> dict[str, str]:
        parsed = parse(reading.value)
        shown = masked(parsed) if reading.value else ""
        return {"where": reading.where, "value": shown, "fingerprint": self._fingerprint(reading.value)}

    def _fingerprint(self, value: str) -> str:
        """Of the password where there is one, so that equal passwords in different URLs can be told."""
        url = parse(value).url
        text = url.password if url is not None and url.password is not None else value
        return hmac.new(self._key, text.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()[:8]


def _not_there(at: Address) -> Login:
    if at.coming or at.remedy:
        return Login(UNREACHABLE, "", at.why)
    return Login(UNTRIED, "login-not-tried", at.why)


def environment(container: Observed) -> dict[str, str]:
    pairs = (entry.partition("=") for entry in container.raw["Config"].get("Env") or ())
    return {name: value for name, _dummy, value in pairs}
