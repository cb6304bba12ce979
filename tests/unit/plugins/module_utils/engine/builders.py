# SPDX-License-Identifier: GPL-3.0-or-later
"""Projects and containers for the tables in this folder: what a row does not say is as usual.

A container is built *from* a project, exactly as the engine would report it had the converger made it from that
project; drift comes from comparing it with another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.shipshape.deploy.plugins.module_utils.engine import applied
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.look import Look
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.model import Project, project_from
from ansible_collections.shipshape.deploy.plugins.module_utils.engine.observed import Observed, observed

NAME = "p"
IMAGE_ID = "sha256:" + "1" * 64
OTHER_IMAGE_ID = "sha256:" + "2" * 64
BEGUN = "2026-11-23T06:00:00.000000000Z"


def project(services: Mapping[str, Mapping[str, Any]] | None = None, /, **sections: Any) -> Project:
    """The project that Compose would resolve from these services (image `a` where none is named) and sections."""
    entries = {name: {"image": "a", **entry} for name, entry in (services or {"web": {}}).items()}
    return project_from({"name": NAME, "services": entries, **sections})


def needs(*services: str, **wish: Any) -> dict[str, Any]:
    """A depends_on section as Compose resolves it."""
    return {name: {"condition": "service_started", "required": True, **wish} for name in services}


def container(
    name: str = "p-web-1",
    made_from: Project | None = None,
    *,
    service: str = "web",
    number: int | None = None,
    status: str = "running",
    code: int = 0,
    health: str = "",
    restart: str = "",
    image: str = IMAGE_ID,
    labels: Mapping[str, str] | None = None,
    mounts: Iterable[Mapping[str, Any]] = (),
    **state: Any,
) -> Observed:
    """One container. Without `made_from` it bears no label of ours, as if plain Compose had made it."""
    plain = name.partition(".shipshape-")[0]
    digits = plain.rpartition("-")[2]
    document = {
        "Id": f"id of {name}",
        "Name": f"/{name}",
        "Image": image,
        "RestartCount": state.pop("restarts", 0),
        "Config": {
            "Image": "a",
            "Healthcheck": {"Test": ["CMD", "true"]} if health else None,
            "Labels": {
                "com.docker.compose.service": service,
                "com.docker.compose.container-number": str(number or (digits if digits.isdigit() else 1)),
                **({applied.LABEL: applied.label(made_from, made_from.services[service])} if made_from else {}),
                **(labels or {}),
            },
        },
        "HostConfig": {"RestartPolicy": {"Name": restart}},
        "Mounts": list(mounts),
        "State": {
            "Status": status,
            "ExitCode": code,
            "StartedAt": BEGUN,
            **({"Health": {"Status": health}} if health else {}),
            **state,
        },
    }
    return observed(document)


def seen(*containers: Observed, images: Mapping[str, str] | None = None, **rest: Any) -> Look:
    """A look at the engine that finds `containers` and image `a`."""
    return Look(containers=containers, images=images or {"a": IMAGE_ID}, **rest)
