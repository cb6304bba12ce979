# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ignore patterns with the meaning that they have in a `.gitignore`, tested against `git check-ignore`.

Works on bytes, as git does. One list of patterns for the whole tree; files of patterns in sub-directories are not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_PLAIN = re.compile(rb"[^*?\[\\]*")
_CLASSES = {
    b"alnum": rb"a-zA-Z0-9",
    b"alpha": rb"a-zA-Z",
    b"blank": rb" \t",
    b"cntrl": rb"\x00-\x1f\x7f",
    b"digit": rb"0-9",
    b"graph": rb"\x21-\x7e",
    b"lower": rb"a-z",
    b"print": rb"\x20-\x7e",
    b"punct": rb"!-/:-@\[-`{-~",
    b"space": rb" \t\n\r\f\v",
    b"upper": rb"A-Z",
    b"xdigit": rb"a-fA-F0-9",
}


class _MatchesNothingError(Exception):
    """The pattern is broken in a way that makes git match nothing with it."""


@dataclass(frozen=True)
class Rule:
    """One pattern, compiled."""

    expression: re.Pattern[bytes]
    negated: bool
    directories_only: bool


class Ignore:
    """Decides for one path after another. The last rule that matches wins."""

    def __init__(self, patterns: Iterable[bytes]) -> None:
        self._rules = [rule for rule in map(parse, patterns) if rule is not None][::-1]

    def ignores(self, path: bytes, is_directory: bool) -> bool:
        """Whether `path`, relative and with slashes, is left out. Do not ask below a directory that is left out:
        nothing in it can be brought back, as with git."""
        for rule in self._rules:
            if (is_directory or not rule.directories_only) and rule.expression.fullmatch(path):
                return not rule.negated
        return False


def parse(line: bytes) -> Rule | None:
    """The rule of one line; None for a blank line, a comment, or a pattern that can match nothing."""
    pattern = _without_trailing_spaces(line.rstrip(b"\n"))
    if not pattern or pattern.startswith(b"#"):
        return None
    negated = pattern.startswith(b"!")
    if negated:
        pattern = pattern[1:]
    directories_only = pattern.endswith(b"/")
    if directories_only:
        pattern = pattern[:-1]
    anchored = b"/" in pattern
    if pattern.startswith(b"/"):
        pattern = pattern[1:]
    if not pattern:
        return None
    try:
        expression = _translate(pattern) if anchored else rb"(?:.*/)?" + _translate(pattern)
        return Rule(re.compile(expression, re.DOTALL), negated, directories_only)
    except (_MatchesNothingError, re.error):
        return None


def _without_trailing_spaces(pattern: bytes) -> bytes:
    """Trailing spaces do not count, unless a backslash stands before them."""
    end = len(pattern)
    while end and pattern[end - 1 : end] == b" ":
        backslashes = len(pattern[: end - 1]) - len(pattern[: end - 1].rstrip(b"\\"))
        if backslashes % 2:
            break
        end -= 1
    return pattern[:end]


def _translate(pattern: bytes) -> bytes:
    out = b""
    at = 0
    # git compares what stands before the first special character apart, so that the rest begins anew there.
    plain = len(_PLAIN.match(pattern)[0])  # type: ignore[index]
    while at < len(pattern):
        character = pattern[at : at + 1]
        if character == b"*":
            part, at = _stars(pattern, at, alone=at in (0, plain) or pattern[at - 1 : at] == b"/")
        elif character == b"?":
            part, at = b"[^/]", at + 1
        elif character == b"[":
            part, at = _bracket(pattern, at + 1)
        elif character == b"\\":
            if at + 1 == len(pattern):
                raise _MatchesNothingError
            part, at = re.escape(pattern[at + 1 : at + 2]), at + 2
        else:
            part, at = re.escape(character), at + 1
        out += part
    return out


def _stars(pattern: bytes, at: int, *, alone: bool) -> tuple[bytes, int]:
    """One star stays within a name; two, alone between slashes, cross directories."""
    end = at
    while pattern[end : end + 1] == b"*":
        end += 1
    if end - at >= 2 and alone:
        if end == len(pattern):
            return b".*", end
        if pattern[end : end + 1] == b"/":
            return b"(?:.*/)?", end + 1
    return b"[^/]*", end


def _bracket(pattern: bytes, at: int) -> tuple[bytes, int]:
    """A set of characters, from behind its `[`. A slash is in none."""
    negated = pattern[at : at + 1] in (b"!", b"^")
    if negated:
        at += 1
    members: list[bytes] = []
    first = True
    while first or pattern[at : at + 1] != b"]":
        first = False
        if pattern[at : at + 2] == b"[:" and (end := pattern.find(b":]", at + 2)) >= 0:
            name = pattern[at + 2 : end]
            if name not in _CLASSES:
                raise _MatchesNothingError
            members.append(_CLASSES[name])
            at = end + 2
            continue
        low, at = _member(pattern, at)
        if pattern[at : at + 1] == b"-" and pattern[at + 1 : at + 2] not in (b"]", b""):
            high, at = _member(pattern, at + 1)
            members.append(_hexed(low) + b"-" + _hexed(max(low, high)))  # git takes the low end also of [z-a]
        else:
            members.append(_hexed(low))
    inside = b"".join(members)
    if negated:
        return b"[^/" + inside + b"]", at + 1
    return (b"(?!/)[" + inside + b"]" if inside else b"(?!)"), at + 1


def _member(pattern: bytes, at: int) -> tuple[int, int]:
    if pattern[at : at + 1] == b"\\":
        at += 1
    if at >= len(pattern):
        raise _MatchesNothingError
    return pattern[at], at + 1


def _hexed(byte: int) -> bytes:
    return b"\\x%02x" % byte
