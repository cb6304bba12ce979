# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The project that is to be deployed, as far as it can be had: also one that Compose refuses is looked at."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ..engine.compose import Compose
from ..engine.model import Project, project_from
from ..files.envread import evaluate
from ..report.finding import CRITICAL, Finding, ShipshapeError
from . import envfiles, project, variables
from .envfiles import EnvFile
from .seen import Seen, from_error

# Compose's own words for what is told better here, with service and place.
_TOLD_BETTER = "variable-unset"


@dataclass
class Wanted:
    """What could be read. `project` is None where even without what is wrong Compose cannot resolve it."""

    raw: Mapping[str, Any] = field(default_factory=dict)
    chosen: frozenset[str] = frozenset()
    files: list[EnvFile] = field(default_factory=list)  # env files of services
    filling: list[EnvFile] = field(default_factory=list)  # env files that fill in the Compose file
    values: dict[str, str] = field(default_factory=dict)
    project: Project | None = None
    found: list[Seen] = field(default_factory=list)

    @property
    def environments(self) -> dict[str, Mapping[str, str | None]]:
        """What each service is given."""
        services = self.project.services.values() if self.project else ()
        return {at.name: at.definition.get("environment") or {} for at in services}


def read(compose: Compose) -> Wanted:
    """Reads the project and judges what it says of itself."""
    problem = compose.source.problem()
    wanted = Wanted()
    wanted.filling = list(_filling_files(compose))
    wanted.values = filling(wanted.filling)
    if problem:
        wanted.found = from_error(ShipshapeError(problem))
        wanted.found += [entry for file in wanted.filling for entry in envfiles.judged(file)]
        return wanted
    with ThreadPoolExecutor(2) as readers:
        model = readers.submit(_or_error, compose.model)
        raw = readers.submit(_or_error, compose.raw)
        resolved, document = model.result(), raw.result()
    if isinstance(document, ShipshapeError):
        if isinstance(resolved, ShipshapeError):
            # Not even its form is right: Compose's own words say where.
            wanted.found = from_error(resolved)
            return wanted
        # Its form is right once variables are filled in (`pull_policy: ${POLICY:-missing}`), and then
        # nobody needs to know what stood there before.
        document = resolved[0]
    wanted.raw = document
    profiles = {*compose.source.profiles, *_split(wanted.values.get("COMPOSE_PROFILES", ""))}
    if isinstance(resolved, ShipshapeError):
        wanted.chosen = project.selected(document, profiles, compose.source.services)
    else:
        wanted.chosen = frozenset(resolved[0].get("services") or {}) & frozenset(document.get("services") or {})
    wanted.files = [envfiles.look(path, *rest) for path, rest in envfiles.named(document, wanted.chosen).items()]
    _judge(wanted, compose, profiles, resolved)
    return wanted


def _judge(
    wanted: Wanted,
    compose: Compose,
    profiles: set[str],
    resolved: ShipshapeError | tuple[dict[str, Any], list[Finding]],
) -> None:
    uses = variables.uses(wanted.raw, wanted.chosen)
    causes = [
        *project.unknown_profiles(wanted.raw, profiles, compose.source.spoken),
        *project.out_of_reach(wanted.raw, wanted.chosen),
        *project.one_name_for_many(wanted.raw, wanted.chosen),
        *variables.judged(uses, wanted.values),
        *(entry for file in (*wanted.filling, *wanted.files) for entry in envfiles.judged(file)),
    ]
    wanted.found = causes
    if not isinstance(resolved, ShipshapeError):
        document, words = resolved
        wanted.project = project_from(document)
        named = {use.reference.name for use in uses}
        wanted.found += [Seen(at) for at in words if at.code != _TOLD_BETTER or not _names(at, named)]
        return
    if not any(entry.finding.severity == CRITICAL for entry in causes):
        wanted.found += from_error(resolved)
        return
    # Compose stops at the first of them. Without those that were found it may say more, or go on.
    mended = project.mended(
        wanted.raw, wanted.chosen, envfiles.lacking(wanted.files), variables.stand_ins(uses, wanted.values)
    )
    second = _or_error(lambda: compose.resolved(mended))
    if not isinstance(second, ShipshapeError):
        wanted.project = project_from(second)
    elif variables.UNKNOWN not in str(second):
        wanted.found += from_error(second)


def _names(finding: Finding, known: set[str]) -> bool:
    return any(f"variable {name} " in finding.message for name in known)


def _or_error(work: Any) -> Any:
    try:
        return work()
    except ShipshapeError as error:
        return error


def _filling_files(compose: Compose) -> Iterator[EnvFile]:
    """The files that Compose takes the values of variables from."""
    source = compose.source
    base = source.directory or ""
    for name in source.env_files or ((".env",) if source.directory else ()):
        yield envfiles.look(os.path.join(base, name), bool(source.env_files), frozenset())


def filling(files: list[EnvFile]) -> dict[str, str]:
    """The values that Compose fills in: what the environment says counts, then the files, the last one first."""
    values: dict[str, str] = {}
    for file in files:
        found = envfiles.entries(file)[0]
        try:
            values.update(evaluate(found, lambda name: os.environ.get(name, values.get(name))))
        except ValueError:
            continue  # an expression that Compose refuses: it says so itself
    return {**values, **os.environ}


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
