# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings scripts to where they belong: looks, plans, checks all of them, and only then changes anything."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from ..report.finding import CRITICAL, WARNING, Finding, ShipshapeError, failure
from ..report.result import Report
from . import backups
from .atomic import Attributes, Pending, Readable, checksum, locate, prepare, sweep, sync_directories
from .attributes import apply, differences, resolve
from .busy import wait_until_free
from .execute import Outcome, execute, explain_start
from .problems import explained
from .script_check import find_program, validate
from .script_plan import (
    ADJUST,
    CREATE,
    DIFF_LIMIT,
    KEEP,
    REPLACE,
    Planned,
    Script,
    Step,
    actions,
    arguments,
    decide,
    difference,
    duplicates,
    judge,
)

# None where the content stayed on the controller, because nobody knew yet whether it is needed.
Content = Callable[[], Readable]
# Earlier tasks of the same play would have provided these, had it not been check mode.
_MAY_STILL_COME = ("missing-parent", "interpreter-missing", "unknown-owner", "unknown-group")
_SCRIPT_MODE = 0o755


@dataclass(frozen=True)
class Options:
    check: bool
    diff: bool
    backup: bool
    backup_keep: int
    busy_timeout: float
    run_timeout: float
    scratch: str  # a private directory, for check mode


def place(scripts: Sequence[Script], contents: Sequence[Content | None], options: Options, report: Report) -> list[int]:
    """Does the whole. Returns the positions of scripts whose content is needed and missing; then nothing was done."""
    steps = _look_at_all(scripts, options, report)
    programs = _judge_all(scripts, options, report)
    missing = [number for number, step in enumerate(steps) if step.writes and contents[number] is None]
    if missing:
        return missing
    report.values["scripts"] = [_result(step) for step in steps]
    if options.diff:
        report.diff = _differences(steps, contents)
    plan = actions(steps, backup=options.backup, keep=options.backup_keep)
    if options.check:
        _check_in_scratch(steps, contents, programs, options, report)
        for planned in plan:
            _entry(report, steps, planned.step)["changed"] |= planned.action in (CREATE, REPLACE, ADJUST)
            report.planned(planned.action, planned.target, planned.reason)
    else:
        _carry_out(steps, plan, contents, programs, options, report)
    return []


def _look_at_all(scripts: Sequence[Script], options: Options, report: Report) -> list[Step]:
    steps: list[Step] = []
    problems: list[Finding] = []
    for script in scripts:
        step, obstacles = _try_to_look(script, options, report)
        problems += obstacles
        if step is not None:
            steps.append(step)
    if not problems:
        problems += duplicates([(step.script.dest, step.target) for step in steps])
    if problems:
        raise ShipshapeError(*problems)
    if options.check:
        for step in steps:
            _predict_write(step, options, report)
    return steps


def _try_to_look(script: Script, options: Options, report: Report) -> tuple[Step | None, list[Finding]]:
    try:
        return _look(script), []
    except ShipshapeError as error:
        obstacles = _settle(error.findings, options, report)
        if obstacles:
            return None, obstacles
    # Check mode, and an owner or group that an earlier task would have created.
    step = _look(replace(script, attributes=Attributes(mode=script.attributes.mode)))
    return (replace(step, kind=ADJUST, reason="its owner or group differs") if step.kind == KEEP else step), []


def _look(script: Script) -> Step:
    """One script against what is on the disk."""
    with explained(script.dest, "look at the destination"):
        target, old = locate(script.dest)
        found = checksum(target) if old else None
        if old is None and script.attributes.mode is None:
            script = replace(script, attributes=replace(script.attributes, mode=_SCRIPT_MODE))
        resolve(script.dest, script.attributes, old)
        differing = differences(script.dest, script.attributes, old) if old else []
    kind, reason = decide(script.facts.sha256, found, differing)
    return Step(script, target, kind, reason, tuple(backups.existing(target)))


def _predict_write(step: Step, options: Options, report: Report) -> None:
    """Check mode writes nothing, so it asks whether it could."""
    directory = os.path.dirname(step.target)
    if not step.writes:
        return
    if not os.path.isdir(directory):
        what = f"there is no directory {directory} yet"
        remedy = "An earlier task must create it: ansible.builtin.file, state=directory"
        _settle_or_raise([Finding(CRITICAL, step.script.dest, "missing-parent", what, remedy)], options, report)
    elif os.statvfs(directory).f_flag & os.ST_RDONLY:
        remedy = f"Mount {directory} writable (findmnt -T)"
        raise failure(step.script.dest, "read-only", "the file system is mounted read-only", remedy)
    elif not os.access(directory, os.W_OK | os.X_OK):
        remedy = f"Run with become, or give that user rights on {directory}"
        raise failure(step.script.dest, "no-rights", f"access denied for user uid {os.geteuid()}", remedy)


def _judge_all(scripts: Sequence[Script], options: Options, report: Report) -> list[str | None]:
    judged = [judge(script, find_program) for script in scripts]
    _settle_or_raise([finding for _, findings in judged for finding in findings], options, report)
    return [program for program, _ in judged]


def _settle(findings: Sequence[Finding], options: Options, report: Report) -> list[Finding]:
    """Reports what is no obstacle; returns what is."""
    obstacles = []
    for finding in findings:
        if finding.severity != CRITICAL:
            report.add(finding)
        elif options.check and finding.code in _MAY_STILL_COME:
            report.add(replace(finding, severity=WARNING))
        else:
            obstacles.append(finding)
    return obstacles


def _settle_or_raise(findings: Sequence[Finding], options: Options, report: Report) -> None:
    obstacles = _settle(findings, options, report)
    if obstacles:
        raise ShipshapeError(*obstacles)


