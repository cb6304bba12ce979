# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads an env file as `docker compose` does, and knows where in the text each value stands. Pure.

The rules are those of Compose's own parser, quirks included: `export` and `KEY: value` are understood, a comment in an
unquoted value begins with a space, double quotes unescape and interpolate, single quotes do neither, and a name alone
takes its value from outside. Tested against `docker compose config` with texts made up by hypothesis.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..report.finding import ShipshapeError, failure

# Value of a variable, None for one that does not exist.
Lookup = Callable[[str], "str | None"]

# Space to Go's unicode.IsSpace; Python's str.isspace counts four separators more.
_BLANK = "\t\v\f\r \x85\xa0"
_SPACE = _BLANK + "\n\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
_EXPORT = re.compile(r"export[\t\n\f\r ]+")
_ESCAPE = re.compile(r"\\(?:[abcfnrtv$\"\\]|0[0-9]{0,3})")
_LETTERS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", '"': '"', "\\": "\\"}
_NAME = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*")
_OPERATORS = (":-", ":+", ":?", "-", "+", "?")


@dataclass(frozen=True)
class Entry:
    """One variable. `text[start:end]` is its value as written, quotes included. `value` is what interpolation starts
    from, with quotes and escapes undone; single-quoted text is taken as it is. None: inherited from outside."""

    name: str
    line: int
    start: int
    end: int
    quote: str
    value: str | None

    def evaluated(self, lookup: Lookup) -> str | None:
        if self.value is None:
            return lookup(self.name)
        return self.value if self.quote == "'" else substitute(self.value, lookup)


def read(name: str, text: str) -> list[Entry]:
    """The variables of the env file `name` in the order of their lines. Raises what Compose would refuse."""
    return list(_Reader(name, text).entries())


def evaluate(entries: Iterable[Entry], lookup: Lookup) -> dict[str, str]:
    """What the variables mean: the last of a name counts, `lookup` (what is outside of the file) beats what the file
    has said so far."""
    values: dict[str, str] = {}

    def known(name: str) -> str | None:
        outside = lookup(name)
        return values.get(name) if outside is None else outside

    for entry in entries:
        value = lookup(entry.name) if entry.value is None else entry.evaluated(known)
        if value is not None:
            values[entry.name] = value
    return values


class _Reader:
    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self._text = text
        self._at = 1 if text.startswith("\ufeff") else 0

    def entries(self) -> Iterable[Entry]:
        while self._statement():
            line = self._text.count("\n", 0, self._at) + 1
            name, inherited = self._key(line)
            if " " in name:
                raise self._wrong(line, "a variable's name has a space in it")
            yield Entry(name, line, self._at, self._at, "", None) if inherited else self._value(name, line)

    def _statement(self) -> bool:
        """Goes on to where the next statement begins; False at the end."""
        text = self._text
        while self._at < len(text):
            if text[self._at] in _SPACE:
                self._at += 1
            elif text[self._at] == "#":
                end = text.find("\n", self._at)
                self._at = len(text) if end < 0 else end
            else:
                return True
        return False

    def _key(self, line: int) -> tuple[str, bool]:
        text = self._text
        exported = _EXPORT.match(text, self._at)
        if exported:
            self._at += len("export")
            self._skip_blanks()
        begun = self._at
        for index in range(begun, len(text)):
            character = text[index]
            if character in "=:\n":
                self._at = index + 1
                if character != "\n":
                    self._skip_blanks()
                return text[begun:index].rstrip(_SPACE), character == "\n"
            if not (character in _BLANK or character in "_.-[]" or character.isalnum()):
                raise self._wrong(line, f"the character {character!r} cannot stand in a variable's name")
        self._at = len(text)
        return text[begun:].rstrip(_SPACE), True

    def _value(self, name: str, line: int) -> Entry:
        text, start = self._text, self._at
        quote = text[start : start + 1]
        if quote not in ('"', "'"):
            end = text.find("\n", start)
            end = len(text) if end < 0 else end
            self._at = min(end + 1, len(text))
            value = text[start:end].partition(" #")[0].rstrip(_SPACE)
            return Entry(name, line, start, start + len(value), "", value)
        value, after = self._quoted(start, line)
        self._at = after
        return Entry(name, line, start, after, quote, unescaped(value) if quote == '"' else value)

    def _quoted(self, start: int, line: int) -> tuple[str, int]:
        """The text between the quotes, with a backslash before the quote removed, and where it ends."""
        text, quote = self._text, self._text[start]
        found: list[str] = []
        index = start + 1
        while index < len(text):
            character = text[index]
            if character == "\\" and index + 1 < len(text):
                following = text[index + 1]
                found.append(following if following == quote else character + following)
                index += 2
                continue
            if character == quote:
                return "".join(found), index + 1
            found.append(character)
            index += 1
        raise self._wrong(line, "a quoted value does not end")

    def _skip_blanks(self) -> None:
        while self._at < len(self._text) and self._text[self._at] in _BLANK:
            self._at += 1

    def _wrong(self, line: int, what: str) -> ShipshapeError:
        return failure(f"{self._name}:{line}", "env-file-invalid", what, "Mend that line; Compose refuses it as well")


def unescaped(text: str) -> str:
    """Escape sequences of double quotes undone. An escaped dollar becomes two, which interpolation makes one."""
    return _ESCAPE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    letter = found[0][1:]
    if letter == "$":
        return "$$"
    if letter.startswith("0"):
        # Three octal digits are a character; of anything else Compose takes away the 0 and leaves the rest.
        octal = letter[1:]
        good = re.fullmatch("[0-3][0-7]{2}", octal)
        return chr(int(octal, 8)) if good else "\\" + octal
    return _LETTERS.get(letter, found[0])


def substitute(template: str, lookup: Lookup) -> str:
    """`template` with `$NAME`, `${NAME}`, `${NAME:-default}` and their like filled in as Compose does. Raises
    ValueError for what it would refuse."""
    found: list[str] = []
    at = 0
    while True:
        dollar = template.find("$", at)
        if dollar < 0:
            return "".join((*found, template[at:]))
        found.append(template[at:dollar])
        if template.startswith("$$", dollar):
            found.append("$")
            at = dollar + 2
            continue
        braced = template.startswith("${", dollar)
        name = _NAME.match(template, dollar + (2 if braced else 1))
        if name is None:
            if braced:
                raise ValueError("a ${ is followed by what is not a variable")
            found.append("$")
            at = dollar + 1
            continue
        if not braced:
            found.append(lookup(name[0]) or "")
            at = name.end()
            continue
        end = _closing(template, dollar)
        found.append(_expanded(name[0], template[name.end() : end], lookup))
        at = end + 1


def _closing(template: str, at: int) -> int:
    """Where the brace that opens after `at` closes."""
    depth = 0
    for index in range(at, len(template)):
        if template.startswith("${", index):
            depth += 1
        elif template[index] == "}":
            depth -= 1
            if depth == 0:
                return index
    raise ValueError("a ${ is not closed")


def _expanded(name: str, rest: str, lookup: Lookup) -> str:
    value = lookup(name)
    if not rest:
        return value or ""
    operator = next((entry for entry in _OPERATORS if rest.startswith(entry)), None)
    if operator is None:
        raise ValueError(f"${{{name}...}} has something in it that is no operator")
    word = rest[len(operator) :]
    there = bool(value) if operator.startswith(":") else value is not None
    kind = operator[-1]
    if kind == "+":
        return substitute(word, lookup) if there else ""
    if there:
        return value or ""
    if kind == "?":
        raise ValueError(f"{name} is required, and not set")
    return substitute(word, lookup)
