# SPDX-License-Identifier: GPL-3.0-or-later
"""50 scripts: ours in one task against ansible.builtin.copy in a loop, first time and with nothing to do.

The time of the task alone, as the difference to the same play without it: what Ansible needs to start is the same
for both. Both are measured in the same run, alternating, so that a busy machine slows both.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = 50
BOUND = 15.0

_OURS = """
    - shipshape.deploy.script:
        scripts: "{{ scripts }}"
        mode: "0755"
"""
_PEER = """
    - ansible.builtin.copy:
        src: "s{{ item }}.sh"
        dest: "{{ out }}/peer{{ item }}.sh"
        mode: "0755"
      loop: "{{ range(count) | list }}"
"""
_HEAD = """
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.meta: noop
"""


def _seconds(directory: Path, name: str, task: str, variables: dict[str, Any]) -> float:
    play = directory / f"{name}.yml"
    play.write_text(_HEAD + task)
    env = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".tree"), "ANSIBLE_LOCALHOST_WARNING": "false"}
    ansible = Path(sys.executable).with_name("ansible-playbook")
    command = [str(ansible), "-i", "localhost,", "-c", "local", str(play), "-e", json.dumps(variables)]
    command += ["-e", f"ansible_python_interpreter={sys.executable}"]
    started = time.monotonic()
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    elapsed = time.monotonic() - started
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return elapsed


def _write_scripts(directory: Path, version: int) -> None:
    (directory / "files").mkdir(exist_ok=True)
    for number in range(SCRIPTS):
        body = f"#!/bin/bash\nset -eu\necho {number} {version}\n" + f"# line of script {number}\n" * 100
        (directory / "files" / f"s{number}.sh").write_text(body)


def _ours(directory: Path, out: Path, variables: dict[str, Any], *, anew: bool) -> float:
    """The median of three: one task is so short that the machine's other work would decide."""
    times = []
    for _ in range(3):
        for placed in out.glob("ours*") if anew else ():
            placed.unlink()
        times.append(_seconds(directory, "ours", _OURS, variables))
    return statistics.median(times)


def rows() -> list[dict[str, Any]]:
    result = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        out = directory / "out"
        out.mkdir()
        scripts = [{"src": f"s{number}.sh", "dest": f"{out}/ours{number}.sh"} for number in range(SCRIPTS)]
        variables = {"out": str(out), "count": SCRIPTS, "scripts": scripts}
        _write_scripts(directory, 1)
        empty = min(_seconds(directory, "empty", "", variables) for _ in range(2))
        for work in ("first time", "nothing changed"):
            ours = _ours(directory, out, variables, anew=work == "first time") - empty
            peer = _seconds(directory, "peer", _PEER, variables) - empty
            ratio = peer / ours
            result.append(
                {
                    "work": f"{SCRIPTS} scripts, {work}",
                    "peer": "ansible.builtin.copy in a loop",
                    "ours_s": round(ours, 2),
                    "peer_s": round(peer, 2),
                    "ratio": round(ratio, 1),
                    "bound": f">= {BOUND:g}",
                    "ok": ratio >= BOUND,
                }
            )
        for number in range(SCRIPTS):
            assert (out / f"ours{number}.sh").read_bytes() == (out / f"peer{number}.sh").read_bytes()
    return result


if __name__ == "__main__":
    print(json.dumps(rows(), indent=2))
