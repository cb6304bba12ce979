# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts a new password into the text of an env file; everything else in it stays as it is. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..files.envfile import quote
from ..files.envread import Entry, read
from .spelling import encoded, with_password
from .url import POSTGRESQL, parse

_PASSWORD = re.compile(r"PASS|PWD", re.IGNORECASE)
# Passwords of something else, which may well be the same one.
_ELSE = re.compile(r"REDIS|VALKEY|MYSQL|MARIADB|AMQP|RABBIT|SMTP|MAIL|ADMIN", re.IGNORECASE)


@dataclass(frozen=True)
class Account:
    """Whose password it is: `user`, under any of the `hosts` that URLs call the server, with `known` passwords that
    places have now. `refs` are variables that such URLs are made of."""

    user: str
    hosts: frozenset[str]
    known: frozenset[str]
    refs: frozenset[str] = frozenset()


def rewritten(path: str, text: str, account: Account, new: str) -> tuple[str, list[str]]:
    """The text with the new password, and the names of the variables that changed."""
    changed = []
    for entry in reversed(read(path, text)):
        word = _word(entry, text[entry.start : entry.end], account, new)
        if word is not None and word != text[entry.start : entry.end]:
            text = text[: entry.start] + word + text[entry.end :]
            changed.append(entry.name)
    return text, sorted(set(changed))


def _word(entry: Entry, written: str, account: Account, new: str) -> str | None:
    """What is to stand in the place of a value; None to leave it."""
    value, made_of = _meant(entry)
    if value is None:
        return None
    parsed = parse(value)
    url = parsed.url
    if url is not None and url.family == POSTGRESQL:
        if url.user != account.user or url.host not in account.hosts or url.password is None:
            return None
        start, end = parsed.password_span
        old = value[start:end]
        if any(f"${{{name}" in old or f"${name}" in old for name in made_of):
            return None  # made of another variable, which gets the new password itself
        if written.count(f":{old}@") == 1:
            # The new spelling is the same under every kind of quotes.
            return written.replace(f":{old}@", f":{encoded(new)}@")
        return None if made_of else quote(with_password(parsed, new))
    ours = entry.name in account.refs or (_PASSWORD.search(entry.name) and not _ELSE.search(entry.name))
    return quote(new) if ours and not made_of and value in account.known else None


def _meant(entry: Entry) -> tuple[str | None, list[str]]:
    """The value, and the variables that it is made of; with such it is returned as it is written."""
    names: list[str] = []

    def note(name: str) -> None:
        names.append(name)

    if entry.value is None:
        return None, []
    try:
        value = entry.evaluated(note)
    except ValueError:
        return None, []
    return (entry.value if names else value), names
