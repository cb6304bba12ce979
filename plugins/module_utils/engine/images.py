# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The images of a project: built, pulled, or missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

from ..report.finding import CRITICAL, INFO, Finding, ShipshapeError
from ..report.result import Report
from . import history
from .applied import keyed
from .compose import Compose
from .connection import Connection
from .look import Look, look
from .model import Project, Service
from .observed import Observed
from .order import Order

_NOT_THERE = "it is not on the engine"
_STALE = "baked files in it are stale"


class Images:
    """Provides what the services of a project need before a container of theirs can be created."""

    def __init__(self, connection: Connection, compose: Compose, report: Report) -> None:
        self._connection = connection
        self._compose = compose
        self._report = report

    def provide(self, project: Project, seen: Look, order: Order) -> bool:
        """Builds and pulls what is asked for or missing; whether anything was done."""
        builds = [at for at in project.in_order() if to_build(at, seen, order)]
        pulls = to_pull_of(project, seen, order)
        if order.check:
            for verb, services in (("build", builds), ("pull", pulls)):
                # What is merely looked for again may well be unchanged: only what is missing or stale surely changes.
                reasons = {at.image: _STALE for at in services if at.name in order.build_services}
                reasons |= {at.image: _NOT_THERE for at in services if at.image not in seen.images}
                for image, reason in reasons.items():
                    self._report.planned(verb, f"image {image}", reason)
                self._report.add(
                    *(_would_build(at) for at in services if at.image not in reasons and built_from_other(at, seen))
                )
            self._require_images(project, seen, without=builds + pulls)
            return False
        for verb, services, work in (("build", builds, self._compose.build), ("pull", pulls, self._compose.pull)):
            if services:
                after = self._fetch(verb, services, seen, work)
                if verb == "build":
                    self._remember(project, builds, seen, after)
        self._require_images(project, seen, without=builds + pulls)
        return bool(builds or pulls)

    def _require_images(self, project: Project, seen: Look, without: Sequence[Service]) -> None:
        fetched = {at.image for at in without}
        lacking = [at for at in project.services.values() if at.scale and at.image not in {*seen.images, *fetched}]
        if lacking:
            raise ShipshapeError(*(_no_image(at) for at in lacking))

    def _fetch(self, verb: str, services: Sequence[Service], seen: Look, work: Callable[..., None]) -> Look:
        begun = time.monotonic()
        try:
            work(self._connection.local_address(), [at.name for at in services])
        except ShipshapeError as error:
            # Compose's words often name neither.
            whom = ", ".join(at.name for at in services)
            images = ", ".join(dict.fromkeys(at.image for at in services))
            findings = [
                replace(found, subject=whom, message=f"{verb} of image {images}: {found.message}")
                for found in error.findings
            ]
            raise ShipshapeError(*findings, logs=error.logs) from error
        seconds = time.monotonic() - begun
        after = look(self._connection, Project("", {at.name: at for at in services}))
        for image in dict.fromkeys(at.image for at in services):
            if after.images.get(image) != seen.images.get(image):
                reason = _NOT_THERE if image not in seen.images else "there is a newer one"
                self._report.done(verb, f"image {image}", reason, seconds)
        return after

    def _remember(self, project: Project, services: Sequence[Service], seen: Look, after: Look) -> None:
        """What the images were built from: a build that brings the same image again is not made a second time."""
        known = history.read(self._connection.endpoint.host, project.name)
        for at in services:
            image_id, digest = after.images.get(at.image), seen.builds.get(at.name)
            if image_id and digest:
                known = known.with_built(at.name, image_id, digest)
        if not history.write(self._connection.endpoint.host, project.name, known):
            self._report.add(history.not_kept(project.name))


def to_build(service: Service, seen: Look, order: Order) -> bool:
    """Whether the image of `service` is built in this run."""
    if not service.builds or order.build == "never":
        return False
    if order.build == "always" or service.pull_policy == "build" or service.image not in seen.images:
        return True
    if service.name in order.build_services or built_from_other(service, seen):
        return True
    return any(
        entry.source not in (None, entry.found) for at in seen.of(service.name) for entry in seen.baked.get(at.id, ())
    )


def built_from_other(service: Service, seen: Look) -> bool:
    """Whether what the image of `service` was built from has changed since. Where that is not remembered, the
    containers tell what theirs was built from."""
    digest = seen.builds.get(service.name, "")
    known = seen.known.built_from(service.name, seen.images.get(service.image))
    if known and digest:
        return known != digest
    return any(_container_from_other(at, digest) for at in seen.of(service.name))


def _container_from_other(container: Observed, digest: str) -> bool:
    applied = container.applied
    if applied is None or not applied.build or not digest:
        return False
    return keyed(applied.key, digest) != applied.build


def built_here(services: Iterable[Service], order: Order) -> frozenset[str]:
    """The images that the project makes itself: often one service builds what others merely name."""
    return frozenset() if order.build == "never" else frozenset(at.image for at in services if at.builds)


def to_pull_of(project: Project, seen: Look, order: Order) -> list[Service]:
    """The services whose images are looked for in their registries in this run."""
    made = built_here(project.services.values(), order)
    return [at for at in project.in_order() if to_pull(at, seen, order, made)]


def to_pull(service: Service, seen: Look, order: Order, made: Collection[str]) -> bool:
    """Whether the image of `service` is looked for in its registry in this run. `made`: see `built_here`."""
    policy = service.pull_policy if order.pull == "policy" else order.pull
    # Many a project names the published image beside the `build` section: who forbids to build asks for that one.
    published = not service.builds or bool(service.definition.get("image") and policy != "build")
    if service.image in made or not published or not service.scale:
        return False
    return policy == "always" or (policy != "never" and service.image not in seen.images)


def _would_build(service: Service) -> Finding:
    what = f"what its image {service.image} is built from has changed; whether the image changes, building it will tell"
    return Finding(INFO, service.name, "build-pending", what)


def _no_image(service: Service) -> Finding:
    what = f"its image {service.image} is not on the engine, and may not be built or pulled (build, pull, pull_policy)"
    return Finding(CRITICAL, service.name, "image-not-found", what, "Allow that, or load the image onto the target")
