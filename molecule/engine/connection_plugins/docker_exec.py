# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs tasks in a container through `docker exec`: for scenarios only, so that they need no other collection."""

from __future__ import annotations

import subprocess

from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = r"""
name: docker_exec
short_description: Runs tasks in a container through docker exec
description: For this collection's own scenarios.
author: The shipshape.deploy founders
options:
  container:
    description: Name of the container.
    type: str
    default: inventory_hostname
    vars:
      - name: ansible_host
"""


class Connection(ConnectionBase):
    transport = "docker_exec"
    has_pipelining = True

    def _connect(self) -> Connection:
        self._connected = True
        return self

    def _exec(self, words: list[str], data: bytes | None) -> tuple[int, bytes, bytes]:
        command = ["docker", "exec", "--interactive", self.get_option("container"), *words]
        done = subprocess.run(command, input=data or b"", capture_output=True, check=False)
        return done.returncode, done.stdout, done.stderr

    def exec_command(self, cmd, in_data=None, sudoable=True):
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        return self._exec(["/bin/sh", "-c", cmd], in_data)

    def put_file(self, in_path, out_path):
        with open(in_path, "rb") as handle:
            self._exec(["/bin/sh", "-c", 'cat > "$1"', "sh", out_path], handle.read())

    def fetch_file(self, in_path, out_path):
        with open(out_path, "wb") as handle:
            handle.write(self._exec(["cat", in_path], None)[1])

    def close(self):
        self._connected = False
