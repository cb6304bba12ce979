# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings scripts to where they belong: looks, plans, and has the plan reported or carried out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..report.finding import CRITICAL, INFO, Finding, ShipshapeError, failure
from .atomic import Attributes, checksum, locate, sweep
from .attributes import differences, resolve
from .problems import explained, immutable, locked_by_attribute
from .script_call import Call, Content, Job
from .script_plan import (
    ADJUST,
    DIFF_LIMIT,
    KEEP,
    REPLACE,
    Script,
    Step,
    actions,
    decide,
    difference,
    duplicates,
    judge,
)
from .script_text import Shebang

_SCRIPT_MODE = 0o755


def place(scripts: Sequence[Script], contents: Sequence[Content | None], call: Call) -> list[int]:
    """Does the whole. Returns the positions of scripts whose content is needed and missing; then nothing was done.

    Parts that only a change needs are imported when there is one: mostly there is none, and compiling costs time.
    """
    steps = _look_at_all(scripts, call)
    judged = [judge(script, find_program) for script in scripts]
    call.demand_none([finding for _program, findings in judged for finding in findings])
    missing = [number for number, step in enumerate(steps) if step.writes and contents[number] is None]
    if missing:
        return missing
    jobs = [Job(step, content, program) for step, content, (program, _findings) in zip(steps, contents, judged)]
    results = {step.script.dest: _result(step) for step in steps}
    call.report.values["scripts"] = list(results.values())
    differences_shown = _differences(jobs) if call.diff else None
    plan = actions(steps, backup=call.backup, keep=call.backup_keep)
    if call.check:
        if any(step.writes for step in steps):
            from .script_apply import check_in_scratch

            check_in_scratch(jobs, call)
        for planned in plan:
            if planned.places:
                results[planned.step.script.dest].update(changed=True, checksum=planned.step.script.facts.sha256)
            call.report.planned(planned.action, planned.target, planned.reason)
    else:
        _sweep_all(steps, call)
        if plan:
            from .script_apply import carry_out

            carry_out(jobs, plan, results, call)
    call.report.diff = differences_shown
    return []


def find_program(shebang: Shebang) -> str | None:
    """The interpreter's path, when it exists and may be executed."""
    if shebang.by_env and not (os.path.isfile(shebang.path) and os.access(shebang.path, os.X_OK)):
        return None
    return shutil.which(shebang.program)


def _look_at_all(scripts: Sequence[Script], call: Call) -> list[Step]:
    looks = [_try_to_look(script, call) for script in scripts]
    problems = [obstacle for _step, obstacles in looks for obstacle in obstacles]
    steps = [step for step, _obstacles in looks if step is not None]
    problems = problems or duplicates([(step.script.dest, os.path.realpath(step.target)) for step in steps])
    if problems:
        raise ShipshapeError(*problems)
    if call.check:
        for step in steps:
            if step.writes:
                _predict_write(step, call)
    return steps


def _try_to_look(script: Script, call: Call) -> tuple[Step | None, list[Finding]]:
    try:
        return _look(script, call), []
    except ShipshapeError as error:
        obstacles = call.settle(error.findings)
        if obstacles:
            return None, obstacles
    # Check mode, and an owner or group that an earlier task would have created.
    step = _look(replace(script, attributes=Attributes(mode=script.attributes.mode)), call)
    return (replace(step, kind=ADJUST, reason="its owner or group differs") if step.kind == KEEP else step), []


def _look(script: Script, call: Call) -> Step:
    """One script against what is on the disk."""
    with explained(script.dest, "look at the destination"):
        target, old = locate(script.dest)
        found = checksum(target) if old else None
        if old is None and script.attributes.mode is None:
            script = replace(script, attributes=replace(script.attributes, mode=_SCRIPT_MODE))
        resolve(script.dest, script.attributes, old)
        differing = differences(script.dest, script.attributes, old) if old else []
    kind, reason = decide(script.facts.sha256, found, differing)
    backups: Sequence[str] = ()
    if call.backup and kind == REPLACE:
        from .backups import existing

        backups = existing(target)
    return Step(script, target, kind, reason, found, tuple(backups))


def _predict_write(step: Step, call: Call) -> None:
    """Check mode writes nothing, so it asks whether it could."""
    directory = os.path.dirname(step.target)
    if step.kind == REPLACE and locked_by_attribute(step.target):
        raise immutable(step.target)
    if not os.path.isdir(directory):
        what = f"there is no directory {directory} yet"
        remedy = "An earlier task must create it: ansible.builtin.file, state=directory"
        call.demand_none([Finding(CRITICAL, step.script.dest, "missing-parent", what, remedy)])
    elif os.statvfs(directory).f_flag & os.ST_RDONLY:
        remedy = f"Mount {directory} writable (findmnt -T)"
        raise failure(step.script.dest, "read-only", "the file system is mounted read-only", remedy)
    elif not os.access(directory, os.W_OK | os.X_OK):
        remedy = f"Run with become, or give that user rights on {directory}"
        raise failure(step.script.dest, "no-rights", f"access denied for user uid {os.geteuid()}", remedy)


def _sweep_all(steps: Sequence[Step], call: Call) -> None:
    for directory in sorted({os.path.dirname(step.target) for step in steps}):
        for name in sweep(directory):
            what = "a temporary that an interrupted run left behind was removed"
            call.report.add(Finding(INFO, os.path.join(directory, name), "leftover-removed", what))


def _result(step: Step) -> dict[str, Any]:
    return {
        "dest": step.script.dest,
        "checksum": step.found,
        "changed": False,
        "backup_file": None,
        "run": None,
    }


def _differences(jobs: Sequence[Job]) -> list[dict[str, str]]:
    shown = []
    for job in jobs:
        step = job.step
        if step.writes and job.content is not None:
            before = None
            if step.kind == REPLACE:
                with open(step.target, "rb") as stream:
                    before = stream.read(DIFF_LIMIT + 1)
            shown.append(difference(step, before, job.content().read(DIFF_LIMIT + 1)))
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
    before = "".join(f"{name}: {old_value}\n" for name, old_value, _new in changed)
    after = "".join(f"{name}: {new_value}\n" for name, _old, new_value in changed)
    return [{"before_header": header, "after_header": header, "before": before, "after": after}]
