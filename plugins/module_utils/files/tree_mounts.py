# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which services mount which of the files that changed, as Compose resolves the project."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..report.finding import INFO, Finding

# What Compose looks for by itself, in its order.
_DEFAULTS = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")

# Runs a command; gives its exit code and standard output.
Run = Callable[[Sequence[str]], tuple[int, str]]


def compose_files(dest: str, files: Sequence[str] | None) -> list[str]:
    """The project's Compose files below dest, as options for `docker compose`; none when it has no project."""
    if files:
        return [word for name in files for word in ("--file", os.path.join(dest, name))]
    found = any(os.path.exists(os.path.join(dest, name)) for name in _DEFAULTS)
    return ["--project-directory", dest] if found else []


def resolve(
    run: Run, dest: str, files: Sequence[str] | None, env_files: Iterable[str], changed: Sequence[str]
) -> tuple[dict[str, list[str]], list[Finding]]:
    """Service -> those of `changed` (paths below dest) that it mounts. Best effort: a finding where it cannot be told.

    Every profile counts. Interpolation gets the env files at hand; what they lack is not an error here unless the
    Compose file says so.
    """
    options = compose_files(dest, files)
    if not options:
        return {}, []
    present = [os.path.join(dest, name) for name in (".env", *env_files)]
    for path in dict.fromkeys(filter(os.path.isfile, present)):
        options += ["--env-file", path]
    code, out = run(["docker", "compose", *options, "--profile", "*", "config", "--format", "json"])
    try:
        model = json.loads(out) if code == 0 else None
    except ValueError:
        model = None
    if not isinstance(model, dict):
        # Compose's own words may hold values of the env files, so they are not repeated.
        message = f"which services mount what changed cannot be told: docker compose config exits with {code}"
        return {}, [Finding(INFO, dest, "bind-mounts-unknown", message, "Run docker compose config there to see why")]
    return mounted(model, dest, changed), []


def mounted(model: Mapping[str, Any], dest: str, changed: Iterable[str]) -> dict[str, list[str]]:
    """The same from a resolved model (`docker compose config --format json`)."""
    paths = {os.path.join(dest, path): path for path in changed}
    result = {}
    for name, service in sorted((model.get("services") or {}).items()):
        sources = {spelling for source in _sources(model, service) for spelling in _spellings(source)}
        hit = {
            path
            for full, path in paths.items()
            if any(full == source or full.startswith(source.rstrip("/") + "/") for source in sources)
        }
        if hit:
            result[name] = sorted(hit)
    return result


def _sources(model: Mapping[str, Any], service: Mapping[str, Any]) -> Iterable[str]:
    for volume in service.get("volumes") or ():
        if volume.get("type") == "bind" and volume.get("source"):
            yield volume["source"]
    for kind in ("configs", "secrets"):
        for use in service.get(kind) or ():
            file = ((model.get(kind) or {}).get(use.get("source")) or {}).get("file")
            if file:
                yield file


def _spellings(source: str) -> set[str]:
    """The engine mounts what a link points to; a change of the link itself counts too. dest has no links in it."""
    folder, name = os.path.split(source.rstrip("/") or "/")
    return {os.path.realpath(source), os.path.join(os.path.realpath(folder), name)}
