# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The wanted state of a project, out of its files: what every module begins with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..report.finding import ShipshapeError, failure
from ..report.masking import Masker
from ..report.result import Report
from . import disk
from .compose import Compose
from .model import Project, project_from, secrets_of


def resolved(compose: Compose, report: Report) -> Project:
    """The project, its secrets known to `report` from here on. Raises what is wrong with the project's files."""
    problem = compose.source.problem()
    if problem:
        raise ShipshapeError(problem)
    document, warnings = compose.model()
    project = _with_variables(project_from(document), compose)
    report.masker = Masker(secrets_of(project) | disk.secret_texts(project))
    report.add(*warnings)
    asked = set(compose.source.profiles) - {"*"}
    unknown = sorted(asked - set(compose.profiles())) if asked else []
    if unknown:
        known = ", ".join(sorted(compose.profiles())) or "none"
        what = f"no service has the profile {', '.join(unknown)} (profiles in this project: {known})"
        raise failure(compose.source.spoken, "profile-unknown", what, "Check `profiles`")
    return project


def _with_variables(project: Project, compose: Compose) -> Project:
    """`project` with the content of configs and secrets that come from a variable, which the model only names."""
    entries = [*project.configs.values(), *project.secrets.values()]
    names = sorted({str(entry["environment"]) for entry in entries if entry.get("environment")})
    if not names:
        return project
    known = compose.variables(names)

    def filled(section: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
        return {
            key: {**entry, "content": known[entry["environment"]]} if entry.get("environment") in known else entry
            for key, entry in section.items()
        }

    return replace(project, configs=filled(project.configs), secrets=filled(project.secrets))
