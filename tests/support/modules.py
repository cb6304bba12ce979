# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs one of the collection's modules as its own process, without a playbook around it.

0.15 s a call where a playbook costs 1.5 s, so that a fault suite can afford hundreds; the process is a real one
and can be killed, traced and limited. Modules that have an action plugin beside them need a playbook instead.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TREE = ROOT / ".tree"

_BOOT = """
import runpy, sys
from ansible.module_utils import basic
basic._ANSIBLE_ARGS = sys.stdin.buffer.read()
basic._ANSIBLE_PROFILE = "legacy"
sys.argv = [sys.argv[1]]
module = "ansible_collections.shipshape.deploy.plugins.modules." + sys.argv[0]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


class ModuleCall:
    """A running module call: `wait()` gives its result, `process` is there to be killed or looked at."""

    def __init__(
        self,
        name: str,
        arguments: dict[str, Any],
        *,
        check: bool = False,
        diff: bool = False,
        env: dict[str, str] | None = None,
        prefix: list[str] | None = None,
    ) -> None:
        flags = {"_ansible_check_mode": check, "_ansible_diff": diff, "_ansible_remote_tmp": "/tmp"}
        payload = json.dumps({"ANSIBLE_MODULE_ARGS": {**arguments, **flags}}).encode()
        self.process = subprocess.Popen(
            [*(prefix or []), sys.executable, "-c", _BOOT, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(TREE), **(env or {})},
        )
        assert self.process.stdin is not None
        self.process.stdin.write(payload)
        self.process.stdin.close()
        self.process.stdin = None
        self.stdout = ""
        self.stderr = ""

    def wait(self, timeout: float = 300) -> dict[str, Any]:
        out, err = self.process.communicate(timeout=timeout)
        self.stdout, self.stderr = out.decode(), err.decode()
        if not self.stdout.strip():
            raise AssertionError(f"the module printed no result (rc {self.process.returncode}): {self.stderr}")
        result: dict[str, Any] = json.loads(self.stdout.strip().splitlines()[-1])
        return result


def run_module(name: str, arguments: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Runs module `name` to its end and returns its result, `failed` included."""
    return ModuleCall(name, arguments, **options).wait()
