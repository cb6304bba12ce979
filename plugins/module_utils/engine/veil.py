# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets that only the containers still know: the old values of those that are being changed. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ..report.masking import MASK, Masker, secret_values
from .drift import Drift
from .look import Look
from .model import Project, public_words


def old_secrets(project: Project, look: Look, drift: Iterable[Drift]) -> set[str]:
    """Secrets in the environment of containers that differ from what is wanted."""
    differing = {entry.container for entry in drift}
    found: set[str] = set()
    for at in look.containers:
        if at.name in differing or at.role:
            found |= set(secret_values(dict(entry.partition("=")[::2] for entry in at.raw["Config"].get("Env") or [])))
    return found - public_words(project) if found else found


def veiled(entry: Drift, masker: Masker) -> Drift:
    """`entry` as it may be shown. Where one side holds a secret, what stands in its place on the other is one too, and
    may be known to nobody: a password that is replaced stands in the old command only."""
    wanted, found = entry.wanted, entry.found
    if entry.kind != "desired" or None in (wanted, found):
        return entry
    if isinstance(wanted, list) and isinstance(found, list):
        if not any(_bears(value, masker) for value in _apart(wanted, found) + _apart(found, wanted)):
            return entry
        return replace(
            entry,
            wanted=[value if value in found else _hidden(value, masker) for value in wanted],
            found=[value if value in wanted else _hidden(value, masker) for value in found],
        )
    if not (_bears(wanted, masker) or _bears(found, masker)):
        return entry
    return replace(entry, wanted=_hidden(wanted, masker), found=_hidden(found, masker))


def _apart(values: list[Any], others: list[Any]) -> list[Any]:
    return [value for value in values if value not in others]


def _bears(value: Any, masker: Masker) -> bool:
    return bool(masker.data(value) != value)


def _hidden(value: Any, masker: Masker) -> Any:
    """Of a value that is known to hold a secret all but that; nothing of another."""
    return masker.data(value) if _bears(value, masker) else MASK
