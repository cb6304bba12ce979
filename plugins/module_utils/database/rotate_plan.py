# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rotation is about, and what it would change: decided on what was seen, without touching anything. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..report.finding import ShipshapeError, failure
from .journal import Journal
from .login import Login
from .places import SHELL, Texts
from .rewrite import Account, rewritten
from .sight import Seen
from .spelling import is_placeholder, with_password
from .url import Url, parse
from .verify import Credential, environment


@dataclass(frozen=True)
class Wish:
    """The module's options."""

    variables: tuple[str, ...] = ()
    password: str | None = None
    stability: float = 10.0
    wait_timeout: float = 300.0
    check: bool = False


@dataclass(frozen=True)
class Target:
    """The role, where its server is, and the variables that log in as it."""

    url: Url
    ip: str
    spoken: str
    members: tuple[Credential, ...]
    account: Account

    def with_password(self, password: str) -> Url:
        return replace(self.url, password=password)


@dataclass(frozen=True)
class Work:
    """What is to be done, and how it was before. `texts` and `names` are by env file."""

    target: Target
    seen: Seen
    working: str
    new: str
    texts: Mapping[str, str]
    names: Mapping[str, list[str]]
    users: tuple[str, ...]
    journal: Journal
    resumed: bool


def account(group: list[tuple[Credential, Url, str]]) -> Account:
    user = group[0][1].user
    urls = [parse(value).url for entry, _url, _container in group for value in entry.values]
    known = {url.password for url in urls if url is not None and url.user == user and url.password}
    refs = {name for entry, _url, _container in group if entry.origin for name in entry.origin.refs}
    return Account(user, frozenset(url.host for _entry, url, _container in group), frozenset(known), frozenset(refs))


def texts(texts: Texts, account: Account, new: str) -> tuple[dict[str, str], dict[str, list[str]]]:
    found, names = {}, {}
    for path, text in sorted(texts.contents.items()):
        after, changed = rewritten(path, text, account, new)
        if changed:
            found[path], names[path] = after, changed
    return found, names


def changes(seen: Seen, after: Texts, service: str) -> dict[str, str]:
    """The variables of `service` that rewriting changes, as far as Compose agrees with how we read it now."""
    given = seen.resolved(service)
    later = replace(seen, texts=after).origins(service)
    return {
        name: later[name].value or ""
        for name, origin in seen.origins(service).items()
        if origin.value == given.get(name) and name in later and later[name].value != origin.value
    }


def users(seen: Seen, after: Texts, target: Target, new: str) -> tuple[str, ...]:
    """The services with a container that has, or would have, another password than the next one gets."""
    stale = {
        entry.facts.service
        for entry in target.members
        if any(password_in(reading.value) != new for reading in entry.facts.containers)
    }
    found = []
    for name in seen.project.services:
        held = [at for at in seen.containers if at.service == name]
        changed = {**seen.resolved(name), **changes(seen, after, name)}
        differs = any(_password_differs(environment(at), changed, target) for at in held)
        if held and (name in stale or changes(seen, after, name) or differs):
            found.append(name)
    return tuple(sorted(found))


def _password_differs(held: Mapping[str, str], wanted: Mapping[str, str], target: Target) -> bool:
    names = {entry.facts.variable for entry in target.members} | target.account.refs
    return any(name in held and name in wanted and held[name] != wanted[name] for name in names)


def reaches(target: Target, after: Texts, new: str, seen: Seen) -> None:
    """Raises when a variable would not have the new password once the env files are rewritten."""
    for entry in target.members:
        if password_in(entry.facts.compose.value) == new:
            continue
        origin = replace(seen, texts=after).origins(entry.facts.service).get(entry.facts.variable)
        if origin is None or entry.origin is None or password_in(origin.value or "") != new:
            where = entry.facts.compose.where
            if entry.origin is not None and SHELL in entry.origin.refs.values():
                where = SHELL
            what = f"its password stands in {where}, where this module changes nothing"
            raise failure(entry.facts.subject, "password-elsewhere", what, "Move it to an env file")


def journal_place(texts: Mapping[str, str], target: Target, seen: Seen) -> str:
    files = [entry.origin.file for entry in target.members if entry.origin is not None and entry.origin.file]
    places = [*sorted(texts), *files, *sorted(seen.texts.contents)]
    if not places:
        what = "there is no env file that the new password could stand in"
        raise failure(
            seen.project.name, "password-elsewhere", what, "Move the URL from the Compose file to an env file"
        )
    return places[0]


def acceptable(new: str, target: Target) -> None:
    """Raises for a password that would not come back the same from a URL and an env file."""
    member = parse(target.members[0].facts.compose.value)
    back = parse(with_password(member, new)).url
    bad = not new or any(ord(character) < 32 for character in new) or is_placeholder(new)
    if bad or back is None or back.password != new:
        what = "the new password is empty, a placeholder, or has control characters in it"
        raise failure(target.spoken, "password-not-acceptable", what, "Choose another one")


def not_one(project: str, count: int, users: list[str], unreachable: Mapping[str, str]) -> ShipshapeError:
    if count:
        what = f"several roles could be meant ({', '.join(users)})"
        return failure(project, "rotation-ambiguous", what, "Name one of their variables in `variables`")
    if unreachable:
        what = "; ".join(f"{name}: {why}" for name, why in sorted(unreachable.items()))
        return failure(project, "unreachable", what, "Start the database, then run this again")
    what = "no variable holds a PostgreSQL URL that can be read and logged in with"
    return failure(project, "rotation-unsupported", what, "Run state: verified to see what is wrong with them")


def refused(target: Target, login: Login, what: str) -> ShipshapeError:
    said = f"{what} ({login.code}: {login.words})" if login.code or login.words else what
    return failure(target.spoken, "rotation-refused", said, "Mend the cause and run this again; nothing is lost")


def password_in(value: str) -> str | None:
    url = parse(value).url
    return url.password if url is not None else None
