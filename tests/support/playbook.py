# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs tasks with the real ansible-playbook and gives each task's result as data, and all that was printed as text."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.support.modules import TREE

_CALLBACK = """
import json, os
from ansible.plugins.callback import CallbackBase

class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "recorder"

    def _record(self, result, **more):
        task = result._task if hasattr(result, "_task") else result.task
        data = result._result if hasattr(result, "_result") else result.result
        host = result._host if hasattr(result, "_host") else result.host
        entry = {"host": host.get_name(), "name": task.get_name(), **more, **data}
        with open(os.environ["RECORDER"], "a") as stream:
            stream.write(json.dumps(entry, default=str) + "\\n")

    def v2_runner_on_ok(self, result):
        self._record(result)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        self._record(result, failed=True)

    def v2_runner_on_unreachable(self, result):
        self._record(result, unreachable=True)
"""


@dataclass
class Played:
    """What came of a playbook: `results` in the order of tasks, `output` as a person saw it."""

    rc: int
    output: str
    results: list[dict[str, Any]] = field(default_factory=list)

    @property
    def last(self) -> dict[str, Any]:
        assert self.results, self.output
        return self.results[-1]


def play(
    folder: Path,
    *tasks: dict[str, Any],
    options: list[str] | None = None,
    env: dict[str, str] | None = None,
    prefix: list[str] | None = None,
    timeout: float = 300,
    **keywords: Any,
) -> Played:
    """Runs `tasks` on localhost from a playbook in `folder`. `keywords` go into the play."""
    head = {"hosts": "localhost", "gather_facts": False, **keywords}
    text = yaml.safe_dump([{**head, "tasks": list(tasks)}], sort_keys=False, allow_unicode=True)
    return play_text(folder, text, options=options, env=env, prefix=prefix, timeout=timeout)


def play_text(
    folder: Path,
    text: str,
    *,
    options: list[str] | None = None,
    env: dict[str, str] | None = None,
    prefix: list[str] | None = None,
    timeout: float = 300,
) -> Played:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "playbook.yml").write_text(text, encoding="utf-8")
    (folder / "callbacks").mkdir(exist_ok=True)
    (folder / "callbacks" / "recorder.py").write_text(_CALLBACK, encoding="utf-8")
    record = folder / "results.jsonl"
    record.unlink(missing_ok=True)
    done = subprocess.run(
        [*(prefix or []), str(Path(sys.executable).parent / "ansible-playbook"), "playbook.yml", *(options or [])],
        cwd=folder,
        env=environment(folder) | (env or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout,
    )
    lines = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
    return Played(done.returncode, done.stdout.decode("utf-8", "replace"), [json.loads(line) for line in lines])


def environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(TREE),
        "ANSIBLE_CALLBACK_PLUGINS": str(folder / "callbacks"),
        "ANSIBLE_CALLBACKS_ENABLED": "recorder",
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_NOCOWS": "1",
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        "RECORDER": str(folder / "results.jsonl"),
    }
