# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Does what was planned for scripts: prepares and checks all of them, then changes the first."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any

from ..report.finding import Finding, ShipshapeError, failure
from . import backups
from .atomic import Pending, checksum, prepare, sync_directories
from .attributes import apply, resolve
from .busy import wait_until_free
from .execute import Outcome, execute, explain_start
from .problems import explained
from .script_call import Call, Job
from .script_check import validate
from .script_plan import ADJUST, REPLACE, Planned, Script, arguments


def check_in_scratch(jobs: Sequence[Job], call: Call) -> None:
    """Check mode's validation: on copies in a private directory, since nothing may appear beside the destination."""
    findings: list[Finding] = []
    for job in jobs:
        script = job.step.script
        if job.step.writes and job.content is not None:
            with tempfile.TemporaryDirectory(dir=call.scratch) as directory:
                copy = os.path.join(directory, "script")
                with prepare(copy, job.content(), expected_sha256=script.facts.sha256) as pending:
                    findings += validate(script, job.program, pending.path)
    call.demand_none(findings)


def carry_out(jobs: Sequence[Job], plan: Sequence[Planned], results: dict[str, dict[str, Any]], call: Call) -> None:
    """`results` holds each script's part of the module's result, by destination; it is filled in on the way."""
    report = call.report
    with ExitStack() as stack:
        pendings = _prepare_all(jobs, call, stack)
        taken = [job.step.target for job in jobs if job.step.kind == REPLACE]
        wait_until_free([*taken, *(pending.path for pending in pendings.values())], call.busy_timeout)
        try:
            for planned in plan:
                if planned.places or planned.action == "backup":
                    _place_one(planned, pendings, results[planned.step.script.dest], call)
        finally:
            sync_directories(pending.target for pending in pendings.values())
    for job in jobs:
        if job.step.writes:
            _verify(job.step.script)
    for planned in plan:
        script = planned.step.script
        if planned.action == "remove-backup":
            with report.doing(planned.action, planned.target, planned.reason):
                _remove(planned.target)
        elif planned.action == "run":
            with report.doing(planned.action, planned.target, planned.reason):
                outcome = _run(script, call)
            results[script.dest]["run"] = {"rc": outcome.rc, "stdout": outcome.stdout, "stderr": outcome.stderr}
            _demand_success(script, outcome, call)


def _prepare_all(jobs: Sequence[Job], call: Call, stack: ExitStack) -> dict[str, Pending]:
    """Every new file, complete and checked beside its destination. All that is wrong is told at once."""
    pendings: dict[str, Pending] = {}
    findings: list[Finding] = []
    for job in jobs:
        if not job.step.writes or job.content is None:
            continue
        script = job.step.script
        try:
            pending = prepare(script.dest, job.content(), script.attributes, expected_sha256=script.facts.sha256)
        except ShipshapeError as error:
            findings += error.findings
            continue
        pendings[script.dest] = stack.enter_context(pending)
        findings += validate(script, job.program, pending.path)
    call.demand_none(findings)
    return pendings


def _place_one(planned: Planned, pendings: dict[str, Pending], entry: dict[str, Any], call: Call) -> None:
    script = planned.step.script
    changed = call.report.changed
    with call.report.doing(planned.action, planned.target, planned.reason):
        if planned.action == ADJUST:
            entry["changed"] = True
            with explained(script.dest, "set owner and mode"):
                apply(planned.step.target, resolve(script.dest, script.attributes, os.stat(planned.step.target)), None)
            return
        try:
            if planned.action == "backup":
                entry["backup_file"] = backups.make(planned.step.target)
            else:
                pendings[script.dest].commit(sync=False)
                entry.update(changed=True, checksum=script.facts.sha256)
        except ShipshapeError:
            call.report.changed = changed  # a link or rename that fails has changed nothing
            raise


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
    with explained(path, "remove an old backup"), suppress(FileNotFoundError):
        os.unlink(path)


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
