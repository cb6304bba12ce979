# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs and what has drifted, as a table for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: stack_table
author: The shipshape.deploy founders (@shipshape-deploy)
version_added: 0.1.0
short_description: Shows the state of a stack as a short table
description:
  - Takes what M(shipshape.deploy.stack_info) or M(shipshape.deploy.stack) returned and gives the lines of a table with
    a line for each service, followed by every difference and every finding.
options:
  _input:
    description: The module's result.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show what runs
  ansible.builtin.debug:
    msg: "{{ stack_info_result | shipshape.deploy.stack_table }}"
"""

RETURN = r"""
_value:
  description: The lines.
  type: list
  elements: str
"""


def _columns(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _value(value: Any) -> str:
    return "nothing" if value in (None, "") else value if isinstance(value, str) else json.dumps(value)


def _difference(drift: Mapping[str, Any]) -> str:
    where = drift.get("container") or drift["service"]
    found, wanted = _value(drift.get("found")), _value(drift.get("wanted"))
    # A secret that changed is masked on both sides.
    what = "differs" if found == wanted else f"is {found}, wanted {wanted}"
    return f"drift: {where}: {drift['field']} {what}"


def stack_table(result: Mapping[str, Any]) -> list[str]:
    """The lines of the table."""
    if not isinstance(result, Mapping) or "services" not in result:
        raise AnsibleFilterError("stack_table takes what shipshape.deploy.stack_info returned")
    drift = result.get("drift", [])
    rows: list[tuple[str, ...]] = [("SERVICE", "STATE", "CONTAINERS", "DRIFT")]
    for name, service in sorted(result["services"].items()):
        differences = sum(1 for difference in drift if difference["service"] == name)
        rows.append((name, str(service["state"]), str(len(service["containers"])), str(differences or "none")))
    findings = [
        f"{finding['severity']}: {finding['subject']}: {finding['message']} {finding.get('remedy', '')}".rstrip()
        for finding in result.get("findings", [])
    ]
    return [*_columns(rows), *(_difference(difference) for difference in drift), *findings]


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        return {"stack_table": stack_table}
