# SPDX-License-Identifier: GPL-3.0-or-later
"""What of our own code a call of a module really loads: it is compiled anew on the target each time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# Where the collection has its full name: a link in a checkout, the place itself for ansible-test.
TREE = ROOT / ".tree" if (ROOT / ".tree").is_dir() else ROOT.parents[2]
_RUN = """
import contextlib, importlib, io, json, os, sys
from ansible.module_utils import basic
basic._ANSIBLE_ARGS, basic._ANSIBLE_PROFILE = sys.stdin.buffer.read(), "legacy"
out = io.StringIO()
with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
    importlib.import_module("ansible_collections.shipshape.deploy.plugins.modules." + sys.argv[1]).main()
ours = {name.partition("module_utils.")[2]: found.__file__ for name, found in sys.modules.items()
        if ".deploy.plugins.module_utils." in name and found.__file__}
sizes = {name: os.path.getsize(path) for name, path in ours.items()}
print(json.dumps([json.loads(out.getvalue().strip().splitlines()[-1]), sizes, sorted(sys.modules)]))
"""


class Call:
    """A call of a module in a process of its own: its result, and what it has loaded. `bytes` maps our files to their
    sizes, `modules` are the names of everybody's."""

    def __init__(self, name: str, arguments: dict[str, Any]) -> None:
        flags = {"_ansible_check_mode": False, "_ansible_diff": False, "_ansible_remote_tmp": "/tmp"}
        path = os.pathsep.join([str(TREE), *filter(None, [os.environ.get("PYTHONPATH")])])
        done = subprocess.run(
            [sys.executable, "-c", _RUN, name],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": {**arguments, **flags}}),
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        self.result: dict[str, Any]
        self.bytes: dict[str, int]
        self.modules: list[str]
        self.result, self.bytes, self.modules = json.loads(done.stdout)

    def is_cheap(self, most: int) -> None:
        """Whether what it has loaded of ours is no more than `most` bytes; shows what that was."""
        assert not self.result.get("failed"), self.result["msg"]
        largest = sorted(self.bytes.items(), key=lambda entry: -entry[1])
        assert sum(self.bytes.values()) <= most, largest
