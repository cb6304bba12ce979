# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a deploy did, in a few lines for the end of its output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.shipshape.deploy.plugins.module_utils.report.finding import Finding

DOCUMENTATION = r"""
name: deploy_summary
author: The shipshape.deploy founders (@shipshape-deploy)
version_added: 0.1.0
short_description: Says in a few lines what a deploy did
description:
  - Takes the results of a deploy's steps and gives the lines that the deploy playbook ends with.
  - Every action of a step is one line. A step with more than twelve is cut down to a line for each kind of action.
  - Services that mount a changed or removed file are named, because a file that is mounted by itself is seen only after
    a restart.
  - Findings of severity C(warning) and C(critical) follow the step that has them. What several steps have found is said
    once.
options:
  _input:
    description:
      - Names of steps and what their modules returned.
      - A step that is not a mapping, or that was skipped, is left out.
    type: dict
    required: true
  check_mode:
    description: Whether the actions were only predicted.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Say what was done
  ansible.builtin.debug:
    msg: "{{ {'files': tree_result, 'containers': stack_result} | shipshape.deploy.deploy_summary }}"
"""

RETURN = r"""
_value:
  description: The lines.
  type: list
  elements: str
"""

LINES_A_STEP = 12
NAMES_A_LINE = 3


def _grouped(actions: list[Mapping[str, Any]]) -> list[str]:
    targets: dict[str, list[str]] = {}
    for action in actions:
        targets.setdefault(str(action["action"]), []).append(str(action["target"]))
    lines = []
    for name, names in targets.items():
        more = f" and {len(names) - NAMES_A_LINE} more" if len(names) > NAMES_A_LINE else ""
        lines.append(f"{name} {len(names)}: {', '.join(names[:NAMES_A_LINE])}{more}")
    return lines


def _sentence(action: Mapping[str, Any]) -> str:
    reason = f" ({action['reason']})" if action.get("reason") else ""
    seconds = f", {action['seconds']:.1f} s" if action.get("seconds", 0) >= 0.1 else ""
    return f"{action['action']} {action['target']}{reason}{seconds}"


def _step(name: str, result: Mapping[str, Any], said: set[str]) -> list[str]:
    """The lines of one step. `said`: the findings that stand in the lines already; this step's are added."""
    actions = result.get("actions", [])
    done = [_sentence(action) for action in actions] if len(actions) <= LINES_A_STEP else _grouped(actions)
    findings = [
        f"{finding['severity']}: {Finding(**finding).sentence()}"
        for finding in result.get("findings", [])
        if finding["severity"] != "info"
    ]
    new = [line for line in dict.fromkeys(findings) if line not in said]
    said.update(new)
    return [f"{name}: {line}" for line in [*done, *_mounted(result), *new]]


def _mounted(result: Mapping[str, Any]) -> list[str]:
    """Running services that see another file now, or go on with the old one until they are started again."""
    files = result.get("files", {})
    known = {*files.get("changed", []), *files.get("removed", [])}
    touched = {
        service: [path for path in paths if path in known] for service, paths in result.get("bind_mounts", {}).items()
    }
    return [
        f"{service} mounts what changed: {', '.join(paths[:NAMES_A_LINE])}"
        for service, paths in touched.items()
        if paths
    ]


def deploy_summary(results: Mapping[str, Any], check_mode: bool = False) -> list[str]:
    """The lines that tell what the steps in `results` did, or would do."""
    if not isinstance(results, Mapping):
        raise AnsibleFilterError("deploy_summary takes a mapping of step names to results")
    steps = {name: result for name, result in results.items() if isinstance(result, Mapping)}
    said: set[str] = set()
    lines = [line for name, result in steps.items() if not result.get("skipped") for line in _step(name, result, said)]
    if not any(result.get("changed") for result in steps.values()):
        lines.insert(0, "Nothing would change." if check_mode else "Nothing had to be changed.")
    return lines


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        return {"deploy_summary": deploy_summary}
