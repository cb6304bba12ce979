# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a project that Compose resolved in a private directory read as if it lay in its real place already.

Run by the target's own Python (>= 3.9, standard library only). STAGED says where, as JSON: {"file": what
`docker compose config --format json --output` wrote, "of": the real place, "at": the private one, "removed": [paths
that will not be in the real place any more]}. The file is rewritten; nothing is printed, it may hold secrets.
"""

from __future__ import annotations

import json
import os
from pathlib import Path


def compose_literal(value):
    """`value` as Compose reads it back: it would fill in a dollar, so each gets two."""
    return json.loads(json.dumps(value).replace("$", "$$"))


def moved(value, at: str, of: str):
    """`value` with what lies in directory `at` in `of`."""
    if isinstance(value, str):
        return value.replace(at, of)
    if isinstance(value, list):
        return [moved(entry, at, of) for entry in value]
    if isinstance(value, dict):
        return {key: moved(entry, at, of) for key, entry in value.items()}
    return value


def without_absent(services: dict) -> dict:
    """`services` without optional dependencies on services that are not there, as those of a profile that is off:
    Compose writes such a project, and does not read it."""
    return {
        name: {
            key: {other: terms for other, terms in value.items() if other in services or terms.get("required", True)}
            if key == "depends_on"
            else value
            for key, value in service.items()
        }
        for name, service in services.items()
    }


def in_place(document: dict, of: str, at: str, removed: list) -> dict:
    """The resolved project `document` as module `stack` plans from it (see Staged in its model)."""
    place = moved(document, compose_literal(at), compose_literal(of))
    note = {"of": of, "at": at, "removed": removed}
    return {
        # What is mounted or built is read where it lies now; it counts as what will be in the real place.
        "x-shipshape-staged": compose_literal(note),
        **place,
        "services": without_absent(place.get("services") or {}),
    }


if __name__ == "__main__":
    told = json.loads(os.environ["STAGED"])
    path = Path(told.pop("file"))
    path.write_text(json.dumps(in_place(json.loads(path.read_text(encoding="utf-8")), **told)), encoding="utf-8")
