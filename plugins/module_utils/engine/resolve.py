# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The wanted state of a project, out of its files: what every module begins with."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ..report.finding import ShipshapeError, failure
from ..report.masking import Masker, secret_values
from ..report.result import Report
from . import disk
from .compose import Compose, Source
from .model import Project, project_from, public_words, secrets_of

# A line of an env file; a value in quotes may go on for several.
_ENV_LINE = re.compile(
    r"""^[ \t]*(?:export[ \t]+)?(?P<name>[A-Za-z_][\w.-]*)[ \t]*=[ \t]*"""
    r"""(?:"(?P<double>(?:\\.|[^"\\])*)"|'(?P<single>[^']*)'|(?P<plain>.*))""",
    re.MULTILINE,
)


def resolved(compose: Compose, report: Report) -> Project:
    """The project, its secrets known to `report` from here on. Raises what is wrong with the project's files."""
    problem = compose.source.problem()
    if problem:
        raise ShipshapeError(problem)
    document, warnings = compose.model()
    project = _with_variables(project_from(document), compose)
    filled_in = set(_filled_in(compose.source, project)) - public_words(project)
    report.masker = Masker(secrets_of(project) | disk.secret_texts(project) | filled_in)
    report.add(*warnings)
    asked = set(compose.source.profiles) - {"*"}
    unknown = sorted(asked - set(compose.profiles())) if asked else []
    if unknown:
        known = ", ".join(sorted(compose.profiles())) or "none"
        what = f"no service has the profile {', '.join(unknown)} (profiles in this project: {known})"
        raise failure(compose.source.spoken, "profile-unknown", what, "Check `profiles`")
    return project


def _filled_in(source: Source, project: Project) -> Iterator[str]:
    """Secrets among the variables that the files are filled in from: they may stand where no name tells, in a command
    (`--requirepass ${REDIS_PASSWORD}`), a label, a healthcheck."""
    for text in source.env_texts():
        for found in _ENV_LINE.finditer(text):
            plain = re.split(r"\s#", found["plain"] or "", maxsplit=1)[0].strip()
            yield from _secret(found["name"], found["double"] or found["single"] or plain)
    around = {secret for name, value in os.environ.items() for secret in _secret(name, value) if secret}
    whole = json.dumps(project.document) if around else ""
    yield from (secret for secret in around if json.dumps(secret)[1:-1] in whole)


def _secret(name: str, value: str) -> Iterator[str]:
    # The name of a secret's file is none, and masking it would blacken the paths in messages.
    return iter(()) if name.upper().endswith(("_FILE", "_PATH", "_DIR")) else secret_values({name: value})


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
