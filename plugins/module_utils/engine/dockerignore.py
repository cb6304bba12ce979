# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Patterns with the meaning that they have in a `.dockerignore`, and wildcards as COPY knows them. Pure.

Not those of a `.gitignore`: a pattern without a slash means the top directory only, and what is excluded with a
directory can be brought back by name.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class _Rule:
    expression: re.Pattern[str]
    brings_back: bool


class DockerIgnore:
    """Decides for one path after another, relative to the build context and with slashes. The last rule that matches
    wins, whether it matches the path itself or a directory above it."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._rules = [rule for rule in map(_rule, patterns) if rule is not None]
        # Below a directory that is left out nothing needs to be looked at, unless something may be brought back.
        self.prunes = not any(rule.brings_back for rule in self._rules)

    @classmethod
    def from_text(cls, text: str) -> DockerIgnore:
        return cls(text.removeprefix("\ufeff").splitlines())

    def ignores(self, path: str) -> bool:
        parts = path.split("/")
        above = ["/".join(parts[: count + 1]) for count in range(len(parts))]
        ignored = False
        for rule in self._rules:
            if rule.brings_back == ignored and any(rule.expression.fullmatch(name) for name in above):
                ignored = not rule.brings_back
        return ignored


def _rule(line: str) -> _Rule | None:
    if line.startswith("#"):
        return None
    pattern = line.strip()
    brings_back = pattern.startswith("!")
    pattern = pattern[1:].strip() if brings_back else pattern
    if not pattern:
        return None
    pattern = posixpath.normpath(pattern).lstrip("/")
    try:
        return _Rule(re.compile(_expression(pattern), re.DOTALL), brings_back)
    except re.error:
        return None  # Docker refuses to build with it, and says so


def _expression(pattern: str) -> str:
    found, at = "", 0
    while at < len(pattern):
        sign = pattern[at]
        at += 1
        if sign == "*" and pattern[at : at + 1] == "*":
            at += 1
            at += pattern[at : at + 1] == "/"
            found += ".*" if at == len(pattern) else "(.*/)?"
        elif sign == "*":
            found += "[^/]*"
        elif sign == "?":
            found += "[^/]"
        elif sign == "\\" and at < len(pattern):
            found += re.escape(pattern[at])
            at += 1
        elif sign == "[" and "]" in pattern[at:]:
            end = pattern.index("]", at)
            found += f"[{pattern[at:end]}]"
            at = end + 1
        else:
            found += re.escape(sign)
    return found


def has_wildcard(text: str) -> bool:
    return any(sign in text for sign in "*?[")


def wildcard(part: str) -> re.Pattern[str]:
    """One component of a COPY source with wildcards: none of them matches a slash."""
    try:
        return re.compile(_expression(part.replace("**", "*")), re.DOTALL)
    except re.error:
        return re.compile(re.escape(part))
