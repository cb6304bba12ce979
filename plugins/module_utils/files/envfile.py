# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Renders a mapping as an env file that `docker compose` reads back identically, and compares two without values.

Compose reads an env file in two places, `env_file:` of a service and `--env-file` (or `.env`) for interpolation, with
the same parser. In unquoted and double-quoted values it interpolates and unescapes; single-quoted ones it takes as
they are, except that a backslash cannot stand before a quote or at the end. So: plain words bare, what has
neither quote, backslash nor line break in single quotes (which a shell and python-dotenv read the same way too),
everything else in double quotes with escapes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..report.finding import failure

HEADER = "# Rendered by shipshape.deploy.tree: changes made here are replaced by the next deploy.\n"

# What Compose's parser accepts. Names with a dot or a dash reach a container, but not ${...} in a Compose file.
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_BARE = re.compile(r"[A-Za-z0-9_./:@%+,=~^-]+")
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "$": "\\$", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def render(name: str, variables: Mapping[Any, Any]) -> bytes:
    """The content of the env file `name`. Sorted, so that the order of the mapping does not matter.

    Raises ShipshapeError naming the file and the variable, never the value.
    """
    lines = [f"{key}={quote(plain(name, key, value))}\n" for key, value in variables.items() if _valid(name, key)]
    return (HEADER + "".join(sorted(lines))).encode()


def quote(value: str) -> str:
    """`value` as the right side of a line."""
    if _BARE.fullmatch(value) or not value:
        return value
    if not any(character in value for character in "'\\\n\r"):
        return f"'{value}'"
    return '"' + value.translate(_ESCAPES) + '"'


def plain(name: str, key: str, value: Any) -> str:
    """`value` as the text that the variable shall have."""
    subject = f"{name}: {key}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        message = "is a number with a fraction, which YAML may have rewritten (3.10 is read as 3.1)"
        raise failure(subject, "env-value-ambiguous", message, "Put the value in quotes")
    if value is None:
        message = "has no value: in an env file Compose would take it from the environment of the deploy"
        raise failure(subject, "env-value-missing", message, "Give '' for an empty value, or leave the variable out")
    if not isinstance(value, str):
        message = "is a list or a mapping, which an env file cannot hold"
        raise failure(subject, "env-value-not-text", message, "Give text, for example through the to_json filter")
    if "\0" in value:
        message = "contains a NUL character, which no environment variable can hold"
        raise failure(subject, "env-value-not-text", message, "Encode the value, for example with the b64encode filter")
    try:
        value.encode()
    except UnicodeEncodeError:
        message = "is not valid UTF-8, which Compose would replace"
        remedy = "Encode the value, for example with the b64encode filter"
        raise failure(subject, "env-value-not-text", message, remedy) from None
    return str(value)


def differences(before: bytes, after: bytes) -> tuple[str, str]:
    """Two rendered files as the two sides of a diff: names, and whether the value changed, never a value."""
    old, new = _tokens(before), _tokens(after)
    same = {key for key in old.keys() & new.keys() if old[key] == new[key]}

    def side(tokens: dict[str, str], mark: str) -> str:
        return "".join(f"{key}=<{'unchanged' if key in same else mark}>\n" for key in sorted(tokens))

    return side(old, "old value"), side(new, "new value")


def is_rendered(content: bytes) -> bool:
    """Whether `render` wrote this: only then a line is sure to start with a name, not with part of a value."""
    return content.startswith(HEADER.encode())


def _tokens(content: bytes) -> dict[str, str]:
    lines = content.decode("utf-8", "replace").split("\n")[:-1]
    pairs = (line.partition("=") for line in lines if not line.startswith("#"))
    return {pair[0]: pair[2] for pair in pairs}


def _valid(name: str, key: Any) -> bool:
    if isinstance(key, str) and _NAME.fullmatch(key):
        return True
    message = "is not a name that a variable can have"
    remedy = "Begin with a letter or _, go on with letters, digits, _, . or -"
    raise failure(f"{name}: {key}", "env-name-invalid", message, remedy)
