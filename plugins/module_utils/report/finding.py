# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a module observed and did: the plain data that every module of the collection returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

CRITICAL = "critical"
WARNING = "warning"
INFO = "info"
# Of an error's findings, in its one line: ten thousand slots can fail for one full disk.
_SAID = 10


@dataclass(frozen=True)
class Finding:
    """One observation.

    `severity` is one of CRITICAL, WARNING, INFO; `subject` names the thing looked at (a service, a file);
    `code` is stable, kebab-case and documented; `message` says what was seen; `remedy` says what to do next.
    """

    severity: str
    subject: str
    code: str
    message: str
    remedy: str = ""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)

    def sentence(self) -> str:
        """The finding as one line, for a task's `msg`."""
        parts = [f"{self.subject}: {self.message}".rstrip(".")]
        if self.remedy:
            parts.append(self.remedy.rstrip("."))
        return ". ".join(parts) + "."


@dataclass(frozen=True)
class Action:
    """One thing that was done, or that check mode says would be done. `seconds` is 0.0 in check mode."""

    action: str
    target: str
    reason: str
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "seconds": round(self.seconds, 3)}


class ShipshapeError(Exception):
    """The one exception of module_utils: something failed, and this is what the reader at 3 a.m. needs to know.

    `findings` has at least one entry; `logs` maps a container's name to its last lines. Whoever raises does not
    mask: secrets are removed where a result leaves the module (see `masking`).
    """

    def __init__(self, *findings: Finding, logs: Mapping[str, Sequence[str]] | None = None) -> None:
        said = [finding.sentence() for finding in findings[:_SAID]]
        if len(findings) > _SAID:
            said.append(f"{len(findings) - _SAID} more are in `findings`.")
        super().__init__(" ".join(said))
        self.findings = tuple(findings)
        self.logs = {name: list(lines) for name, lines in (logs or {}).items()}


def failure(
    subject: str, code: str, message: str, remedy: str, logs: Mapping[str, Sequence[str]] | None = None
) -> ShipshapeError:
    """The usual error: one critical finding."""
    return ShipshapeError(Finding(CRITICAL, subject, code, message, remedy), logs=logs)
