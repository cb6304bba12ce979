# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a run that failed has changed anything: told by comparing what is there with what was there. Pure.

A request that was sent may have been carried out or not, and what was undone is as it was: only looking tells.
"""

from __future__ import annotations

from dataclasses import dataclass

from .look import Look
from .model import Project
from .observed import Observed


@dataclass(frozen=True)
class Traces:
    """All of a project in the engine that makes one state of it differ from another."""

    containers: tuple[Observed, ...] = ()
    resources: frozenset[str] = frozenset()  # "network NAME", "volume NAME"

    @classmethod
    def of(cls, look: Look, project: Project) -> Traces:
        networks = {f"network {name}" for name in project.networks if name in look.networks}
        volumes = {f"volume {name}" for name in project.volumes if name in look.volumes}
        return cls(look.containers, frozenset(networks | volumes))

    def differ_from(self, earlier: Traces) -> bool:
        before = {at.id: at for at in earlier.containers}
        if self.resources != earlier.resources or {at.id for at in self.containers} != before.keys():
            return True
        return any(_differs(before[at.id], at) for at in self.containers)


def _differs(before: Observed, now: Observed) -> bool:
    if before.name != now.name:
        return True
    if now.restart_count > 0 and now.restart_count >= before.restart_count:
        return False  # it is the engine that starts it again and again: whoever else does begins the count anew
    return (before.status, before.state.get("StartedAt")) != (now.status, now.state.get("StartedAt"))
