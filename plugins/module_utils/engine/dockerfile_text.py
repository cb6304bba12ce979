# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The text of a Dockerfile as instructions: continued lines, comments, here-documents, quotes and variables. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

_DIRECTIVE = re.compile(r"^#\s*(?P<name>[a-zA-Z]+)\s*=\s*(?P<value>.+?)\s*$")
_HERE = re.compile(r"^\d*<<(?P<strip>-?)(?P<quote>['\"]?)(?P<name>[^\s<'\"]+)(?P=quote)$")
_WORD = re.compile(r"(?:[^\s\"'\\]|\\.|\"(?:\\.|[^\"\\])*\"|'[^']*'|\\$)+", re.DOTALL)
_VARIABLE = re.compile(
    r"\$(?:(?P<plain>[A-Za-z_]\w*)|\{(?P<name>[A-Za-z_]\w*)(?:(?P<how>:?[-+?])(?P<other>[^{}]*))?\})"
)
# Only instructions that take files or commands may be followed by here-documents.
_WITH_TEXTS = frozenset(["COPY", "ADD", "RUN", "ONBUILD"])


@dataclass(frozen=True)
class HereText:
    """A here-document: `word` as it stands on the line, the file `name` that COPY makes of it, and its `body`."""

    word: str
    name: str
    body: str
    expands: bool


@dataclass(frozen=True)
class Instruction:
    """One instruction: its name in capitals, and the rest of its line, continued lines joined."""

    line: int
    name: str
    rest: str
    texts: tuple[HereText, ...] = ()


def instructions(text: str) -> tuple[list[Instruction], str]:
    """The instructions of a Dockerfile in order, and its escape character."""
    lines = text.removeprefix("\ufeff").splitlines()
    escape = _escape(lines)
    continued = re.compile(re.escape(escape) + r"[ \t]*$")
    found: list[Instruction] = []
    at = 0
    while at < len(lines):
        first = at
        parts: list[str] = []
        while at < len(lines):
            line = lines[at]
            at += 1
            if line.lstrip().startswith("#") or (parts and not line.strip()):
                continue  # a comment, or an empty line, does not end what is continued
            parts.append(continued.sub("", line))
            if not continued.search(line):
                break
        joined = "".join(parts).strip()
        if not joined:
            continue
        name, _dummy, rest = joined.partition(" ") if " " in joined else joined.partition("\t")
        texts: list[HereText] = []
        if name.upper() in _WITH_TEXTS:
            for mark in _here_words(rest):
                body, at = _body(lines, at, mark)
                texts.append(HereText(mark[0], mark["name"], body, not mark["quote"]))
        found.append(Instruction(_first_line(lines, first), name.upper(), rest.strip(), tuple(texts)))
    return found, escape


def _first_line(lines: list[str], at: int) -> int:
    """The number, from 1, of the line that an instruction begins on: comments before it are skipped."""
    while at < len(lines) and (not lines[at].strip() or lines[at].lstrip().startswith("#")):
        at += 1
    return at + 1


def _escape(lines: list[str]) -> str:
    """What continues a line: `# escape=` before everything else may say so."""
    for line in lines:
        found = _DIRECTIVE.match(line)
        if not found:
            break
        if found["name"].lower() == "escape":
            return found["value"]
    return "\\"


def _here_words(rest: str) -> list[re.Match[str]]:
    return [found for found in map(_HERE.match, rest.split()) if found]


def _body(lines: list[str], at: int, mark: re.Match[str]) -> tuple[str, int]:
    """The text up to the line that ends it, and the number of the line after that."""
    body: list[str] = []
    while at < len(lines):
        line = lines[at].lstrip("\t") if mark["strip"] else lines[at]
        at += 1
        if line == mark["name"]:
            break
        body.append(f"{line}\n")
    return "".join(body), at


def words(text: str) -> list[str]:
    """`text` in words, quotes left as they are."""
    return _WORD.findall(text)


def expanded(text: str, value: Callable[[str], str | None], *, quotes: bool = True) -> str:
    """`text` with its variables filled in and, unless it is a here-document, its quotes taken away."""
    if not quotes:
        parts = re.split(r"(\\[$\\])", text)
        return "".join(part[1] if at % 2 else _filled(part, value) for at, part in enumerate(parts))
    found: list[str] = []
    for part in re.findall(r"'[^']*'|\"(?:\\.|[^\"\\])*\"|\\.|[^'\"\\]+|.", text, re.DOTALL):
        if part[0] == "'" and len(part) > 1:
            found.append(part[1:-1])
        elif part[0] == '"' and len(part) > 1:
            found.append(re.sub(r"\\([\"\\$])", r"\1", _filled(part[1:-1], value)))
        elif part[0] == "\\" and len(part) > 1:
            found.append(part[1])
        else:
            found.append(_filled(part, value))
    return "".join(found)


def _filled(text: str, value: Callable[[str], str | None]) -> str:
    def one(found: re.Match[str]) -> str:
        name = found["plain"] or found["name"]
        known = value(name)
        how, other = found["how"] or "", found["other"] or ""
        there = bool(known) if how.startswith(":") else known is not None
        if how.endswith("-") and not there:
            return _filled(other, value)
        if how.endswith("+"):
            return _filled(other, value) if there else ""
        return known or ""

    return _VARIABLE.sub(one, text)
