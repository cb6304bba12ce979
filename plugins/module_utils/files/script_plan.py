# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to be done to bring scripts to where they belong: decisions on plain data, no I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..report.finding import CRITICAL, INFO, WARNING, Finding
from ..report.masking import masked_sides
from .attributes import Attributes
from .script_text import Facts, Shebang, parse_shebang

CREATE, REPLACE, ADJUST, KEEP = "create", "replace", "adjust", "keep"
# Larger ones are named by size and checksum only, as in ansible.builtin.copy.
DIFF_LIMIT = 104448


@dataclass(frozen=True)
class Script:
    """One script as wanted. `validate` is auto, none, or a command with `%s` in it; `run` None means: do not."""

    dest: str
    facts: Facts
    attributes: Attributes
    validate: str | tuple[str, ...] = "auto"
    run: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Step:
    """One script, and what has to be done for it."""

    script: Script
    target: str
    kind: str
    reason: str
    found: str | None = None  # the checksum of what is there
    backups: tuple[str, ...] = ()  # those that exist, oldest first

    @property
    def writes(self) -> bool:
        return self.kind in (CREATE, REPLACE)


@dataclass(frozen=True)
class Planned:
    """One action of a step; check mode reports it, the real run does it."""

    step: Step
    action: str
    target: str
    reason: str

    @property
    def places(self) -> bool:
        return self.action in (CREATE, REPLACE, ADJUST)


def decide(wanted: str, found: str | None, differing: Sequence[str]) -> tuple[str, str]:
    """What to do and why, from the checksums wanted and found and the attributes that differ."""
    if found is None:
        return CREATE, "it does not exist"
    if found != wanted:
        return REPLACE, "its content differs"
    if differing:
        return ADJUST, f"its {', '.join(differing)} {'differ' if len(differing) > 1 else 'differs'}"
    return KEEP, "content, mode and owner are as wanted"


def actions(steps: Sequence[Step], *, backup: bool, keep: int) -> list[Planned]:
    """All that is to be done, in order: nothing runs before everything is in place."""
    placing: list[Planned] = []
    pruning: list[Planned] = []
    for step in steps:
        if backup and step.kind == REPLACE:
            placing.append(Planned(step, "backup", step.target, "it is about to be replaced"))
            old = surplus(list(step.backups), keep, coming=1)
            pruning += [Planned(step, "remove-backup", path, f"only the newest {keep} are kept") for path in old]
        if step.kind != KEEP:
            placing.append(Planned(step, step.kind, step.script.dest, step.reason))
    running = [
        Planned(step, "run", step.script.dest, "the task asks for it") for step in steps if step.script.run is not None
    ]
    return placing + pruning + running


def surplus(backups: list[str], keep: int, *, coming: int = 0) -> list[str]:
    """Which of `backups` (oldest first) must go so that with `coming` new ones at most `keep` remain."""
    return backups[: max(0, len(backups) + coming - keep)]


def arguments(dest: str, run: Sequence[str]) -> list[str]:
    """The command line of a run: `run` holds the arguments, or all of it when it begins with the script itself."""
    return list(run) if run and run[0] == dest else [dest, *run]


def duplicates(targets: Sequence[tuple[str, str]]) -> list[Finding]:
    """Destinations, given as (dest, target), that are one and the same file."""
    counted = Counter(target for _dest, target in targets)
    remedy = "Name each destination once"
    return [
        Finding(CRITICAL, dest, "duplicate-destination", f"several scripts have the destination {target}", remedy)
        for dest, target in dict.fromkeys(targets)
        if counted[target] > 1
    ]


def judge(script: Script, find_program: Callable[[Shebang], str | None]) -> tuple[str | None, list[Finding]]:
    """The interpreter's path on this machine, and what is to be said about the script before it is placed."""
    facts, dest = script.facts, script.dest
    findings = _about_endings(dest, facts.notes)
    # Who checks otherwise, or not at all, may have a script for a container, or no script.
    concerned = script.validate == "auto" or script.run is not None
    if "program" in facts.notes or not concerned:
        return None, findings
    shebang = parse_shebang(facts.shebang) if facts.shebang else None
    if shebang is None:
        return None, [*findings, _without_interpreter(script)]
    problem = _broken_shebang(shebang, facts)
    if problem is None:
        program = find_program(shebang)
        if program is not None:
            return program, findings
        what = f"its interpreter {shebang.program} is not on this machine, or cannot be executed"
        problem = what, "Install the interpreter, or correct the first line"
    return None, [*findings, Finding(CRITICAL, dest, "interpreter-missing", *problem)]


def _broken_shebang(shebang: Shebang, facts: Facts) -> tuple[str, str] | None:
    if facts.shebang.endswith("\r"):
        return (
            f"its first line ends in a carriage return: the kernel would look for {shebang.program!r}",
            "Use line_endings=lf, or save the script with Unix line endings",
        )
    if shebang.unsplit:
        return f"env would look for a program named {shebang.program!r}", "Write #!/usr/bin/env -S in the first line"
    if not shebang.path.startswith("/"):
        return f"its first line names {shebang.path}, which is no absolute path", "Write the interpreter's full path"
    return None


def _about_endings(dest: str, notes: Sequence[str]) -> list[Finding]:
    table = {
        "crlf-removed": (INFO, "line-endings-converted", "Windows line endings (CRLF) were made Unix ones (LF)", ""),
        "bom-removed": (INFO, "byte-order-mark-removed", "the UTF-8 byte order mark was removed", ""),
        "crlf-kept": (WARNING, "line-endings-kept", "it has Windows line endings (CRLF)", "Use line_endings=lf"),
        "bom-kept": (WARNING, "byte-order-mark-kept", "it begins with a byte order mark", "Use line_endings=lf"),
        "utf-16": (WARNING, "utf-16", "it is UTF-16, which no interpreter reads as a script", "Save it as UTF-8"),
    }
    return [Finding(table[note][0], dest, *table[note][1:]) for note in notes if note in table]


def _without_interpreter(script: Script) -> Finding:
    runs = script.run is not None
    if script.facts.size == 0:
        message = "it is empty"
        return Finding(CRITICAL if runs else WARNING, script.dest, "empty-script", message, "Is src the right file?")
    message = (
        "it has no #! line, so the kernel cannot execute it" if runs else "it has no #! line: only a shell can start it"
    )
    remedy = "Begin it with the interpreter, such as #!/bin/sh"
    return Finding(CRITICAL if runs else WARNING, script.dest, "no-interpreter", message, remedy)


def difference(step: Step, before: bytes | None, after: bytes | None) -> dict[str, str]:
    """The change of content, as `--diff` shows it. None: not there before / not at hand."""
    dest = step.script.dest
    old, new = masked_sides("" if step.kind == CREATE else _shown(before), _shown(after))
    return {"before_header": dest, "after_header": dest, "before": old, "after": new}


def _shown(content: bytes | None) -> str:
    if content is None or len(content) > DIFF_LIMIT:
        return "(too large to be shown)\n"
    if b"\0" in content:
        return "(binary data)\n"
    return content.decode("utf-8", "replace")
