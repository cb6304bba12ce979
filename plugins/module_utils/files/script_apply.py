# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does what was planned for scripts: prepares and checks all of them, then changes the first."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from ..report.finding import Finding, ShipshapeError, failure
from ..report.result import Report
from . import backups
from .atomic import Pending, checksum, prepare, sweep, sync_directories
from .attributes import apply, resolve
from .busy import wait_until_free
from .execute import Outcome, execute, explain_start
from .problems import explained
from .script_check import validate
from .script_plan import (
    ADJUST,
    CREATE,
    REPLACE,
    Content,
    Options,
    Planned,
    Script,
    Step,
    arguments,
    entry_of,
    settle_or_raise,
)


def check_in_scratch(
    steps: Sequence[Step],
    contents: Sequence[Content | None],
    programs: Sequence[str | None],
    call: Call,
) -> None:
    """Check mode's validation: on copies in a private directory, since nothing may appear beside the destination."""
    findings: list[Finding] = []
    for step, content, program in zip(steps, contents, programs):
        if step.writes and content is not None:
            with tempfile.TemporaryDirectory(dir=call.scratch) as directory:
                copy = os.path.join(directory, "script")
                with prepare(copy, content(), expected_sha256=step.script.facts.sha256) as pending:
                    findings += validate(step.script, program, pending.path)
    call.demand_none(findings)


def carry_out(
    steps: Sequence[Step],
    plan: Sequence[Planned],
    contents: Sequence[Content | None],
    programs: Sequence[str | None],
    call: Call,
) -> None:
    _sweep_all(steps, report)
    with ExitStack() as stack:
        pendings = _prepare_all(steps, contents, programs, call, stack)
        taken = [step.target for step in steps if step.kind == REPLACE]
        wait_until_free([*taken, *(pending.path for pending in pendings.values())], call.busy_timeout)
        try:
            for planned in plan:
                if planned.action in ("backup", CREATE, REPLACE, ADJUST):
                    with call.report.doing(planned.action, planned.target, planned.reason):
                        _place_one(planned, pendings, results[planned.step.script.dest])
        finally:
            sync_directories(pending.target for pending in pendings.values())
    for step in steps:
        if step.writes:
            _verify(step.script)
    for planned in plan:
        if planned.action == "remove-backup":
            with call.report.doing(planned.action, planned.target, planned.reason):
                _remove(planned.target)
        elif planned.action == "run":
            with call.report.doing(planned.action, planned.target, planned.reason):
                outcome = _run(planned.step.script, call)
            shown = {"rc": outcome.rc, "stdout": outcome.stdout, "stderr": outcome.stderr}
            results[planned.step.script.dest]["run"] = shown
            _demand_success(planned.step.script, outcome, call)


def _sweep_all(steps: Sequence[Step], report: Report) -> None:
    for directory in sorted({os.path.dirname(step.target) for step in steps}):
        for name in sweep(directory):
            what = "a temporary that an interrupted run left behind was removed"
            call.report.add(Finding("info", os.path.join(directory, name), "leftover-removed", what))


def _prepare_all(
    steps: Sequence[Step],
    contents: Sequence[Content | None],
    programs: Sequence[str | None],
    call: Call,
    stack: ExitStack,
) -> dict[str, Pending]:
    """Every new file, complete and checked beside its destination. All that is wrong is told at once."""
    pendings: dict[str, Pending] = {}
    findings: list[Finding] = []
    for step, content, program in zip(steps, contents, programs):
        if not step.writes or content is None:
            continue
        script = step.script
        try:
            pending = prepare(script.dest, content(), script.attributes, expected_sha256=script.facts.sha256)
        except ShipshapeError as error:
            findings += error.findings
            continue
        pendings[script.dest] = stack.enter_context(pending)
        findings += validate(script, program, pending.path)
    call.demand_none(findings)
    return pendings


def _place_one(planned: Planned, pendings: dict[str, Pending], entry: dict[str, Any]) -> None:
    script = planned.step.script
    if planned.action == "backup":
        entry["backup_file"] = backups.make(planned.step.target)
        return
    entry["changed"] = True
    if planned.action == ADJUST:
        with explained(script.dest, "set owner and mode"):
            apply(planned.step.target, resolve(script.dest, script.attributes, os.stat(planned.step.target)), None)
    else:
        pendings[script.dest].commit(sync=False)


def _verify(script: Script) -> None:
    """What lies at the destination must be what this task put there."""
    found = checksum(script.dest)
    if found != script.facts.sha256:
        what = "it is gone" if found is None else f"its SHA-256 is {found[:12]}… instead of {script.facts.sha256[:12]}…"
        remedy = "Find out who else writes it (two deploys at once?), then run again"
        raise failure(
            script.dest, "checksum-differs", f"another process changed it after it was placed: {what}", remedy
        )


def _remove(path: str) -> None:
    with explained(path, "remove an old backup"):
        try:
            os.unlink(path)
        except FileNotFoundError:
            return


def _run(script: Script, call: Call) -> Outcome:
    """Executes the script as a step of its own: what is executed is checked once more, right before."""
    wait_until_free([script.dest], call.busy_timeout)
    _verify(script)
    try:
        return execute(
            arguments(script.dest, script.run or ()),
            timeout=call.run_timeout,
            cwd=os.path.dirname(script.dest),
            busy_timeout=call.busy_timeout,
        )
    except OSError as error:
        raise explain_start(script.dest, error) from error


def _demand_success(script: Script, outcome: Outcome, call: Call) -> None:
    lines = outcome.last_lines()
    last = f"; its last line: {lines[-1]}" if lines else ", without a word"
    if outcome.timed_out:
        what = f"it was placed, but its run did not end within {call.run_timeout:g} s and was stopped{last}"
        raise failure(
            script.dest, "run-timeout", what, "Find out what it waits for, or raise run_timeout", {script.dest: lines}
        )
    if outcome.rc != 0:
        how = f"ended with exit code {outcome.rc}" if outcome.rc > 0 else f"was killed by signal {-outcome.rc}"
        what = f"it was placed, but its run {how}{last}"
        raise failure(script.dest, "run-failed", what, "Look at run.stdout and run.stderr", {script.dest: lines})
