# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a look gives cause to say, beside the plan itself. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ..report.finding import WARNING, Finding
from .health import vacuous
from .plan import Plan


def notices(plan: Plan) -> Iterator[Finding]:
    """Warnings about what no step of `plan` will end."""
    for service in plan.project.services.values():
        if vacuous(service.definition.get("healthcheck") or {}):
            what = "its healthcheck passes whatever happens, so it proves nothing"
            how = "Let it ask the service itself, as its users would"
            yield Finding(WARNING, service.name, "healthcheck-vacuous", what, how)
    going = {step.target for step in plan.removals}
    for at in plan.orphans:
        if at.name in going:
            continue
        what = f"container {at.name} belongs to no service of this project any more"
        yield Finding(WARNING, at.service, "orphan", what, "Set remove_orphans: true to remove it")
    yield from _definitions_changed(plan)


def _definitions_changed(plan: Plan) -> Iterator[Finding]:
    changed: dict[tuple[str, str], list[str]] = {}
    for entry in plan.resource_drift:
        section, _dummy, field = entry.field.split(".", 2)
        changed.setdefault((section.rstrip("s"), entry.container), []).append(field)
    for (kind, name), fields in changed.items():
        what = f"{kind} {name} was made with other values of {', '.join(fields)} than the Compose file has, and is kept"
        how = {
            "network": "Only taking every container off it can change it: run state: absent, then present, when a few "
            "seconds without the project are all right (volumes stay)",
            "volume": "Only making it anew can change it, and that loses its data: save them first, or take another "
            "name for the volume",
        }[kind]
        yield Finding(WARNING, name, f"{kind}-definition-changed", what, how)
