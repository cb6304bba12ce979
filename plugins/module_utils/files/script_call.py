# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One call of module script: how it is to go about things, and the account it gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..report.finding import CRITICAL, WARNING, Finding, ShipshapeError
from ..report.result import Report
from .atomic import Readable
from .script_plan import Step

# How to read a script's content, as often as it is needed.
Content = Callable[[], Readable]
# Earlier tasks of the same play would have provided these, had it not been check mode.
_MAY_STILL_COME = ("missing-parent", "interpreter-missing", "unknown-owner", "unknown-group")


@dataclass(frozen=True)
class Job:
    """One script's step with what is needed to do it: its content (where it is needed) and its interpreter."""

    step: Step
    content: Content | None
    program: str | None


@dataclass(frozen=True)
class Call:
    report: Report
    check: bool = False
    diff: bool = False
    backup: bool = False
    backup_keep: int = 5
    busy_timeout: float = 30
    run_timeout: float = 600
    scratch: str = ""  # a private directory, for check mode

    def settle(self, findings: Sequence[Finding]) -> list[Finding]:
        """Reports what is no obstacle; returns what is."""
        obstacles = []
        for finding in findings:
            if finding.severity != CRITICAL:
                self.report.add(finding)
            elif self.check and finding.code in _MAY_STILL_COME:
                self.report.add(replace(finding, severity=WARNING))
            else:
                obstacles.append(finding)
        return obstacles

    def demand_none(self, findings: Sequence[Finding]) -> None:
        """The same, failing with all the obstacles there are."""
        obstacles = self.settle(findings)
        if obstacles:
            raise ShipshapeError(*obstacles)
