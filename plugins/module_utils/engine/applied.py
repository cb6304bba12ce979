# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was applied to a container, remembered in a label on it, so that a difference can be named field by field.

Structure stands there in clear; the values of environment variables and the contents of configs and secrets only as
keyed digests, by which equal values can be told from different ones. The key lies beside them, so they keep values out
of sight, not out of reach: whoever may inspect a container can read its environment anyway. Pure.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..report.masking import names_a_secret
from .model import Project, Service

LABEL = "io.shipshape.deploy.applied"
_VERSION = 1
_HOOKS = ("post_start", "pre_stop")
_ABSENT = object()
_EMPTY: tuple[Any, ...] = (({}, None), (None, {}))


@dataclass(frozen=True)
class Applied:
    """A decoded label: the key of its digests, the definition that they belong to, and per mounted file the digest and
    size that it had then."""

    key: str
    definition: Mapping[str, Any]
    files: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    build: str = ""  # the digest of what its image was built from, '' where that is not known


@dataclass(frozen=True)
class Difference:
    """One field in which two definitions differ: `field` in Compose's words (`environment.DEBUG`), None for absent."""

    field: str
    wanted: Any
    found: Any
    secret: bool = False


def label(
    project: Project, service: Service, files: Mapping[str, tuple[str, int]] | None = None, build: str = ""
) -> str:
    """The label's value for a new container of `service`, under a key of its own. `files`: digest and size of each
    mounted file, by target; `build`: digest of what its image is built from."""
    key = secrets.token_hex(8)
    document: dict[str, Any] = {"v": _VERSION, "key": key, "service": digested(project, service, key)}
    if build:
        document["build"] = keyed(key, build)
    if files:
        document["files"] = {target: [keyed(key, digest), size] for target, (digest, size) in files.items()}
    return json.dumps(document, separators=(",", ":"), sort_keys=True)


def read(text: str | None) -> Applied | None:
    """The label's content; None when there is none, or one that this version does not understand."""
    if not text:
        return None
    try:
        document = json.loads(text)
        version, key, service = document["v"], document["key"], document["service"]
    except (ValueError, KeyError, TypeError):
        return None
    if version != _VERSION or not isinstance(key, str) or not isinstance(service, dict):
        return None
    files = document.get("files")
    known = files.items() if isinstance(files, dict) else ()
    remembered = {target: (entry[0], entry[1]) for target, entry in known if _is_file(entry)}
    return Applied(key, service, remembered, str(document.get("build") or ""))


def _is_file(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str) and isinstance(entry[1], int)


def digested(project: Project, service: Service, key: str) -> dict[str, Any]:
    """`service` as it is remembered: its definition and what its configs and secrets hold."""
    definition = dict(service.definition)
    if definition.get("environment"):
        definition["environment"] = _digested_values(key, definition["environment"])
    for hooks in _HOOKS:
        if definition.get(hooks):
            definition[hooks] = [
                {**hook, "environment": _digested_values(key, hook.get("environment") or {})}
                for hook in definition[hooks]
            ]
    for section, entries in (("configs", project.configs), ("secrets", project.secrets)):
        contents = {
            source: keyed(key, json.dumps(entries.get(source) or {}, sort_keys=True))
            for source in sorted({use["source"] for use in definition.get(section) or []})
        }
        if contents:
            definition[f"{section}_content"] = contents
        if definition.get(section):
            definition[section] = [_with_numeric_mode(use) for use in definition[section]]
    canonical: dict[str, Any] = json.loads(json.dumps(definition))
    return canonical


def _with_numeric_mode(use: Mapping[str, Any]) -> dict[str, Any]:
    """Compose 2.26 prints a file's mode as 288, 2.40 as "0440": an upgrade of Compose is no change of the service."""
    mode = use.get("mode")
    return {**use, "mode": int(mode, 8)} if isinstance(mode, str) and mode.isdigit() else dict(use)


def _digested_values(key: str, variables: Mapping[str, Any]) -> dict[str, str | None]:
    return {name: None if value is None else keyed(key, str(value)) for name, value in variables.items()}


def keyed(key: str, value: str) -> str:
    """`value` as it is remembered: to be compared, not to be read."""
    return "~" + hmac.new(key.encode(), value.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()[:16]


def differences(project: Project, service: Service, applied: Applied) -> list[Difference]:
    """The fields in which the wanted `service` differs from what was `applied`, removals included."""
    return _compare("", digested(project, service, applied.key), dict(applied.definition))


def _compare(path: str, wanted: Any, found: Any) -> list[Difference]:
    if wanted == found:
        return []
    if all(isinstance(side, Mapping) or side in (None, _ABSENT) for side in (wanted, found)):
        ours, theirs = (side if isinstance(side, Mapping) else {} for side in (wanted, found))
        below = [
            difference
            for key in sorted({*ours, *theirs})
            for difference in _compare(
                f"{path}.{key}" if path else key, ours.get(key, _ABSENT), theirs.get(key, _ABSENT)
            )
        ]
        if path == "deploy":  # Compose fills in its empty sections: they are named only where nothing else differs
            below = [entry for entry in below if (entry.wanted, entry.found) not in _EMPTY]
        if below:
            return below
    secret = path.startswith(("environment.", "configs_content.", "secrets_content.", *_HOOKS))
    # What was a secret stands in the label only, where the project's own masking does not know it: its name tells.
    secret = secret or names_a_secret(path.partition(".")[2])
    if path.startswith("environment."):
        # A variable without a value is passed through from nowhere: as good as absent.
        wanted, found = (None if side is _ABSENT else side for side in (wanted, found))
        return [Difference(path, wanted, found, secret)]
    return [Difference(path, _value(wanted), _value(found), secret)]


def _value(side: Any) -> Any:
    """None where there is nothing; an entry without a value (a network, say) is an empty text."""
    return None if side is _ABSENT else "" if side is None else side
