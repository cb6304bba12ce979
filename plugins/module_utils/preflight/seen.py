# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the checks have seen, and how bad that is for whom. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from ..report.finding import CRITICAL, INFO, WARNING, Finding, ShipshapeError

_RANK = {CRITICAL: 0, WARNING: 1, INFO: 2}
# As many further findings are named in a task's message; all of them are in its result.
_NAMED = 5


@dataclass(frozen=True)
class Seen:
    """A finding and the services that it concerns; none means everybody."""

    finding: Finding
    services: frozenset[str] = frozenset()


def seen(
    severity: str, subject: str, code: str, message: str, remedy: str = "", services: Iterable[str] | None = None
) -> Seen:
    """A finding about `services`; about the service `subject` when they are not named."""
    return Seen(
        Finding(severity, subject, code, message, remedy), frozenset([subject] if services is None else services)
    )


def about(services: Iterable[str]) -> str:
    """Services as the subject of one finding."""
    return ", ".join(sorted(services))


def from_error(error: ShipshapeError, services: Iterable[str] = ()) -> list[Seen]:
    return [Seen(finding, frozenset(services)) for finding in error.findings]


def graded(found: Iterable[Seen], optional: Collection[str]) -> list[Finding]:
    """The findings, worst first. What concerns only services that may fail is a warning at most."""
    findings = []
    for entry in found:
        bearable = bool(entry.services) and entry.services <= set(optional)
        lesser = bearable and entry.finding.severity == CRITICAL
        findings.append(replace(entry.finding, severity=WARNING) if lesser else entry.finding)
    return sorted(dict.fromkeys(findings), key=lambda finding: _RANK[finding.severity])


def verdict(findings: Sequence[Finding]) -> str:
    """Why the task fails, as one line: the first critical finding in full, the others counted and named; '' when
    there is none."""
    critical = [finding for finding in findings if finding.severity == CRITICAL]
    if not critical:
        return ""
    first, *others = critical
    if not others:
        return first.sentence()
    named = "; ".join(f"{finding.subject}: {finding.code}" for finding in others[:_NAMED])
    left = len(others) - _NAMED
    more = f"; and {left} more" if left > 0 else ""
    plural = "finding" if len(others) == 1 else "findings"
    return f"{first.sentence()} {len(others)} further critical {plural}, see findings: {named}{more}."
