# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Collects what a module did and saw while it works, so that a failure half-way still tells the truth."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from .finding import WARNING, Action, Finding, ShipshapeError
from .masking import Masker


class Report:
    """The running account of one module call. Safe to append to from several threads (list.append is atomic)."""

    def __init__(self) -> None:
        self.changed = False
        self.actions: list[Action] = []
        self.findings: list[Finding] = []
        self.values: dict[str, Any] = {}
        self.logs: dict[str, list[str]] = {}
        self.diff: dict[str, str] | list[dict[str, str]] | None = None
        self.masker = Masker()

    def add(self, *findings: Finding) -> None:
        known = set(self.findings)
        self.findings.extend(finding for finding in dict.fromkeys(findings) if finding not in known)

    def planned(self, action: str, target: str, reason: str) -> None:
        """Check mode: this would be done."""
        self.changed = True
        self.actions.append(Action(action, target, reason))

    def done(self, action: str, target: str, reason: str, seconds: float) -> None:
        """This was done, and took `seconds`."""
        self.changed = True
        self.actions.append(Action(action, target, reason, seconds))

    @contextmanager
    def doing(self, action: str, target: str, reason: str) -> Iterator[None]:
        """Times the body and records the action when it succeeds.

        `changed` turns true before the body runs: once a request is on its way nobody can say that nothing changed.
        """
        self.changed = True
        started = time.monotonic()
        yield
        self.actions.append(Action(action, target, reason, time.monotonic() - started))

    def warn(self, error: ShipshapeError) -> None:
        """`error` happened to something that is not critical: its findings become warnings, its logs are kept."""
        self.findings.extend(replace(finding, severity=WARNING) for finding in error.findings)
        self.logs.update(error.logs)

    def as_dict(self) -> dict[str, Any]:
        """The module's result, masked."""
        result: dict[str, Any] = {
            **self.values,
            "changed": self.changed,
            "actions": [action.as_dict() for action in self.actions],
            "findings": [finding.as_dict() for finding in self.findings],
        }
        if self.diff is not None:
            result["diff"] = self.diff
        if self.logs:
            result["logs"] = self.logs
        masked: dict[str, Any] = self.masker.data(result)
        return masked

    def failed(self, error: ShipshapeError) -> dict[str, Any]:
        """The module's result when `error` ended it: everything so far, the error's findings, `msg` and `logs`."""
        self.add(*error.findings)
        masked: dict[str, Any] = self.masker.data({"msg": str(error), "logs": {**self.logs, **error.logs}})
        return {**self.as_dict(), **masked}
