# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files and directories of the target that services mount."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from ..engine.model import FileMount, Project, Service
from ..report.finding import CRITICAL, WARNING
from .seen import Seen, seen

_FILE = re.compile(
    r"\.(conf|cfg|cnf|ini|json|ya?ml|toml|env|sh|bash|py|rb|js|mjs|ts|sql|crt|cer|pem|key|txt|html?|xml|properties|"
    r"sock|service|lua|php|pl|htpasswd|hcl|tmpl|template|rules|list|csv)$"
)


@dataclass(frozen=True)
class Source:
    """What lies at a mount's source: '' for nothing, else file, directory, link (one that leads nowhere), or other."""

    kind: str = ""
    empty: bool = False  # a directory with nothing in it


def look(sources: Collection[str]) -> dict[str, Source]:
    """What lies at each path."""
    return {path: _look(path) for path in sources}


def _look(path: str) -> Source:
    if not os.path.exists(path):
        return Source("link" if os.path.islink(path) else "")
    if os.path.isdir(path):
        try:
            return Source("directory", empty=not any(os.scandir(path)))
        except OSError:
            return Source("directory")
    return Source("file" if os.path.isfile(path) else "other")


def judged(project: Project, found: Mapping[str, Source]) -> Iterator[Seen]:
    """Sources that are missing, or are not what the service expects there. Pure."""
    for service in project.in_order():
        makes = _made_by_the_engine(service)
        for mount in service.file_mounts:
            source = found.get(mount.source)
            if source is None:
                continue
            if source.kind in ("", "link"):
                yield _missing(service, mount, source, mount.target in makes)
            elif source.kind == "directory" and source.empty and _FILE.search(mount.target):
                what = f"{mount.source}, which it mounts at {mount.target}, is an empty directory and not a file"
                how = "The engine makes one where a source is missing: remove it, and bring the file there"
                yield seen(CRITICAL, service.name, "bind-source-is-directory", what, how)


def _missing(service: Service, mount: FileMount, source: Source, makes: bool) -> Seen:
    what = f"{mount.source}, which it mounts at {mount.target}, " + (
        "is a link that leads nowhere" if source.kind == "link" else "does not exist"
    )
    if not makes or source.kind == "link":
        return seen(CRITICAL, service.name, "bind-source-missing", what, "Bring it there before the deploy")
    if _FILE.search(mount.target):
        how = "Bring the file there: the engine would make an empty directory of that name, and mount that"
        return seen(CRITICAL, service.name, "bind-source-missing", what, how)
    how = "Bring it there, or leave it to the engine, which makes an empty directory that belongs to root"
    return seen(WARNING, service.name, "bind-source-missing", what, how)


def _made_by_the_engine(service: Service) -> frozenset[str]:
    """Targets whose missing source the engine makes: volumes in the short syntax."""
    return frozenset(
        entry["target"]
        for entry in service.definition.get("volumes") or []
        if entry.get("type") == "bind" and (entry.get("bind") or {}).get("create_host_path")
    )