def _result(step: Step) -> dict[str, Any]:
    return {
        "dest": step.script.dest,
        "checksum": step.script.facts.sha256,
        "changed": False,
        "backup_file": None,
        "run": None,
    }


def _entry(report: Report, steps: Sequence[Step], step: Step) -> dict[str, Any]:
    entry: dict[str, Any] = report.values["scripts"][steps.index(step)]
    return entry


def _differences(steps: Sequence[Step], contents: Sequence[Content | None]) -> list[dict[str, str]]:
    shown = []
    for step, content in zip(steps, contents):
        if step.writes and content is not None:
            before = None
            if step.kind == REPLACE:
                with open(step.target, "rb") as stream:
                    before = stream.read(DIFF_LIMIT + 1)
            shown.append(difference(step, before, content().read(DIFF_LIMIT + 1)))
        if step.kind in (ADJUST, REPLACE):
            shown += _attribute_difference(step)
    return shown


def _attribute_difference(step: Step) -> list[dict[str, str]]:
    old = os.stat(step.target)
    wanted = resolve(step.script.dest, step.script.attributes, old)
    pairs = [
        ("mode", f"{old.st_mode & 0o7777:04o}", f"{wanted.mode:04o}"),
        ("owner", str(old.st_uid), str(wanted.uid)),
        ("group", str(old.st_gid), str(wanted.gid)),
    ]
    changed = [pair for pair in pairs if pair[1] != pair[2]]
    if not changed:
        return []
    header = f"{step.script.dest} (attributes)"
    before = "".join(f"{name}: {old_value}\n" for name, old_value, _ in changed)
    after = "".join(f"{name}: {new_value}\n" for name, _, new_value in changed)
    return [{"before_header": header, "after_header": header, "before": before, "after": after}]


def _check_in_scratch(
    steps: Sequence[Step],
    contents: Sequence[Content | None],
    programs: Sequence[str | None],
    options: Options,
    report: Report,
) -> None:
    """Check mode's validation: on copies in a private directory, since nothing may appear beside the destination."""
    findings: list[Finding] = []
    for step, content, program in zip(steps, contents, programs):
        if step.writes and content is not None:
            with tempfile.TemporaryDirectory(dir=options.scratch) as directory:
                copy = os.path.join(directory, "script")
                with prepare(copy, content(), expected_sha256=step.script.facts.sha256) as pending:
                    findings += validate(step.script, program, pending.path)
    _settle_or_raise(findings, options, report)


def _carry_out(
    steps: Sequence[Step],
    plan: Sequence[Planned],
    contents: Sequence[Content | None],
    programs: Sequence[str | None],
    options: Options,
    report: Report,
) -> None:
    _sweep_all(steps, report)
    with ExitStack() as stack:
        pendings = _prepare_all(steps, contents, programs, options, report, stack)
        taken = [step.target for step in steps if step.kind == REPLACE]
        wait_until_free([*taken, *(pending.path for pending in pendings.values())], options.busy_timeout)
        try:
            for planned in plan:
                if planned.action in ("backup", CREATE, REPLACE, ADJUST):
                    with report.doing(planned.action, planned.target, planned.reason):
                        _place_one(planned, pendings, _entry(report, steps, planned.step))
        finally:
            sync_directories(pending.target for pending in pendings.values())
    for step in steps:
        if step.writes:
            _verify(step.script)
    for planned in plan:
        if planned.action == "remove-backup":
            with report.doing(planned.action, planned.target, planned.reason):
                _remove(planned.target)
        elif planned.action == "run":
            with report.doing(planned.action, planned.target, planned.reason):
                outcome = _run(planned.step.script, options)
            shown = {"rc": outcome.rc, "stdout": outcome.stdout, "stderr": outcome.stderr}
            _entry(report, steps, planned.step)["run"] = shown
            _demand_success(planned.step.script, outcome, options)


def _sweep_all(steps: Sequence[Step], report: Report) -> None:
    for directory in sorted({os.path.dirname(step.target) for step in steps}):
        for name in sweep(directory):
            what = "a temporary that an interrupted run left behind was removed"
            report.add(Finding("info", os.path.join(directory, name), "leftover-removed", what))


def _prepare_all(
    steps: Sequence[Step],
    contents: Sequence[Content | None],
    programs: Sequence[str | None],
    options: Options,
    report: Report,
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
    _settle_or_raise(findings, options, report)
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


def _run(script: Script, options: Options) -> Outcome:
    """Executes the script as a step of its own: what is executed is checked once more, right before."""
    wait_until_free([script.dest], options.busy_timeout)
    _verify(script)
    try:
        return execute(
            arguments(script.dest, script.run or ()),
            timeout=options.run_timeout,
            cwd=os.path.dirname(script.dest),
            busy_timeout=options.busy_timeout,
        )
    except OSError as error:
        raise explain_start(script.dest, error) from error


def _demand_success(script: Script, outcome: Outcome, options: Options) -> None:
    lines = outcome.last_lines()
    last = f"; its last line: {lines[-1]}" if lines else ", without a word"
    if outcome.timed_out:
        what = f"it was placed, but its run did not end within {options.run_timeout:g} s and was stopped{last}"
        raise failure(
            script.dest, "run-timeout", what, "Find out what it waits for, or raise run_timeout", {script.dest: lines}
        )
    if outcome.rc != 0:
        how = f"ended with exit code {outcome.rc}" if outcome.rc > 0 else f"was killed by signal {-outcome.rc}"
        what = f"it was placed, but its run {how}{last}"
        raise failure(script.dest, "run-failed", what, "Look at run.stdout and run.stderr", {script.dest: lines})
