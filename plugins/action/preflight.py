# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's side of `preflight`: only here the target's clock can be compared with the controller's."""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.action import ActionBase

from ansible_collections.shipshape.deploy.plugins.module_utils.preflight.engine import clock

MODULE = "shipshape.deploy.preflight"


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_async = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        before = time.time()
        outcome = self._execute_module(module_name=MODULE, module_args=self._task.args, task_vars=task_vars or {})
        after = time.time()
        self._remove_tmp_path(self._connection._shell.tmpdir)
        found = [finding.as_dict() for finding in clock(outcome.get("engine", {}).get("time", ""), before, after)]
        if found:
            # Worst first: a warning stands after what is critical.
            severities = [finding["severity"] for finding in outcome["findings"]]
            at = severities.count("critical")
            outcome["findings"][at:at] = found
        result.update(outcome)
        return result
