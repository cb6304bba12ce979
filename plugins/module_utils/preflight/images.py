# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether each service's image is there or can be had, for the machine that it is to run on. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..engine.image_name import ImageName, Platform, image_name, suits
from ..engine.images import built_here, to_build, to_pull
from ..engine.look import Look
from ..engine.model import Project, Service
from ..engine.order import Order
from ..engine.registry import Held
from ..report.finding import CRITICAL, Finding, ShipshapeError
from .resources import Load
from .seen import Seen, about, seen
from .variables import UNKNOWN

LOCAL, BUILD, PULL, MISSING = "local", "build", "pull", "missing"


@dataclass(frozen=True)
class Need:
    """One image and those who use it. `source` says where the deploy will take it from."""

    image: str
    source: str
    services: frozenset[str]
    platform: Platform
    name: ImageName | None


@dataclass(frozen=True)
class Holdings:
    """What was found out about the images: inspect documents of those on the engine, by name as the project writes it,
    and what registries answered."""

    local: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    remote: Mapping[ImageName, Held | ShipshapeError] = field(default_factory=dict)

    def config(self, need: Need) -> Mapping[str, Any] | None:
        """The image's own configuration; None where it is not known."""
        if need.source == LOCAL:
            return (self.local.get(need.image) or {}).get("Config") or {}
        held = self.remote.get(need.name) if need.name is not None and need.source == PULL else None
        return held.config if isinstance(held, Held) and held.config else None


def needs(project: Project, local: Collection[str], order: Order, machine: Platform) -> list[Need]:
    """Every image that a container is to be made of, once, as the deploy (with `order`) would come by it."""
    there = Look(images=dict.fromkeys(local, ""))
    services = [at for at in project.in_order() if at.scale and UNKNOWN not in at.image]
    built = {at.image for at in services if to_build(at, there, order)}
    made = built_here(services, order)
    users: dict[tuple[str, Platform], list[Service]] = {}
    for service in services:
        wanted = str(service.definition.get("platform") or "")
        users.setdefault((service.image, Platform.named(wanted) if wanted else machine), []).append(service)
    return [
        Need(
            image,
            _source(group, built, made, there, order),
            frozenset(at.name for at in group),
            platform,
            image_name(image),
        )
        for (image, platform), group in users.items()
    ]


def _source(
    group: Collection[Service], built: Collection[str], made: Collection[str], there: Look, order: Order
) -> str:
    image = next(iter(group)).image
    if image in built:
        return BUILD  # by one of them, or by somebody else of the project
    if any(to_pull(at, there, order, made) for at in group):
        return PULL
    return LOCAL if image in there.images else MISSING


def judged(need: Need, holdings: Holdings, machine: Platform) -> Iterator[Seen]:
    """What is wrong with one image."""
    who = about(need.services)
    if need.name is None:
        what = f"its image {need.image!r} is not a name that an image can have"
        how = "Names are lower-case: [host[:port]/]path[:tag][@digest]"
        yield seen(CRITICAL, who, "image-name-invalid", what, how, need.services)
    elif need.source == MISSING:
        what = f"its image {need.image} is not on the engine, and may not be built or pulled (build, pull, pull_policy)"
        yield seen(
            CRITICAL, who, "image-not-found", what, "Allow that, or load the image onto the target", need.services
        )
    elif need.source == LOCAL:
        offered = Platform.of(holdings.local.get(need.image) or {})
        if need.platform == machine and offered.architecture and not machine.runs(offered):
            yield _wrong_machine(need, (offered,))
    elif need.source == PULL:
        held = holdings.remote.get(need.name)
        if isinstance(held, ShipshapeError):
            yield from (_refused(need, finding) for finding in held.findings)
        elif held is not None and not suits(need.platform, held.platforms):
            yield _wrong_machine(need, held.platforms)


def _refused(need: Need, finding: Finding) -> Seen:
    message = f"its image {need.image} cannot be had: {finding.message}"
    return seen(CRITICAL, about(need.services), finding.code, message, finding.remedy, need.services)


def _wrong_machine(need: Need, offered: Collection[Platform]) -> Seen:
    what = (
        f"its image {need.image} is for {', '.join(map(str, offered)) or 'no machine'}, and this needs {need.platform}"
    )
    how = f"Build and push it for {need.platform} (docker buildx build --platform {need.platform}), or set platform"
    return seen(CRITICAL, about(need.services), "image-wrong-architecture", what, how, need.services)


def load(found: Collection[Need], holdings: Holdings) -> Load:
    """What comes onto the disk."""
    held = [holdings.remote.get(need.name) for need in found if need.source == PULL and need.name is not None]
    pulled = sum(at.size for at in held if isinstance(at, Held))
    return Load(pulled, sum(need.source in (PULL, BUILD) for need in found))


def described(found: Collection[Need], holdings: Holdings) -> dict[str, dict[str, Any]]:
    """The images by service, for the module's result."""
    told = {}
    for need in found:
        held = holdings.remote.get(need.name) if need.name is not None else None
        local = holdings.local.get(need.image) or {}
        offered = held.platforms if isinstance(held, Held) else (Platform.of(local),) if local else ()
        digest = held.digest if isinstance(held, Held) else ""
        for service in need.services:
            platforms = [str(platform) for platform in offered]
            told[service] = {"image": need.image, "source": need.source, "digest": digest, "platforms": platforms}
    return dict(sorted(told.items()))
