# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks a script's syntax before it takes anybody's place."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from ..report.finding import CRITICAL, INFO, Finding
from .execute import Outcome, execute
from .script_plan import Script
from .script_text import parse_shebang, syntax_checks

_TIMEOUT = 60.0
_SHOWN_LINES = 3
# What interpreters print around the sentence that matters.
_NOISE = re.compile(r"\s+at |Node\.js v|\(node:|\(Use |\s*[\^~]+\s*$|Traceback |\s*$")


def validate(script: Script, program: str | None, path: str) -> list[Finding]:
    """Checks the content that lies at `path`; `program` is the script's interpreter on this machine.

    At most one finding: critical when the script is wrong, info when there is no way to tell.
    """
    if script.validate == "none" or script.facts.size == 0:
        return []
    if not isinstance(script.validate, str):
        return _complaints(script, [[word.replace("%s", path) for word in script.validate]], path)
    shebang = parse_shebang(script.facts.shebang)
    if shebang is None or program is None:
        return []  # what there is to say about that is said already
    checks = syntax_checks(shebang, program, script.dest, script.facts.notes)
    if not checks:
        name = os.path.basename(shebang.program)
        message = f"its syntax was not checked: there is no safe check for {name}, or binary data is in it"
        return [Finding(INFO, script.dest, "not-validated", message, "Give a command of your own in validate")]
    return _complaints(script, checks, path)


def _complaints(script: Script, commands: Sequence[Sequence[str]], path: str) -> list[Finding]:
    """Nothing when one of `commands` finds the script good; else what the first of them says."""
    found: list[Finding] = []
    for command in commands:
        problem = _check(command, path)
        if problem is None:
            return []
        message = f"{problem}; the old file stays"
        found.append(Finding(CRITICAL, script.dest, "invalid-script", message, "Correct the script, then run again"))
    return found[:1]


def _check(command: Sequence[str], path: str) -> str | None:
    name = os.path.basename(command[0])
    try:
        with open(path, "rb") as stdin:
            outcome = execute(command, timeout=_TIMEOUT, cwd=os.path.dirname(path) or ".", stdin=stdin)
    except OSError as error:
        return f"the check {command[0]} could not be started: {error.strerror}"
    if outcome.timed_out:
        return f"{name} did not end checking it within {_TIMEOUT:g} s"
    if outcome.rc == 0:
        return None
    said = complaint(outcome).replace(path, os.path.basename(path))
    return f"{name} finds it wrong: {said or f'exit code {outcome.rc}'}"


def complaint(outcome: Outcome) -> str:
    """The telling lines of what a checker printed, as one line."""
    lines = (outcome.stderr.strip() or outcome.stdout.strip()).splitlines()
    telling = [line.strip() for line in lines if not _NOISE.match(line)]
    errors = [line for line in telling if "error" in line.lower()]
    return " | ".join((telling if len(telling) <= _SHOWN_LINES else errors or telling)[:_SHOWN_LINES])
