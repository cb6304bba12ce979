# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Removes secrets from whatever leaves a module, in every form in which they could be read back."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus, unquote

MASK = "***"
# Shorter values ("1", "db", "true") occur in ordinary text: masking them hides the report and protects nothing.
SHORTEST_SECRET = 4

_SECRET_NAME = re.compile(
    r"PASS(WORD|WD|PHRASE)?(_|$)|SECRET|TOKEN|CREDENTIAL|PRIVATE|DSN|API_?KEY|ACCESS_?KEY|_KEY$|_AUTH$|_PWD$",
    re.IGNORECASE,
)
# A password may hold a raw @ or /: everything up to the last @ counts, unless it begins with a port.
_URL_PASSWORD = re.compile(r"(?P<head>\b[a-zA-Z][a-zA-Z0-9+.-]*://[^\s/:@]*:)(?P<secret>(?!\d+[/?#])[^\s\"']+)(?=@)")
_URL_HEAD = re.compile(r"\b[a-zA-Z][a-zA-Z0-9+.-]*://[^\s/:@]*:")
_PORT = re.compile(r"\d+[/?#]")
# The names of what we return: a password that happens to be one of them must not change the result's shape.
_KEYS = """
    absent action actions active added address after alert allocatable allocated api_version backup_dir backup_file
    before bind_mounts cause changed checksum cleared code compared component compose compose_version container
    containers credentials dest diff digest drift engine event events exit_code expired failed field file files
    findings fingerprint found free gid group health id image image_id images invocation kind layers leased lines
    log_since login logs message missing mode module_args msg name outcome owner path platform platforms project
    project_id quarantined raised rc reason recommended_size remedy removed resetting restarts run scripts seconds
    server service services severity size slot slots source sources src stale started_at state status_text stderr
    stdout storage_driver subject target time total uid user utilisation value variable verdict verdicts version
    versions wanted where words
"""
CONTRACT = frozenset(_KEYS.split())
# A name and what gives it a value, as in env files, YAML, JSON and shell scripts.
_ASSIGNED = re.compile(r"(?<![\w.-])(?<!\$\{)(?P<name>[A-Za-z_][\w.-]*)[\"']?\s*[:=]\s*(?=\S)")
# What stands for a value that is elsewhere, or is hidden already.
_NO_VALUE = re.compile(r"[\"']?(\$[{(A-Za-z_]|<[a-z ]+>\s*$|\*{3})")
# Words that a variable with a secret's name may hold, and that hide nothing.
_HARMLESS = frozenset({"true", "false", "none", "null", "yes", "no", "on", "off"})


def names_a_secret(name: str) -> bool:
    """Whether what bears `name` is a secret by its name alone."""
    return bool(_SECRET_NAME.search(name))


def secret_values(variables: Mapping[str, Any]) -> Iterator[str]:
    """The secrets among environment variables: values of names that say so, and passwords inside URLs."""
    for name, value in variables.items():
        if value is None:
            continue
        if names_a_secret(name) and str(value).lower() not in _HARMLESS:
            yield str(value)
        yield from _url_passwords(str(value))


def _url_passwords(text: str) -> Iterator[str]:
    """Passwords in the URLs of `text`. A raw @ may be in one, or in what follows the host: every reading counts."""
    for head in _URL_HEAD.finditer(text):
        rest = re.split(r"[\s\"']", text[head.end() :], maxsplit=1)[0]
        parts = rest.split("@")[:-1]
        if _PORT.match(rest):
            continue
        for end in range(1, len(parts) + 1):
            candidate = "@".join(parts[:end])
            if end == 1 or not re.search(r"[/?#,]", candidate):
                yield candidate
                yield unquote(candidate)


def masked_sides(before: str, after: str) -> tuple[str, str]:
    """Two sides of a diff of files, without the values of what bears a secret's name and the passwords in URLs; that
    one changes still shows."""
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    same = {*old} & {*new}

    def masked(line: str, word: str) -> str:
        return masked_line(line, MASK if line in same else word)

    return "".join(masked(line, "<old value>") for line in old), "".join(masked(line, "<new value>") for line in new)


def masked_line(line: str, word: str) -> str:
    """`line` with `word` in the place of a secret's value."""
    text = line.rstrip("\r\n")
    for found in _ASSIGNED.finditer(text):
        if names_a_secret(found["name"]) and not _NO_VALUE.match(text, found.end()):
            return text[: found.end()] + word + line[len(text) :]
    return _URL_PASSWORD.sub(rf"\g<head>{word}", text) + line[len(text) :]


def assigned_secrets(text: str) -> Iterator[str]:
    """The values that `text`, a configuration file, gives to names of secrets, and the passwords in its URLs."""
    for line in text.splitlines():
        for found in _ASSIGNED.finditer(line):
            value = line[found.end() :].strip().rstrip(",;").strip()
            if not value or not names_a_secret(found["name"]) or _NO_VALUE.match(value) or value.lower() in _HARMLESS:
                continue
            yield value
            if value[0] in "\"'" and value.endswith(value[0]):
                yield value[1:-1]
        yield from _url_passwords(line)


def forms(secret: str) -> set[str]:
    """Every spelling of `secret` that gives it away: raw, URL-encoded, base64 (at each alignment), JSON-escaped."""
    raw = secret.encode("utf-8", "surrogateescape")
    spellings = {secret, quote(raw, safe=""), quote(raw), quote_plus(raw), quote(raw, safe="!'()*~")}
    spellings |= {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    for shift in range(3):
        # Inside a longer base64 text (`user:password`) only the middle groups are the secret's own.
        encoded = base64.b64encode(b"\0" * shift + raw).decode()
        tail = (shift + len(raw)) % 3
        core = encoded[(4 if shift else 0) : len(encoded) - (4 if tail else 0)]
        if len(core) >= 8:
            spellings |= {core, core.replace("+", "-").replace("/", "_")}
        if not shift:
            spellings.add(encoded)
    return {text for text in spellings if len(text) >= SHORTEST_SECRET}


class Masker:
    """Masks a fixed set of secrets, and passwords inside URLs, in text and in nested data."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        spellings: set[str] = set()
        self._secrets = frozenset(secrets)
        for secret in self._secrets:
            for line in {secret, *secret.splitlines()}:
                if len(line.strip()) >= SHORTEST_SECRET:
                    spellings |= forms(line.strip()) | forms(line)
        longest_first = sorted(spellings, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def knowing(self, secrets: Iterable[str]) -> Masker:
        """One that masks `secrets` as well."""
        further = frozenset(secrets) - self._secrets
        return Masker(self._secrets | further) if further else self

    def text(self, text: str) -> str:
        if self._pattern is not None:
            text = self._pattern.sub(MASK, text)
        return _URL_PASSWORD.sub(rf"\g<head>{MASK}", text)

    def data(self, value: Any) -> Any:
        """`value` with every string in it masked, mapping keys included that are not names of our own."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {key if key in CONTRACT else self.data(key): self.data(entry) for key, entry in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.data(entry) for entry in value]
        return value
