# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole of module `image`: look at what is baked, build and pull where that is asked for, prune."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..report.finding import CRITICAL, WARNING, Finding, ShipshapeError, failure
from ..report.result import Report
from . import baked, history
from .baked import Baked
from .compose import Compose
from .connection import Connection
from .contents import sweep
from .images import Images, to_build, to_pull_of
from .lock import locked
from .look import Look, look
from .model import Project
from .order import Order
from .resolve import resolved
from .staleness import Seen, Staleness
from .versions import (
    Required,
    Said,
    read_log,
    required_findings,
    version_findings,
    version_summary,
    versioned,
)

# So many findings fit into one line that somebody reads; the result holds them all.
_TOLD = 3


@dataclass(frozen=True)
class Wish:
    """The options of module `image` that are not about which project. `baked_files` by service."""

    baked_files: Mapping[str, Sequence[Baked]] = field(default_factory=dict)
    version_marker: str | None = None
    required_patterns: tuple[Required, ...] = ()
    build: str = "auto"
    pull: str = "policy"
    keep: int = 5
    wait_timeout: float = 300.0
    check: bool = False


class ImageWork:
    """One call of the module on one project."""

    def __init__(self, connection: Connection, compose: Compose, report: Report, wish: Wish) -> None:
        self._connection = connection
        self._compose = compose
        self._report = report
        self._wish = wish
        self._host = connection.endpoint.host
        report.values["services"] = {}

    # -- state: verified --------------------------------------------------------------------------------------------

    def verified(self) -> None:
        """Says which layer is stale, and fails when one is."""
        project = self._project()
        seen = look(self._connection, project)
        self._fail_with(self._judged(project, seen, self._look(project, seen), CRITICAL))

    # -- state: present ---------------------------------------------------------------------------------------------

    def present(self) -> None:
        """Builds what is stale or missing, pulls what is asked for, and looks at what came of it."""
        project = self._project()
        if self._wish.check:
            self._plan(project, look(self._connection, project))
            return
        with locked(self._host, project.name, self._wish.wait_timeout):
            seen = look(self._connection, project)
            before = self._look(project, seen)
            order = self._order(project, before)
            if Images(self._connection, self._compose, self._report).provide(project, seen, order):
                seen = look(self._connection, project)
                before = self._look(project, seen)
            self._remember_altered(project, before)
        self._fail_with(self._judged(project, seen, before, WARNING))

    def _plan(self, project: Project, seen: Look) -> None:
        """Check mode: what would be built and pulled, and what is stale until then."""
        before = self._look(project, seen)
        order = self._order(project, before)
        Images(self._connection, self._compose, self._report).provide(project, seen, order)
        found = self._judged(project, seen, before, WARNING)
        mended = {at.image for at in project.services.values() if to_build(at, seen, order)}
        mended |= {at.image for at in to_pull_of(project, seen, order)}
        self._fail_with([entry for entry in found if not _is_mended(entry, project, mended)])

    def _order(self, project: Project, before: Seen) -> Order:
        """What stack would do, and beyond that: images in which a baked file is stale are built."""
        known = self._known(project)
        stale = {
            at.image
            for at in before.services.values()
            if any(baked.IMAGE in baked.judged(one, at, known).layers for one in at.files)
        }
        builders = tuple(at.name for at in project.in_order() if at.builds and at.image in stale)
        asked = builders if self._wish.build != "never" else ()
        return Order(build=self._wish.build, pull=self._wish.pull, check=self._wish.check, build_services=asked)

    def _remember_altered(self, project: Project, files: Seen) -> None:
        """What the build makes of files, so that they are not taken for stale when only others have changed."""
        known = before = self._known(project)
        for at in files.services.values():
            if at.current:
                known = known.with_altered(at.service, baked.altered_files(at, known))
        if known.altered != before.altered:
            history.write(self._host, project.name, known)

    # -- state: pruned ----------------------------------------------------------------------------------------------

    def pruned(self) -> None:
        """Removes old images of the project that nothing refers to."""
        from . import prune

        if self._wish.keep < 0:
            raise failure("keep", "keep-invalid", f"{self._wish.keep} images cannot be kept", "Use 0 or more")
        project = self._project()
        with locked(self._host, project.name, self._wish.wait_timeout):
            seen = look(self._connection, project)
            known = self._known(project)
            held = prune.held_images(self._connection)
            old = prune.prunable(held, project, seen.images.values(), known, self._wish.keep)
            if self._wish.check:
                for image in old:
                    self._report.planned("remove", prune.spoken(image), "nothing refers to it")
                return
            gone = prune.remove(self._connection, old, self._report)
            if gone:
                history.write(self._host, project.name, known.without_images(gone))

    # -- looking ----------------------------------------------------------------------------------------------------

    def _project(self) -> Project:
        for name, pattern in [
            ("version_marker", self._wish.version_marker),
            *(("required_patterns", entry.pattern) for entry in self._wish.required_patterns),
        ]:
            _check_pattern(name, pattern)
        project = resolved(self._compose, self._report)
        asked = {*self._wish.baked_files, *(entry.service for entry in self._wish.required_patterns)}
        unknown = sorted(asked - set(project.services))
        if unknown:  # those of a profile that is not enabled, or not among `services`, are just not looked at
            unknown = sorted(set(unknown) - set(self._compose.all_services()))
        if unknown:
            what = f"no service is called {', '.join(unknown)} (services: {', '.join(sorted(project.services))})"
            raise failure(project.name, "service-unknown", what, "Check baked_files and required_patterns")
        return project

    def _known(self, project: Project) -> history.History:
        return history.read(self._host, project.name)

    def _look(self, project: Project, seen: Look) -> Seen:
        if not self._wish.check:
            sweep(self._connection)
        eye = Staleness(self._connection, project, self._wish.baked_files, self._wish.version_marker)
        return eye.look(seen.containers, self._known(project), seen.builds)

    def _judged(self, project: Project, seen: Look, files: Seen, severity: str) -> list[Finding]:
        """Everything that is to be said, and the result's values. `severity`: see baked.findings."""
        known = self._known(project)
        found: list[Finding] = []
        said = self._said(seen, files)
        for name, at in files.services.items():
            found += baked.findings(at, known, severity)
            found += baked.notes(name, files.skipped.get(name, ()))
            found += version_findings(at, said.get(name, {}), severity)
            entry = baked.summary(at, known)
            self._report.values["services"][name] = {**entry, "versions": version_summary(at, said.get(name, {}))}
        if self._wish.version_marker and not any(versioned(at) for at in files.services.values()):
            what = f"version_marker {self._wish.version_marker!r} is in none of the baked files, in no layer"
            how = "Check the pattern, and that the file with the version is among the baked files"
            found.append(Finding(CRITICAL, project.name, "version-missing", what, how))
        required = [entry for entry in self._wish.required_patterns if entry.service in project.services]
        found += required_findings(self._connection, required, seen.containers)
        return found

    def _said(self, seen: Look, files: Seen) -> dict[str, dict[str, Said]]:
        """By service and container the version in the log since the last start."""
        if not self._wish.version_marker:
            return {}
        marker = re.compile(self._wish.version_marker, re.MULTILINE)
        found: dict[str, dict[str, Said]] = {}
        for at in seen.containers:
            own = files.services.get(at.service)
            named = versioned(own) if own else []
            wanted = [one.source.version for one in named if one.source and one.source.version]
            if wanted and not at.role:
                found.setdefault(at.service, {})[at.name] = read_log(self._connection, at, marker, wanted)
        return found

    def _fail_with(self, found: Sequence[Finding]) -> None:
        """Reports, and fails when something critical is among it: in one line, however much it is."""
        self._report.add(*found)
        critical = [entry for entry in found if entry.severity == CRITICAL]
        if not critical:
            return
        told, rest = critical[:_TOLD], len(critical) - _TOLD
        if rest > 0:
            more = replace(told[-1], message=f"{told[-1].message}; {rest} more like this are in `findings`")
            self._report.findings.remove(told[-1])
            told = [*told[:-1], more]
        raise ShipshapeError(*told)


def _is_mended(entry: Finding, project: Project, images: set[str]) -> bool:
    """Whether building or pulling `images` ends what `entry` says."""
    service = project.services.get(entry.subject)
    about_layers = ("baked-file-stale", "image-not-found", "version-missing", "version-mismatch")
    return service is not None and service.image in images and entry.code in about_layers


def _check_pattern(name: str, pattern: str | None) -> None:
    try:
        re.compile(pattern or "")
    except re.error as error:
        how = "Mend the regular expression (the syntax is Python's)"
        raise failure(name, "pattern-invalid", f"{pattern!r} is no regular expression: {error}", how) from error
