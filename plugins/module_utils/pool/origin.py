# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a workspace's template comes from: option `workspace`. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from ..report.finding import ShipshapeError, failure

_HTTP = re.compile(
    r"(?P<head>https?://)(?:(?P<user>[^/?#:]*)(?::(?P<password>[^/?#]*))?@)(?P<host>[^/?#@]*)(?P<rest>.*)",
    re.IGNORECASE,
)
# The other half of a login whose secret is the user: GitHub's word, and none at all.
_NO_PASSWORDS = ("", "x-oauth-basic")


# argv, and what is added to the environment
Run = Callable[[Sequence[str], Mapping[str, str]], "tuple[int, str, str]"]


@dataclass(frozen=True)
class Source:
    """Where the template comes from. `branch` or `tag` make it a git repository; an empty `place` means none. A login
    that the URL of `place` had, user and password, is apart from it; `host` is what it is for, with its scheme."""

    place: str = ""
    branch: str = ""
    tag: str = ""
    login: tuple[str, str] | None = field(default=None, repr=False)
    host: str = ""

    @property
    def git(self) -> bool:
        return bool(self.branch or self.tag)

    @property
    def ref(self) -> str:
        return f"refs/tags/{self.tag}" if self.tag else f"refs/heads/{self.branch}"


def source(workspace: Mapping[str, Any]) -> Source:
    """The template that option `workspace` names. Raises when it is not clear what is meant."""
    place, login, host = _without_login(workspace.get("template") or "")
    branch, tag = workspace.get("branch") or "", workspace.get("tag") or ""
    if branch and tag:
        raise _bad("both branch and tag are given, and only one of them can be meant", "Leave out one")
    if (branch or tag) and not place:
        raise _bad("a branch or tag is given, but no repository", "Give the repository's URL as workspace.template")
    if _is_url(place) and not (branch or tag):
        raise _bad(f"{place} is a repository, and nothing says which state of it", "Give exactly one of branch and tag")
    if place.startswith("-") or branch.startswith("-") or tag.startswith("-"):
        raise _bad("a name must not begin with a dash", "Check workspace.template, branch and tag")
    if login is not None and any(ord(character) < 32 for word in login for character in word):
        raise _bad("the login in its URL has a line break or control character in it", "Check workspace.template")
    return Source(place, branch, tag, login, host)


def _without_login(url: str) -> tuple[str, tuple[str, str] | None, str]:
    found = _HTTP.fullmatch(url)
    if found is None:
        return url, None, ""
    host = f"{found['head']}{found['host']}"
    return f"{host}{found['rest']}", (unquote(found["user"]), unquote(found["password"] or "")), host


def secrets_in(url: str) -> set[str]:
    """What in the URL of an HTTP server must not be shown: the password, or the user where there is none."""
    found = _HTTP.fullmatch(url)
    if found is None:
        return set()
    password = found["password"] or ""
    secret = found["user"] if password in _NO_PASSWORDS else password
    return {secret, unquote(secret)} - {""}


def _is_url(place: str) -> bool:
    head = place.partition("/")[0]
    return "://" in place or (":" in head and not place.startswith("/")) or place.endswith(".git")


def _bad(what: str, remedy: str) -> ShipshapeError:
    return failure("workspace", "template-invalid", what, remedy)
